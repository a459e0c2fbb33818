"""Rows of speech and text, grouped into batches of similar length under a budget of audio seconds.

The order depends on the seed and the epoch alone, so that a resumed run sees exactly the same batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from lora_whisper.audio import FRAMES_PER_POSITION, HOP_LENGTH, SAMPLE_RATE, features
from lora_whisper.model.tokenizer import Tokenizer
from numpy.typing import NDArray
from torch import Tensor

from lora_whisper.data.manifest import Utterance
from lora_whisper.errors import ManifestError
from lora_whisper.languages import language

IGNORED = -100
"""Label of a position that has no loss."""

FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH


@dataclass(frozen=True, eq=False)
class Row:
    """One utterance, ready for the model.

    Attributes:
        mel: log-mel frames, (M, T); float16 halves the memory of a cached row.
        tokens: start sequence, text and end of text.
        n_prompt: how many tokens of the start sequence are given and not learned.
    """

    mel: Tensor
    tokens: tuple[int, ...]
    n_prompt: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows padded to a common length.

    Attributes:
        mel: (B, M, T), zero past the end of a row.
        n_positions: real encoder positions of each row, int64 (B,); None when all rows fill the batch.
        tokens: decoder inputs, int64 (B, L).
        labels: the token that follows each input, int64 (B, L); `IGNORED` where there is no loss.
        duration_s: seconds of audio without padding.
    """

    mel: Tensor
    n_positions: Tensor | None
    tokens: Tensor
    labels: Tensor
    duration_s: float

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        positions = None if self.n_positions is None else self.n_positions.to(device)
        return Batch(
            self.mel.to(device), positions, self.tokens.to(device), self.labels.to(device), self.duration_s
        )


class RowSource(Protocol):
    """Where a track's rows come from."""

    @property
    def durations_s(self) -> Sequence[float]:
        """Length of each row in seconds: known before any audio is read."""

    def row(self, index: int) -> Row:
        """The row at `index`."""


@dataclass(frozen=True)
class RowEncoder:
    """Turns audio and text into a `Row`.

    Attributes:
        tokenizer: of the backbone.
        n_mels: mel bins of the backbone.
        context: "full" pads the audio to 30 s, "dynamic" to little more than its own length.
        max_tokens: longest sequence that the decoder can hold.
        learn_prompt: also learn to predict the start sequence (pre-training, where language
            identification is learned); adapters leave it to the backbone.
    """

    tokenizer: Tokenizer
    n_mels: int
    context: str
    max_tokens: int = 448
    learn_prompt: bool = False

    def row(self, audio: NDArray[np.float32], text: str, token_language: str) -> Row:
        """The row of one utterance.

        Raises:
            AudioError: the audio is longer than 30 s.
            ManifestError: the text has more tokens than the decoder can hold.
        """
        prompt = self.tokenizer.start_sequence(token_language)
        space = "" if language(token_language).unit == "character" else " "  # as Whisper writes them
        tokens = (*prompt, *self.tokenizer.encode(space + text.strip()), self.tokenizer.eot)
        if len(tokens) > self.max_tokens:
            raise ManifestError(
                f"text of {len(tokens)} tokens, over the limit of {self.max_tokens}: {text[:40]!r}…; "
                "split the utterance"
            )
        mel = features(audio, self.n_mels, self.context).half()
        return Row(mel, tokens, 1 if self.learn_prompt else len(prompt))


class FixedRows:
    """Rows that are all in memory."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.durations_s = [row.mel.shape[1] / FRAMES_PER_SECOND for row in rows]

    def row(self, index: int) -> Row:
        """The row at `index`."""
        return self._rows[index]


class UtteranceRows:
    """Rows of a manifest, encoded when first needed and then kept while memory allows.

    Args:
        utterances: with known durations.
        encoder: makes the rows.
        token_language: Whisper's language code for an utterance's language tag.
        cache_bytes: memory for encoded rows; beyond it rows are encoded anew at each use.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        encoder: RowEncoder,
        token_language: Callable[[str], str],
        cache_bytes: int = 2 << 30,
    ) -> None:
        self.utterances = utterances
        self.durations_s = [_known_duration_s(utterance) for utterance in utterances]
        self._encoder = encoder
        self._token_language = token_language
        self._cache: dict[int, Row] = {}
        self._bytes_left = cache_bytes

    def row(self, index: int) -> Row:
        """The row at `index`.

        Raises:
            AudioError: the audio cannot be used.
            ManifestError: the text is too long.
        """
        if index in self._cache:
            return self._cache[index]
        utterance = self.utterances[index]
        row = self._encoder.row(utterance.load(), utterance.text, self._token_language(utterance.language))
        size = row.mel.numel() * row.mel.element_size()
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._cache[index] = row
        return row


def _known_duration_s(utterance: Utterance) -> float:
    if utterance.duration_s is None:
        raise ManifestError(f"{utterance.audio}: no duration; add `duration_s` to its manifest line")
    return utterance.duration_s


def plan_batches(
    durations_s: Sequence[float], budget_s: float, seed: int, epoch: int, max_rows: int = 64
) -> list[list[int]]:
    """Batches of row indices for one epoch: similar lengths together, batches and rows in random order.

    Args:
        durations_s: length of each row.
        budget_s: rows times the longest row of a batch stays below it, unless one row alone exceeds it.
        seed: of the run.
        epoch: counted from 0; each has its own order.
        max_rows: most rows in a batch.
    """
    generator = np.random.default_rng([seed, epoch])
    lengths = np.asarray(durations_s)
    jittered = lengths * generator.uniform(0.9, 1.1, len(lengths))  # neighbours differ between epochs
    batches: list[list[int]] = []
    current: list[int] = []
    longest = 0.0
    for index in np.argsort(jittered, kind="stable").tolist():
        longest = max(longest, float(lengths[index]))
        if current and (len(current) == max_rows or (len(current) + 1) * longest > budget_s):
            batches.append(current)
            current, longest = [], float(lengths[index])
        current.append(index)
    if current:
        batches.append(current)
    return [batches[i] for i in generator.permutation(len(batches))]


def collate(rows: Sequence[Row]) -> Batch:
    """One batch of the rows, padded."""
    frames = [row.mel.shape[1] for row in rows]
    n_tokens = max(len(row.tokens) for row in rows) - 1
    mel = torch.zeros(len(rows), rows[0].mel.shape[0], max(frames))
    tokens = torch.full((len(rows), n_tokens), rows[0].tokens[-1])
    labels = torch.full((len(rows), n_tokens), IGNORED)
    for b, row in enumerate(rows):
        sequence = torch.tensor(row.tokens)
        mel[b, :, : frames[b]] = row.mel
        tokens[b, : len(sequence) - 1] = sequence[:-1]
        labels[b, row.n_prompt - 1 : len(sequence) - 1] = sequence[row.n_prompt :]
    uniform = min(frames) == max(frames)
    positions = None if uniform else torch.tensor([n // FRAMES_PER_POSITION for n in frames])
    return Batch(mel, positions, tokens, labels, sum(frames) / FRAMES_PER_SECOND)
