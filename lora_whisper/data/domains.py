"""Domains of synthetic speech: what is said, by whom, and how it sounds on arrival."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data import espeak
from lora_whisper.data.espeak import Voice
from lora_whisper.data.texts import stable_hash
from lora_whisper.errors import UsageError

Samples = npt.NDArray[np.float32]

_FIELD_VARIANTS = frozenset(  # those of the Klatt synthesisers, and a few others
    str.split(
        "adam benjamin david edward edward2 klatt klatt2 klatt3 klatt4 klatt5 klatt6 mike2 "
        "Denis Diogo Henrique Hugo michel miguel shelby"
    )
)
_STRANGE_VARIANTS = frozenset(  # whispers, robots and monsters
    str.split(
        "whisper whisperf Demonic croak Storm Tweaky UniRobot anikaRobot fast announcer RicishayMax "
        "RicishayMax2 RicishayMax3 robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 "
        "robosoft7 robosoft8"
    )
)
_SPEEDS_WPM = {"slow": (125, 149), "medium": (150, 179), "fast": (180, 215)}
_PITCHES = {"low": (20, 40), "middle": (41, 60), "high": (61, 80)}
_PITCH_RANGE = (30, 70)
_EDGE_HZ = 100.0


@dataclass(frozen=True)
class Condition:
    """What happens to the sound between mouth and file.

    Args:
        gain_db: lowest and highest random gain.
        band_hz: lower and upper limit of the channel, None for all frequencies.
        snr_db: lowest and highest ratio of speech to added noise, None for no noise.
    """

    gain_db: tuple[float, float] = (-12.0, 0.0)
    band_hz: tuple[float, float] | None = None
    snr_db: tuple[float, float] | None = None

    def apply(self, audio: Samples, rng: np.random.Generator) -> Samples:
        """The audio (n_samples,) as it arrives, float32 in [-1, 1]."""
        sound = audio.astype(np.float64)
        if self.snr_db:
            noise = rng.standard_normal(len(sound))
            sound += noise * np.sqrt(np.mean(sound**2)) * 10 ** (-rng.uniform(*self.snr_db) / 20)
        if self.band_hz:
            sound = _band_limited(sound, *self.band_hz)
        peak = max(float(np.abs(sound).max(initial=0.0)), 1e-9)
        return (sound * (0.95 / peak) * 10 ** (rng.uniform(*self.gain_db) / 20)).astype(np.float32)


def _band_limited(sound: npt.NDArray[np.float64], low_hz: float, high_hz: float) -> npt.NDArray[np.float64]:
    padded = -(-len(sound) // 4096) * 4096  # the FFT is slow for lengths with large prime factors
    frequencies = np.fft.rfftfreq(padded, 1 / SAMPLE_RATE)
    distance = np.minimum(frequencies - low_hz, high_hz - frequencies)
    passed = np.clip(0.5 + distance / _EDGE_HZ, 0, 1)
    return np.fft.irfft(np.fft.rfft(sound, padded) * passed)[: len(sound)]


@dataclass(frozen=True)
class Domain:
    """A kind of speech: what is said, by whom, and how it sounds.

    Args:
        kinds: kinds of entries with their weights.
        variants: voice variants of espeak-ng.
        condition: the channel.
    """

    kinds: Mapping[str, float]
    variants: frozenset[str]
    condition: Condition = field(default_factory=Condition)

    def variants_of(self, split: str) -> tuple[str, ...]:
        """The voice variants of one split, disjoint from those of the others."""
        ranked = sorted(self.variants, key=stable_hash)
        dev, test = len(ranked) // 6, len(ranked) // 3  # a sixth each for dev and test
        return tuple({"dev": ranked[:dev], "test": ranked[dev:test], "train": ranked[test:]}[split])


def draw_voice(variants: Sequence[str], rng: np.random.Generator) -> tuple[Voice, str]:
    """A random voice and its name, such as "f2-slow-high": variant, class of speed, class of pitch."""
    variant = variants[int(rng.integers(len(variants)))]
    speed, pitch = list(_SPEEDS_WPM)[int(rng.integers(3))], list(_PITCHES)[int(rng.integers(3))]
    voice = Voice(
        variant,
        speed_wpm=int(rng.integers(*_SPEEDS_WPM[speed], endpoint=True)),
        pitch=int(rng.integers(*_PITCHES[pitch], endpoint=True)),
        pitch_range=int(rng.integers(*_PITCH_RANGE, endpoint=True)),
    )
    return voice, f"{variant}-{speed}-{pitch}"


@cache
def find_domain(name: str) -> Domain:
    """The domain of that name: "general" to pre-train on, "field" to adapt to.

    Raises:
        UsageError: there is no such domain.
    """
    if name == "general":
        kinds = {"territory": 2, "language": 2, "script": 0.5, "city": 2, "zone": 1}
        everyday = {"calendar": 0.5, "number": 3, "date": 3}
        return Domain(kinds | everyday, frozenset(espeak.variants()) - _FIELD_VARIANTS - _STRANGE_VARIANTS)
    if name == "field":
        return Domain(
            {"measure": 3, "price": 3, "relative": 2, "currency": 2},
            _FIELD_VARIANTS,
            Condition(band_hz=(300.0, 3400.0), snr_db=(20.0, 30.0)),
        )
    raise UsageError(f"{name!r} is no domain of synthetic speech; choose general or field")
