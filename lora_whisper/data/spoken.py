"""What few people have said, spoken by many: texts of a corpus in random voices, to train on beside it.

An adapter that has heard three people learns these three. espeak-ng's voices are no people, but they say the
same words with other vocal tracts, pitches and speeds; flite's were made of people, for English.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_whisper.data import espeak, flite
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
    flite_share: float = 0.0,
) -> Path:
    """The manifest `out/spoken.jsonl` of different texts in random voices, beside `out/audio/*.flac`.

    Args:
        utterances: whose texts to speak, in their languages; their sound is not read.
        copies: in how many voices each text is spoken.
        seed: another seed, other voices; the same seed, the same bytes.
        out: folder to write to.
        progress: called with the number of utterances done and of all.
        flite_share: of the copies of English texts that flite speaks and not espeak-ng.

    Raises:
        UsageError: nothing to speak, a share that is none, or flite is needed and not installed.
        UnknownLanguage: espeak-ng does not speak a language.
        OutputError: the folder cannot be written.
        MissingExtra: the `demo` extra is not installed.
    """
    texts = list(dict.fromkeys((one.language, one.text) for one in utterances if one.text))
    if copies < 1 or not texts:
        raise UsageError(f"{copies} copies of {len(texts)} texts; ask for 1 or more of both")
    if not 0 <= flite_share <= 1:
        raise UsageError(f"{flite_share} of the copies by flite; a share is between 0 and 1")
    out = prepare_folder(Path(out))
    folder, manifest = prepare_folder(out / "audio"), out / f"{NAME}.jsonl"
    remove(manifest)  # an older manifest must not describe newer audio
    rows: list[Utterance] = []
    for language, text in texts:
        for copy in range(copies):
            by_flite = flite.speaks(language) and copy < flite_share * copies
            rows.append(_spoken(language, text, copy, seed, folder, by_flite))
            if progress:
                progress(len(rows), len(texts) * copies)
    return write_manifest(manifest, rows)


def _spoken(language: str, text: str, copy: int, seed: int, folder: Path, by_flite: bool) -> Utterance:
    number = stable_hash(f"{language}|{text}|{seed}|{copy}")
    rng = np.random.default_rng(number)
    if by_flite:
        audio = flite.speak(text, rng)
    else:
        voice, _ = draw_voice([""], rng)
        audio = espeak.synthesise(text, language, replace(voice, timbre=draw_timbre(rng)))
    name = f"{NAME}-{language}-{number:016x}"
    path = folder / f"{name}.flac"
    return Utterance(path, text, language, duration_s=write_flac(path, audio), speaker=name, id=name)
