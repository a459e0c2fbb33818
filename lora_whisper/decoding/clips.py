"""What is to be transcribed, and how it becomes rows of a batch: windows, plans, padding. Pure functions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lora_whisper.audio import (
    FRAMES_PER_POSITION,
    HOP_LENGTH,
    N_FRAMES,
    N_SAMPLES,
    SAMPLE_RATE,
    AudioContext,
    audio_duration_s,
    context_frames,
    features,
    load_audio,
    log_mel_spectrogram,
)
from lora_whisper.audio_file import Samples
from lora_whisper.errors import AudioError

MAX_ROWS = 64
"""Most rows of a batch: each holds keys and values of up to half the decoder's context."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_SEARCH_SAMPLES = 6 * SAMPLE_RATE  # a cut is sought in the last seconds of a window
_PAUSE_SAMPLES = SAMPLE_RATE // 5


@dataclass(frozen=True, eq=False)
class Clip:
    """Audio to be transcribed.

    Attributes:
        audio: a file, or samples (n_samples,), mono, 16 kHz.
        language: tag of its language; None if it is to be recognised.
        start_s: where in the file it begins.
        duration_s: how long it is; None for all the rest of the file.
    """

    audio: str | Path | Samples
    language: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None

    @property
    def name(self) -> str:
        """The path, or what stands for samples without one."""
        return "samples" if isinstance(self.audio, np.ndarray) else str(self.audio)

    def length_s(self) -> float:
        """How long it is in seconds, without reading the samples.

        Raises:
            AudioError: the file cannot be read.
        """
        if self.duration_s is not None:
            return self.duration_s
        if isinstance(self.audio, np.ndarray):
            return len(self.audio) / SAMPLE_RATE
        return max(0.0, audio_duration_s(self.audio) - self.start_s)

    def part(self, start_s: float, end_s: float) -> "Clip":
        """The stretch between two times, counted from where the clip begins."""
        if isinstance(self.audio, np.ndarray):
            first, last = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
            return Clip(self.audio[first:last], self.language)
        return Clip(self.audio, self.language, self.start_s + start_s, end_s - start_s)

    def load(self) -> Samples:
        """The samples (n_samples,).

        Raises:
            AudioError: they cannot be used.
        """
        if isinstance(self.audio, np.ndarray):
            return checked_samples(self.audio)
        return load_audio(self.audio, self.start_s, self.duration_s)


def checked_samples(samples: Samples) -> Samples:
    """The samples as float32, if they are usable.

    Raises:
        AudioError: they are not a mono signal of finite floating-point numbers.
    """
    if samples.ndim != 1 or not len(samples) or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"samples of shape {samples.shape} and type {samples.dtype}; give floats, mono, at 16 kHz"
        )
    if not np.isfinite(samples).all():
        raise AudioError("samples that are not finite numbers; repair or leave out the recording")
    return samples.astype(np.float32, copy=False)


def windows(samples: Samples) -> list[tuple[int, int]]:
    """Where to cut long audio: (start, end) in samples, none over 30 s, cut in quiet moments."""
    cuts = [0]
    while len(samples) - cuts[-1] > N_SAMPLES:
        cuts.append(_quietest(samples, cuts[-1] + N_SAMPLES))
    return list(pairwise([*cuts, len(samples)]))


def plan(lengths_s: Sequence[float], budget_s: float, max_rows: int = MAX_ROWS) -> list[list[int]]:
    """Batches of indices, longest first: rows times the longest stays within the budget, or it is alone."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_s)), key=lambda i: -lengths_s[i]):
        if batches and len(batches[-1]) < max_rows:
            longest_s = lengths_s[batches[-1][0]]
            if (len(batches[-1]) + 1) * longest_s <= budget_s:
                batches[-1].append(index)
                continue
        batches.append([index])
    return batches


def pad(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """One batch (B, M, T), zero past the end of a row, and the real encoder positions of each row, (B,).

    The latter is None when all rows are equally long.
    """
    frames = [mel.shape[1] for mel in mels]
    if min(frames) == max(frames):
        return torch.stack(list(mels)), None
    batch = mels[0].new_zeros(len(mels), mels[0].shape[0], max(frames))
    for row, mel in enumerate(mels):
        batch[row, :, : frames[row]] = mel
    return batch, torch.tensor(frames) // FRAMES_PER_POSITION


def padded_features(
    pieces: Sequence[tuple[Clip, AudioContext]], n_mels: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Log-mel frames (B, M, T) of pieces, none over 30 s, and the real encoder positions of each; see `pad`.

    A GPU transforms all of them at once.

    Raises:
        AudioError: a piece cannot be used.
    """
    if device.type == "cpu":
        return pad([features(clip.load(), n_mels, context) for clip, context in pieces])
    clips = [clip.load() for clip, _ in pieces]
    frames = [n_frames(len(clip), context) for clip, (_, context) in zip(clips, pieces, strict=True)]
    return transformed_together(clips, frames, n_mels, device)


def transformed_together(
    clips: Sequence[Samples], frames: Sequence[int], n_mels: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The same by one transform on the device, of clips with so many mel frames each."""
    samples = torch.zeros(len(clips), max(frames) * HOP_LENGTH, pin_memory=device.type == "cuda")
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    batch = log_mel_spectrogram(samples.to(device, non_blocking=True), n_mels)
    if min(frames) == max(frames):
        return batch, None
    ends = torch.tensor(frames, device=device)
    batch *= (torch.arange(batch.shape[2], device=device) < ends[:, None])[:, None]
    return batch, ends // FRAMES_PER_POSITION


def n_frames(n_samples: int, context: AudioContext) -> int:
    """Mel frames of so many samples in an audio context."""
    return N_FRAMES if context == "full" else context_frames(n_samples)


def _quietest(samples: Samples, end: int) -> int:
    """The middle of the last of the quietest moments shortly before `end`."""
    tail = samples[end - _SEARCH_SAMPLES : end].astype(np.float64)
    energy = np.concatenate([[0.0], np.cumsum(tail**2)])
    moments = energy[_PAUSE_SAMPLES:] - energy[:-_PAUSE_SAMPLES]
    return end - _PAUSE_SAMPLES + _PAUSE_SAMPLES // 2 - int(moments[::-1].argmin())


def one_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """What `function` makes of each item; the next one is made by another thread while the caller works."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead: Future[_Out] | None = None
        for item in items:
            current, ahead = ahead, pool.submit(function, item)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()
