"""Faults of a recording by itself, and what is known of it afterwards."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lora_whisper.audio import N_SAMPLES, SAMPLE_RATE
from lora_whisper.data.manifest import Utterance
from lora_whisper.doctor.faults import CLIPPED, CUT_SHORT, SILENT, TOO_LONG, UNREADABLE
from lora_whisper.doctor.texts import Finding
from lora_whisper.errors import LoraWhisperError

_QUIETEST_DB = -60.0
_CLIPPED_SHARE = 0.01
_SLACK_S = 0.02
_MISSING_S = (0.1, 0.5)  # codecs pad and trim, and some corpora round
_MISSING_SHARE = 0.25


@dataclass(frozen=True)
class Heard:
    """What a recording is.

    Attributes:
        faults: what is wrong with it.
        duration_s: its length; 0 if it cannot be read.
        sha256: of its samples; empty if it cannot be read, or is silent: silence is no copy of silence.
    """

    faults: tuple[Finding, ...]
    duration_s: float = 0.0
    sha256: str = ""


def listen(utterances: Sequence[Utterance], progress: Callable[[int, int], None]) -> list[Heard]:
    """What each utterance's recording is; read side by side, a few at a time."""
    found = []
    with ThreadPoolExecutor() as pool:
        for done, one in enumerate(pool.map(_heard, utterances), 1):
            found.append(one)
            progress(done, len(utterances))
    return found


def _heard(utterance: Utterance) -> Heard:
    try:
        samples = utterance.load()
    except LoraWhisperError as error:
        return Heard(((UNREADABLE, str(error)),))
    faults = (*_faults(samples), *_cut_short(len(samples) / SAMPLE_RATE, utterance.duration_s))
    silent = any(kind is SILENT for kind, _ in faults)
    digest = "" if silent else hashlib.sha256(samples.tobytes()).hexdigest()
    return Heard(faults, len(samples) / SAMPLE_RATE, digest)


def _cut_short(length_s: float, announced_s: float | None) -> Iterator[Finding]:
    """Less than the manifest announces: what a broken download leaves, and then the text says too much."""
    if announced_s is None:
        return
    least, most = _MISSING_S
    if announced_s - length_s > min(max(_MISSING_SHARE * announced_s, least), most):
        yield CUT_SHORT, f"{announced_s:.1f} s announced, {length_s:.1f} s there"


def _faults(samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Iterator[Finding]:
    """What is wrong with the samples."""
    peak = float(np.abs(samples).max(initial=0.0))
    level_db = 20 * np.log10(max(float(np.std(samples, dtype=np.float64)), 1e-10))  # an offset is no sound
    if level_db < _QUIETEST_DB:
        yield SILENT, f"{level_db:.0f} dB"
    elif (share := float(np.mean(np.abs(samples) >= 0.999 * max(peak, 0.99)))) > _CLIPPED_SHARE:
        yield CLIPPED, f"{100 * share:.1f} % of the samples"
    if len(samples) > N_SAMPLES + _SLACK_S * SAMPLE_RATE:
        yield TOO_LONG, f"{len(samples) / SAMPLE_RATE:.1f} s"
