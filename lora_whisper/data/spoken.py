"""What few people have said, spoken by many: texts of a corpus in random voices, to train on beside it.

An adapter that has heard three people learns these three. espeak-ng's voices are no people, but they say the
same words with other vocal tracts, pitches and speeds; other voices were made from recordings of people.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import soxr

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data import espeak, kokoro, recorded
from lora_whisper.data.conditions import Samples
from lora_whisper.data.manifest import Utterance, write_manifest
from lora_whisper.data.synthetic import remove, write_flac
from lora_whisper.data.texts import stable_hash
from lora_whisper.data.voices import draw_timbre, draw_voice
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder

NAME = "spoken"
"""Of the manifest, without its ending, and of what is in it."""

LEAST_RATE = 4000
"""Hz; less is no speech."""


def prepare_spoken(
    utterances: Sequence[Utterance],
    copies: int,
    seed: int,
    out: str | Path,
    progress: Callable[[int, int], None] | None = None,
    recorded_share: float = 0.0,
    sample_rate: int = SAMPLE_RATE,
    neural: kokoro.Kokoro | None = None,
    neural_share: float = 0.0,
) -> Path:
    """The manifest `out/spoken.jsonl` of different texts in random voices, beside `out/audio/*.flac`.

    Args:
        utterances: whose texts to speak, in their languages; their sound is not read.
        copies: in how many voices each text is spoken.
        seed: another seed, other voices; the same seed, the same bytes.
        out: folder to write to.
        progress: called with the number of utterances done and of all.
        recorded_share: of the copies in voices made from recordings, in the languages that have some.
        sample_rate: of the corpus beside which they are trained, in Hz: what it cannot hold they have not,
            either; at most 16,000.
        neural: speaks the next share of the copies, in the languages that it learned.
        neural_share: that share.

    Raises:
        UsageError: nothing to speak, shares or a rate that are none, nobody for the
            neural share, or flite is needed and not installed.
        UnknownLanguage: espeak-ng does not speak a language.
        OutputError: the folder cannot be written.
        MissingExtra: an extra is not installed: `demo`, or `voices` for voices made from recordings.
    """
    texts = list(dict.fromkeys((one.language, one.text) for one in utterances if one.text))
    if copies < 1 or not texts:
        raise UsageError(f"{copies} copies of {len(texts)} texts; ask for 1 or more of both")
    if min(recorded_share, neural_share) < 0 or recorded_share + neural_share > 1:
        raise UsageError(
            f"{recorded_share} of the copies in recorded voices, {neural_share} in neural ones;"
            " shares are between 0 and 1, together, too"
        )
    if neural_share and not neural:
        raise UsageError(f"{neural_share} of the copies in neural voices, and no Kokoro to speak them")
    if not LEAST_RATE <= sample_rate <= SAMPLE_RATE:
        raise UsageError(f"a sample rate of {sample_rate}; it is between {LEAST_RATE} and {SAMPLE_RATE} Hz")
    out = prepare_folder(Path(out))
    folder, manifest = prepare_folder(out / "audio"), out / f"{NAME}.jsonl"
    remove(manifest)  # an older manifest must not describe newer audio
    rows: list[Utterance] = []
    for language, text in texts:
        speakers = [*_speakers(language, copies, recorded_share, neural, neural_share)]
        for copy, speak in enumerate(speakers):
            rows.append(_spoken(language, text, copy, seed, folder, speak, sample_rate))
            if progress:
                progress(len(rows), len(texts) * copies)
    return write_manifest(manifest, rows)


def _speakers(
    language: str, copies: int, recorded_share: float, neural: kokoro.Kokoro | None, neural_share: float
) -> Iterator[recorded.Speaker]:
    """Who speaks each copy."""
    for copy in range(copies):
        if recorded.speaks(language) and copy < recorded_share * copies:
            yield recorded.speak
        elif neural and kokoro.speaks(language) and copy < (recorded_share + neural_share) * copies:
            yield partial(recorded.as_somebody_else, neural.speak)
        else:
            yield _nobody


def _nobody(text: str, language: str, rng: np.random.Generator) -> Samples:
    """A vocal tract that was drawn."""
    voice, _ = draw_voice([""], rng)
    return espeak.synthesise(text, language, replace(voice, timbre=draw_timbre(rng)))


def _spoken(
    language: str, text: str, copy: int, seed: int, folder: Path, speak: recorded.Speaker, sample_rate: int
) -> Utterance:
    number = stable_hash(f"{language}|{text}|{seed}|{copy}")
    audio = speak(text, language, np.random.default_rng(number))
    if sample_rate < SAMPLE_RATE:
        narrow = soxr.resample(audio, SAMPLE_RATE, sample_rate)
        audio = soxr.resample(narrow, sample_rate, SAMPLE_RATE)
    name = f"{NAME}-{language}-{number:016x}"
    path = folder / f"{name}.flac"
    return Utterance(path, text, language, duration_s=write_flac(path, audio), speaker=name, id=name)
