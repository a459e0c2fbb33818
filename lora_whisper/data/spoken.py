"""What few people have said, spoken by many: texts of a corpus in random voices, to train on beside it.

An adapter that has heard three people learns these three. espeak-ng's voices are no people, but they say the
same words with other vocal tracts, pitches and speeds; other voices were made from recordings of people.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_whisper.data import espeak, recorded
from lora_whisper.data.manifest import Utterance, write_manifest
from lora_whisper.data.synthetic import remove, write_flac
from lora_whisper.data.texts import stable_hash
from lora_whisper.data.voices import draw_timbre, draw_voice
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder

NAME = "spoken"
"""Of the manifest, without its ending, and of what is in it."""


def prepare_spoken(
    utterances: Sequence[Utterance],
    copies: int,
    seed: int,
    out: str | Path,
    progress: Callable[[int, int], None] | None = None,
    recorded_share: float = 0.0,
) -> Path:
    """The manifest `out/spoken.jsonl` of different texts in random voices, beside `out/audio/*.flac`.

    Args:
        utterances: whose texts to speak, in their languages; their sound is not read.
        copies: in how many voices each text is spoken.
        seed: another seed, other voices; the same seed, the same bytes.
        out: folder to write to.
        progress: called with the number of utterances done and of all.
        recorded_share: of the copies in voices made from recordings, in the languages that have some.

    Raises:
        UsageError: nothing to speak, a share that is none, or flite is needed and not installed.
        UnknownLanguage: espeak-ng does not speak a language.
        OutputError: the folder cannot be written.
        MissingExtra: an extra is not installed: `demo`, or `voices` for voices made from recordings.
    """
    texts = list(dict.fromkeys((one.language, one.text) for one in utterances if one.text))
    if copies < 1 or not texts:
        raise UsageError(f"{copies} copies of {len(texts)} texts; ask for 1 or more of both")
    if not 0 <= recorded_share <= 1:
        raise UsageError(f"{recorded_share} of the copies in recorded voices; a share is between 0 and 1")
    out = prepare_folder(Path(out))
    folder, manifest = prepare_folder(out / "audio"), out / f"{NAME}.jsonl"
    remove(manifest)  # an older manifest must not describe newer audio
    rows: list[Utterance] = []
    for language, text in texts:
        for copy in range(copies):
            human = recorded.speaks(language) and copy < recorded_share * copies
            rows.append(_spoken(language, text, copy, seed, folder, human))
            if progress:
                progress(len(rows), len(texts) * copies)
    return write_manifest(manifest, rows)


def _spoken(language: str, text: str, copy: int, seed: int, folder: Path, human: bool) -> Utterance:
    number = stable_hash(f"{language}|{text}|{seed}|{copy}")
    rng = np.random.default_rng(number)
    if human:
        audio = recorded.speak(text, language, rng)
    else:
        voice, _ = draw_voice([""], rng)
        audio = espeak.synthesise(text, language, replace(voice, timbre=draw_timbre(rng)))
    name = f"{NAME}-{language}-{number:016x}"
    path = folder / f"{name}.flac"
    return Utterance(path, text, language, duration_s=write_flac(path, audio), speaker=name, id=name)
