"""When somebody speaks: Silero's voice activity detector, and the stretches of speech that it finds."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.audio_file import Samples
from lora_whisper.errors import CheckpointError, MissingExtra

FRAME = 512
"""Samples of a frame, 32 ms."""

_CONTEXT = 64  # samples that the network sees before each frame
_STATE = (1, 1, 128)

Probabilities = npt.NDArray[np.float32]


class Activity(Protocol):
    """Tells speech from everything else."""

    def probabilities(self, blocks: Iterable[Samples]) -> Probabilities:
        """Probability of speech in each frame of `FRAME` samples of blocks that follow each other."""


class SileroActivity:
    """Silero's detector, run by onnxruntime.

    The package `silero_vad` is not imported, for that would set the number of PyTorch's threads: its file
    is found and read.

    Args:
        path: `silero_vad_16k_sequence.onnx`; None for that of the installed package.

    Raises:
        MissingExtra: onnxruntime, or the package where no path is given, is not installed.
        CheckpointError: the file is missing or no such network.
    """

    def __init__(self, path: Path | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise _missing("onnxruntime") from None
        path = path or _installed()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            names = {one.name for one in self._session.get_inputs()}
        except Exception as error:  # noqa: BLE001  (the library's own kinds, and what the file system says)
            raise CheckpointError(f"{path}: cannot be loaded ({str(error).splitlines()[0]})") from None
        if names != {"input", "h", "c"}:
            raise CheckpointError(f"{path}: is no silero_vad_16k_sequence.onnx (its inputs: {sorted(names)})")

    def probabilities(self, blocks: Iterable[Samples]) -> Probabilities:
        """Probability of speech in each frame of `FRAME` samples of blocks that follow each other."""
        state = np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32)
        context = np.zeros(_CONTEXT, np.float32)
        found: list[Probabilities] = []
        for frames in _framed(blocks):
            before = np.concatenate([context[None], frames[:-1, -_CONTEXT:]])
            context = frames[-1, -_CONTEXT:]
            inputs = {"input": np.concatenate([before, frames], 1), "h": state[0], "c": state[1]}
            values, *state_ = self._session.run(None, inputs)
            state = state_[0], state_[1]
            found.append(values)
        return np.concatenate(found) if found else np.zeros(0, np.float32)


def _framed(blocks: Iterable[Samples]) -> Iterable[Samples]:
    """Whole frames (n, FRAME) of the blocks; the very last one is filled with zeros."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        joined = np.concatenate([rest, block.astype(np.float32, copy=False)])
        n_frames = len(joined) // FRAME
        rest = joined[n_frames * FRAME :]
        if n_frames:
            yield joined[: n_frames * FRAME].reshape(-1, FRAME)
    if len(rest):
        yield np.pad(rest, (0, FRAME - len(rest)))[None]


def _installed() -> Path:
    spec = importlib.util.find_spec("silero_vad")
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0]) / "data" / "silero_vad_16k_sequence.onnx" if places else None
    if path is None or not path.exists():
        raise _missing("silero-vad")
    return path


def _missing(package: str) -> MissingExtra:
    return MissingExtra(f"finding speech needs {package}: pip install 'lora-whisper[vad]'")


@dataclass(frozen=True)
class ActivityLimits:
    """Where speech begins and ends.

    Attributes:
        start: probability from which it is speech.
        stop: probability below which it no longer is.
        shortest_speech_s: what is shorter is noise.
        shortest_pause_s: what is shorter does not part two stretches.
        margin_s: kept before and after each stretch when it is listened to.
        longest_s: a longer stretch is cut where it is quietest; Whisper's window at most.
    """

    start: float = 0.5
    stop: float = 0.35
    shortest_speech_s: float = 0.1
    shortest_pause_s: float = 0.25
    margin_s: float = 0.15
    longest_s: float = 29.0


@dataclass(frozen=True)
class Region:
    """A stretch of speech in seconds."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def nearest_s(self, time_s: float) -> float:
        """The time within it that is nearest to a time."""
        return min(max(time_s, self.start_s), self.end_s)


def speech_regions(
    probabilities: Sequence[float] | Probabilities, duration_s: float, limits: ActivityLimits
) -> list[Region]:
    """The stretches of speech, in order, none over `longest_s`.

    Args:
        probabilities: of speech, for each frame.
        duration_s: length of the audio.
        limits: where speech begins and ends.
    """
    frame_s = FRAME / SAMPLE_RATE
    spans = _joined(_active(probabilities, limits), limits.shortest_pause_s / frame_s)
    long_enough = [span for span in spans if (span[1] - span[0]) * frame_s >= limits.shortest_speech_s]
    cut = [
        part for span in long_enough for part in _cut(span, probabilities, int(limits.longest_s / frame_s))
    ]
    return [Region(start * frame_s, min(end * frame_s, duration_s)) for start, end in cut]


def _active(values: Sequence[float] | Probabilities, limits: ActivityLimits) -> list[tuple[int, int]]:
    """Spans of frames from where the probability reaches `start` to where it falls below `stop`."""
    spans: list[tuple[int, int]] = []
    begin: int | None = None
    for index, value in enumerate(values):
        if begin is None and value >= limits.start:
            begin = index
        elif begin is not None and value < limits.stop:
            spans.append((begin, index))
            begin = None
    return [*spans, (begin, len(values))] if begin is not None else spans


def _joined(spans: Sequence[tuple[int, int]], shortest_pause: float) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < shortest_pause:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _cut(
    span: tuple[int, int], values: Sequence[float] | Probabilities, longest: int
) -> list[tuple[int, int]]:
    """The span in parts of at most `longest` frames, cut in their last half, where speech is improbable."""
    start, end = span
    parts: list[tuple[int, int]] = []
    while end - start > longest:
        earliest = start + longest // 2
        quietest = earliest + int(np.argmin(np.asarray(values[earliest : start + longest])))
        parts.append((start, max(quietest, start + 1)))
        start = parts[-1][1]
    return [*parts, (start, end)]
