"""Rows of speech and text, grouped into batches of similar length under a budget of audio seconds.

The order depends on the seed and the epoch alone, so that a resumed run sees exactly the same batches.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_whisper.audio import (
    FRAMES_PER_POSITION,
    FRAMES_PER_SECOND,
    N_FRAMES,
    N_SAMPLES,
    SAMPLE_RATE,
    AudioContext,
    features,
)
from lora_whisper.data.conditions import Condition, Effects
from lora_whisper.data.manifest import Utterance
from lora_whisper.errors import AudioError, LoraWhisperError, ManifestError
from lora_whisper.languages import language
from lora_whisper.model.tokenizer import Tokenizer

IGNORED = -100
"""Label of a position that has no loss."""

MAX_ROWS, LEAST_S = 64, 3.0
"""Most rows in a batch, unless its budget has that many seconds for each of more rows."""


def most_rows(budget_s: float) -> int:
    """Most rows in a batch of so many seconds."""
    return max(MAX_ROWS, int(budget_s / LEAST_S))


@dataclass(frozen=True)
class Padding:
    """How batches are padded, so that few shapes occur.

    Attributes:
        frames: mel frames are padded to multiples of it.
        tokens: so are tokens.
        most_tokens: that the decoder can hold.
        budget_s: batches are planned and padded so that those of one width have as many rows as this budget
            allows, as far as possible; 0: they are not.
    """

    frames: int
    tokens: int
    most_tokens: int = 448
    budget_s: float = 0.0

    def n_rows(self, width: int) -> int:
        """Rows of a batch of this width in frames, where it is planned."""
        return max(1, min(most_rows(self.budget_s), int(self.budget_s * FRAMES_PER_SECOND) // width))

    def width(self, longest: int, n_rows: int) -> int:
        """Frames to which so many rows are padded, the longest of which has so many."""
        own = width = min(_rounded_up(longest, self.frames), N_FRAMES)
        if not self.budget_s:
            return own
        while self.n_rows(width) > n_rows and width < N_FRAMES:
            width = min(width + self.frames, N_FRAMES)
        return width if self.n_rows(width) <= n_rows else own


FINE, COARSE = Padding(64, 16), Padding(128, 64)
"""For oneDNN, which compiles a kernel for each new shape, and for a GPU, where each has a recording."""

LONGEST_SLOWED_S = 25.0
"""Utterances beyond it keep their speed, lest they outgrow the 30 s window."""


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

    @property
    def shape(self) -> tuple[object, ...]:
        """Of all its tensors."""
        return self.mel.shape, self.tokens.shape, self.n_positions is None

    def copy_(self, other: "Batch") -> None:
        """Overwrite its tensors with those of another batch of this shape."""
        for name in ("mel", "tokens", "labels", "n_positions"):
            if (mine := getattr(self, name)) is not None:
                mine.copy_(getattr(other, name))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        positions = None if self.n_positions is None else self.n_positions.to(device)
        return Batch(
            self.mel.to(device), positions, self.tokens.to(device), self.labels.to(device), self.duration_s
        )


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class RowSource(Protocol):
    """Where a track's rows come from."""

    @property
    def durations_s(self) -> Sequence[float]:
        """Length of each row in seconds: known before any audio is read."""

    def row(self, index: int, epoch: int = 0) -> Row:
        """The row at `index`; in another epoch it may be another rendering of the same utterance."""


Segment = tuple[float, float, str]
"""Start and end in seconds, and what is said between them."""


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
    context: AudioContext
    max_tokens: int = 448
    learn_prompt: bool = False

    def row(
        self,
        audio: NDArray[np.float32],
        text: str,
        token_language: str,
        segments: Sequence[Segment] = (),
        previous: str = "",
        unfinished_s: float | None = None,
    ) -> Row:
        """The row of one utterance.

        Args:
            audio: (n_samples,), 16 kHz.
            text: what is said.
            token_language: Whisper code of the language token.
            segments: parts of the text with their times: the row is one with timestamps, `text` is not used.
            previous: what was said before, as a prompt: its end, as in decoding, as far as there is room.
            unfinished_s: start of what the end of the audio cuts off; only with `segments`.

        Raises:
            AudioError: the audio is longer than 30 s.
            ManifestError: the text has more tokens than the decoder can hold.
        """
        tokenizer = self.tokenizer
        space = language(token_language).space
        start = tokenizer.start_sequence(token_language, timestamps=bool(segments))
        content: list[int] = [] if segments else tokenizer.encode(space + text.strip())
        for start_s, end_s, words in segments:
            said = tokenizer.encode(space + words.strip())
            content += [tokenizer.timestamp(start_s), *said, tokenizer.timestamp(end_s)]
        if segments and unfinished_s is not None:
            content.append(tokenizer.timestamp(unfinished_s))
        free = self.max_tokens - len(start) - len(content) - 2  # one token before the prompt, one at the end
        room = min(self.max_tokens // 2 - 1, free)
        said_before = tokenizer.encode(space + previous.strip())[-room:] if previous and room > 0 else []
        past = [tokenizer.sot_prev, *said_before] if said_before else []
        tokens = (*past, *start, *content, tokenizer.eot)
        if len(tokens) > self.max_tokens:
            raise ManifestError(
                f"text of {len(tokens)} tokens, over the limit of {self.max_tokens}: {text[:40]!r}…; "
                "split the utterance"
            )
        n_prompt = len(past) + (1 if self.learn_prompt else len(start))
        return Row(self._mel(audio), tokens, n_prompt)

    def silent_row(self, audio: NDArray[np.float32], token_language: str = "") -> Row:
        """The row of audio without speech: `<|nospeech|>` or, after the start sequence, nothing at all."""
        tokenizer = self.tokenizer
        if token_language:
            start = tokenizer.start_sequence(token_language)
            return Row(self._mel(audio), (*start, tokenizer.eot), len(start))
        return Row(self._mel(audio), (tokenizer.sot, tokenizer.no_speech, tokenizer.eot), 1)

    def _mel(self, audio: NDArray[np.float32]) -> Tensor:
        return features(audio, self.n_mels, self.context).half()


class FixedRows:
    """Rows that are all in memory."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.durations_s = [row.mel.shape[1] / FRAMES_PER_SECOND for row in rows]

    def row(self, index: int, epoch: int = 0) -> Row:  # noqa: ARG002  the same in all epochs
        """The row at `index`."""
        return self._rows[index]


class JoinedRows:
    """The rows of several sources as one, in their order: what weights learn that many languages share."""

    def __init__(self, sources: Sequence[RowSource]) -> None:
        self._places = [(source, i) for source in sources for i in range(len(source.durations_s))]
        self.durations_s = [duration_s for source in sources for duration_s in source.durations_s]

    def row(self, index: int, epoch: int = 0) -> Row:
        """The row at `index`."""
        source, place = self._places[index]
        return source.row(place, epoch)


class UtteranceRows:
    """Rows of a manifest. All are read once at the start, so that a bad file is known before training begins.

    Args:
        utterances: unusable ones are left out.
        encoder: makes the rows.
        token_language: Whisper's language code for their language.
        report: is told of each utterance that cannot be used, and why.
        cache_bytes: memory for encoded rows; rows beyond it are encoded anew at each use.
        condition: recording conditions to train for: each epoch hears each utterance in others.
        seed: of the conditions, and of which rows have times.
        timestamped: share of the rows that have the times of their segments, or of their whole: so that
            training does not unlearn them. In each epoch other rows have them.

    Attributes:
        utterances: the usable ones.
        token_language: Whisper's language code for their language.
        durations_s: length of each in seconds as the model sees it: with its padding.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        encoder: RowEncoder,
        token_language: str,
        report: Callable[[Utterance, LoraWhisperError], None],
        cache_bytes: int = 2 << 30,
        condition: Condition | None = None,
        seed: int = 0,
        timestamped: float = 0.0,
    ) -> None:
        self._condition, self._seed, self._timestamped = condition, seed, timestamped
        self._encoder, self.token_language = encoder, token_language
        self.utterances: list[Utterance] = []
        self.durations_s: list[float] = []
        self._rows: list[Row | None] = []
        with ThreadPoolExecutor() as pool:
            for utterance, row in zip(utterances, pool.map(self._try, utterances), strict=True):
                if isinstance(row, LoraWhisperError):
                    report(utterance, row)
                    continue
                cache_bytes -= row.mel.numel() * row.mel.element_size()
                self.utterances.append(utterance)
                self.durations_s.append(row.mel.shape[1] / FRAMES_PER_SECOND)
                self._rows.append(row if cache_bytes >= 0 and not condition and not timestamped else None)

    def row(self, index: int, epoch: int = 0) -> Row:
        """The row at `index`, under the conditions of the epoch."""
        if self._condition is None and not self._timestamped:
            return self._rows[index] or self._encode(self.utterances[index])
        rng = np.random.default_rng([self._seed, epoch, index])
        effects = self._condition.draw(rng) if self._condition else None
        timestamped = bool(rng.random() < self._timestamped)
        if effects and self.durations_s[index] > LONGEST_SLOWED_S:
            effects = replace(effects, speed=1.0, tempo=1.0)
        if effects and timestamped:
            effects = replace(effects, edges_s=None)  # the times count from the file's beginning
        return self._encode(self.utterances[index], effects, timestamped)

    def _encode(self, utterance: Utterance, effects: Effects | None = None, timestamped: bool = False) -> Row:
        audio = utterance.load()
        heard = effects.apply(audio) if effects else audio
        segments = _segments(utterance, len(audio), effects) if timestamped and utterance.text else ()
        return self._encoder.row(heard, utterance.text, self.token_language, segments)

    def _try(self, utterance: Utterance) -> Row | LoraWhisperError:
        try:
            return self._encode(utterance)
        except (AudioError, ManifestError) as error:
            return error


def _segments(utterance: Utterance, n_samples: int, effects: Effects | None) -> list[Segment]:
    """The timed pieces of an utterance as it is played; without any, the whole of it is one."""
    pace = effects.pace if effects else 1.0
    whole_s = n_samples / SAMPLE_RATE
    pieces = [(one.start_s, min(one.end_s, whole_s), one.text) for one in utterance.segments]
    return [
        (start_s / pace, min(end_s / pace, N_SAMPLES / SAMPLE_RATE), text)
        for start_s, end_s, text in pieces or [(0.0, whole_s, utterance.text)]
    ]


def plan_batches(
    durations_s: Sequence[float],
    budget_s: float,
    seed: int,
    epoch: int,
    padding: Padding = FINE,
) -> list[list[int]]:
    """Batches of row indices for one epoch: similar lengths together, batches and rows in random order.

    Args:
        durations_s: length of each row.
        budget_s: rows times the longest row of a batch stays below it, unless one row alone exceeds it.
        seed: of the run.
        epoch: counted from 0; each has its own order.
        padding: of the batches.
    """
    max_rows = most_rows(budget_s)
    generator = np.random.default_rng([seed, epoch])
    lengths = np.asarray(durations_s)
    jittered = lengths * generator.uniform(0.9, 1.1, len(lengths))  # neighbours differ between epochs
    order = np.argsort(jittered, kind="stable")
    frames = np.round(lengths * FRAMES_PER_SECOND).astype(int)
    batches: list[list[int]] = []
    while len(order):
        longest = np.maximum.accumulate(lengths[order[:max_rows]])
        size = max(1, int((np.arange(1, len(longest) + 1) * longest <= budget_s).sum()))
        if padding.budget_s:
            size = _regular(np.maximum.accumulate(frames[order[:max_rows]]), padding)
        batches.append(order[:size].tolist())
        order = order[size:]
    return [batches[i] for i in generator.permutation(len(batches))]


def _regular(longest: NDArray[np.int64], padding: Padding) -> int:
    """How many of the next rows make a batch; the longest of the first n has `longest[n - 1]` frames."""
    sizes = np.arange(1, len(longest) + 1)
    most = most_rows(padding.budget_s)
    fitting = [n for n in sizes.tolist() if n <= padding.n_rows(padding.width(int(longest[n - 1]), most))]
    size = max(fitting, default=1)
    return min(size, padding.n_rows(padding.width(int(longest[size - 1]), size)))


def collate(rows: Sequence[Row], padding: Padding = FINE) -> Batch:
    """One batch of the rows, padded."""
    frames = [row.mel.shape[1] for row in rows]
    width = padding.width(max(frames), len(rows))
    n_tokens = max(len(row.tokens) for row in rows) - 1
    n_tokens = max(n_tokens, min(_rounded_up(n_tokens, padding.tokens), padding.most_tokens))
    mel = torch.zeros(len(rows), rows[0].mel.shape[0], width, dtype=rows[0].mel.dtype)
    tokens = torch.full((len(rows), n_tokens), rows[0].tokens[-1])
    labels = torch.full((len(rows), n_tokens), IGNORED)
    for b, row in enumerate(rows):
        sequence = torch.tensor(row.tokens)
        mel[b, :, : frames[b]] = row.mel
        tokens[b, : len(sequence) - 1] = sequence[:-1]
        labels[b, row.n_prompt - 1 : len(sequence) - 1] = sequence[row.n_prompt :]
    uniform = min(frames) == width
    positions = None if uniform else torch.tensor([n // FRAMES_PER_POSITION for n in frames])
    return Batch(mel, positions, tokens, labels, sum(frames) / FRAMES_PER_SECOND)
