"""Sound inside a page: short clips as compressed `data:` addresses, within a limit for all together."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_whisper.audio_file import read_samples
from lora_whisper.errors import AudioError

LONGEST_S = 15.0
"""Of a longer clip only the beginning is kept."""
MOST_CHARACTERS = 4_800_000
"""All clips of a page together, as they stand in it."""
_RATE_HZ = 16_000
_COMPRESSION: Any = {"compression_level": 0.9, "bitrate_mode": "CONSTANT"}  # 24 kbit/s: 4 kB of page a second


@dataclass(frozen=True)
class Clip:
    """Where a sound is: a part of a file; without a duration, all the rest of it."""

    path: Path
    start_s: float = 0.0
    duration_s: float | None = None


@dataclass(frozen=True)
class Player:
    """A clip as `data:` address, empty if it cannot be heard; `note` says why, or what is left out."""

    address: str = ""
    note: str = ""


def players(clips: Iterable[Clip | None], most_characters: int = MOST_CHARACTERS) -> tuple[Player, ...]:
    """Return a player per clip (None: nobody knows where it is), the first clips first served.

    Nothing is raised: a report outlives its clips, so what cannot be heard is a note.
    """
    made, left = [], most_characters
    for clip in clips:
        player = _player(clip) if left > 0 else Player(note=_full(most_characters))
        if len(player.address) > left:
            player = Player(note=_full(most_characters))
        left -= len(player.address)
        made.append(player)
    return tuple(made)


def _player(clip: Clip | None) -> Player:
    if clip is None:
        return Player(note="no audio: the result file does not say where it is")
    longer = clip.duration_s is None or clip.duration_s > LONGEST_S
    try:
        samples, rate_hz = read_samples(clip.path, clip.start_s, LONGEST_S if longer else clip.duration_s)
        content = _mp3(samples, rate_hz)
    except AudioError as error:
        return Player(note=f"no audio: {error}")
    cut = longer and samples.shape[1] >= LONGEST_S * rate_hz
    address = f"data:audio/mpeg;base64,{base64.b64encode(content).decode('ascii')}"
    return Player(address, f"the first {LONGEST_S:.0f} s" if cut else "")


def _mp3(samples: npt.NDArray[np.float32], rate_hz: int) -> bytes:
    """Return `samples` (channels, n) as an MP3, mono, 16 kHz: small, and every browser plays it.

    Raises:
        AudioError: there is nothing to be heard, or the encoder refuses it.
    """
    import soundfile
    import soxr

    if not samples.size:
        raise AudioError("there are no samples; record it again")
    mono = np.nan_to_num(samples, posinf=1, neginf=-1).clip(-1, 1).mean(axis=0)
    sound = np.clip(soxr.resample(mono, rate_hz, _RATE_HZ), -1, 1)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, sound, _RATE_HZ, format="MP3", subtype="MPEG_LAYER_III", **_COMPRESSION)
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(f"it cannot be compressed ({error}); update soundfile") from None
    return buffer.getvalue()


def _full(most_characters: int) -> str:
    return f"no audio: the clips of this page would be over {most_characters / 1e6:.1f} MB"
