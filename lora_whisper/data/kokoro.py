"""Speech by Kokoro-82M (hexgrad, Apache-2.0), which speaks as some fifty people and as all between them.

Its folder is that of the ONNX release: `onnx/*.onnx`, `voices/*.bin` and `tokenizer.json`
(`hf download onnx-community/Kokoro-82M-v1.0-ONNX --local-dir kokoro`; without a hub: `scripts/kokoro.py`).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data import espeak
from lora_whisper.data.conditions import Samples, trimmed
from lora_whisper.data.extras import optional_module
from lora_whisper.errors import AudioError, CheckpointError

ACCENTS = {
    "en": ("en-us", "en-gb"),
    "es": ("es",),
    "fr": ("fr",),
    "hi": ("hi",),
    "it": ("it",),
    "pt": ("pt-br",),
}
"""Languages that it learned from espeak-ng's phonemes, or nearly so, and as which espeak-ng reads each."""

STYLE_WIDTH = 256
"""Of a voice's vectors, of which it has one for each number of phonemes, (N, 256)."""

SPEEDS = (0.75, 1.3)
"""Slowest and fastest."""

_RELEASE = "hf download onnx-community/Kokoro-82M-v1.0-ONNX --local-dir kokoro"
_RATE_HZ = 24_000
_EDGE_S = 0.05  # of silence that is left
_ENGLISH_IN_BETWEEN = re.compile(r"\([a-z-]+\)")
_AS_ONE = {
    "eɪ": "A",
    "aɪ": "I",
    "oʊ": "O",
    "əʊ": "Q",
    "aʊ": "W",
    "ɔɪ": "Y",
    "tʃ": "ʧ",
    "dʒ": "ʤ",
}
"""Two phonemes of espeak-ng that are one of Kokoro's."""

_AMERICAN = {"ɜː": "ɜɹ", "ɚ": "əɹ", "ː": ""}


def speaks(language: str) -> bool:
    """Whether Kokoro learned the language of this tag."""
    return language.split("-", maxsplit=1)[0] in ACCENTS


class Kokoro:
    """The model and its voices.

    Args:
        folder: see the module.
        n_threads: that speak; 0 for one on each core.

    Raises:
        CheckpointError: a file is missing or is none of Kokoro's.
        MissingExtra: the `voices` extra is not installed.
    """

    def __init__(self, folder: Path, n_threads: int = 0) -> None:
        models, voices = sorted(folder.glob("onnx/*.onnx")), sorted(folder.glob("voices/*.bin"))
        for kind, found in (("onnx/*.onnx", models), ("voices/*.bin", voices)):
            if not found:
                raise CheckpointError(f"{folder} has no {kind}; fetch Kokoro's ONNX release: {_RELEASE}")
        try:
            tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
            self._ids: dict[str, int] = dict(tokenizer["model"]["vocab"])
            self._space = self._ids[" "]
            self._voices = [np.fromfile(path, "<f4").reshape(-1, STYLE_WIDTH) for path in voices]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder} is no ONNX release of Kokoro-82M: {error}") from error
        onnxruntime = optional_module("onnxruntime", "voices")
        onnxruntime.set_seed(0)  # of the breath in its voices
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(models[0]), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001  (the library's own kinds, and what the file system says)
            raise CheckpointError(f"{models[0]}: cannot be loaded ({str(error).splitlines()[0]})") from None
        names = {one.name for one in self._session.get_inputs()}
        if len(names) != 3 or not names > {"style", "speed"}:
            raise CheckpointError(f"{models[0]} is no Kokoro (its inputs: {sorted(names)})")
        (self._tokens,) = names - {"style", "speed"}
        self._longest = min(len(voice) for voice in self._voices)

    def speak(self, text: str, language: str, rng: np.random.Generator) -> Samples:
        """The text by a random mixture of two voices at a random speed, (n_samples,), 16 kHz.

        On one machine the same calls of a new instance give the same samples.

        Raises:
            AudioError: there is nothing to say.
            MissingExtra: the `demo` extra is not installed.
        """
        pieces = list(self._pieces(phonemes(text, language, rng)))
        if not pieces:
            raise AudioError(f"Kokoro could not speak {text[:40]!r}")
        one, other = (self._voices[place] for place in rng.integers(len(self._voices), size=2))
        share, speed = np.float32(rng.random()), np.array([rng.uniform(*SPEEDS)], np.float32)
        spoken = []
        for ids in pieces:
            style = share * one[len(ids) - 1] + (1 - share) * other[len(ids) - 1]
            tokens = np.array([[0, *ids, 0]], np.int64)  # 0 begins and ends
            inputs = {self._tokens: tokens, "style": style[None], "speed": speed}
            spoken.append(np.ravel(self._session.run(None, inputs)[0]))
        audio = soxr.resample(np.concatenate(spoken), _RATE_HZ, SAMPLE_RATE)
        return trimmed(np.clip(audio, -1, 1).astype(np.float32), _EDGE_S, _EDGE_S)

    def _pieces(self, read: str) -> Iterator[list[int]]:
        """The numbers of the phonemes, in pieces of whole words that are no longer than can be spoken."""
        piece: list[int] = []
        for word in read.split():
            ids = [self._ids[one] for one in word if one in self._ids][: self._longest]
            if piece and len(piece) + 1 + len(ids) > self._longest:
                yield piece
                piece = []
            piece += [self._space, *ids] if piece and ids else ids
        if piece:
            yield piece


def phonemes(text: str, language: str, rng: np.random.Generator) -> str:
    """How Kokoro is told to read the text: espeak-ng's phonemes, in its spelling of them."""
    tag = language.lower()
    accents = ACCENTS[tag.split("-", maxsplit=1)[0]]
    accent = tag if tag in accents else accents[int(rng.integers(len(accents)))]
    (read,) = espeak.phonemes([text], accent)
    spelling = _AS_ONE | (_AMERICAN if accent == "en-us" else {})
    read = _ENGLISH_IN_BETWEEN.sub("", read)
    for theirs, ours in spelling.items():
        read = read.replace(theirs, ours)
    return read
