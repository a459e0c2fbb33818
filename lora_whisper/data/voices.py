"""Random speakers: a voice variant of espeak-ng, or a timbre that nobody has."""

from collections.abc import Sequence

import numpy as np

from lora_whisper.data.espeak import Voice

_SPEEDS_WPM = {"slow": (125, 149), "medium": (150, 179), "fast": (180, 215)}
_PITCHES = {"low": (20, 40), "middle": (41, 60), "high": (61, 80)}
_PITCH_RANGE = (30, 70)


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


def draw_timbre(rng: np.random.Generator) -> str:
    """A random vocal tract, in the language of espeak-ng's voice files: pitch, formants, breath, tone.

    Its formants lie 18 % below to 22 % above the standard voice's, each up to 7 % beside the others, as those
    of men, women and children do.
    """

    def several(low: float, high: float, count: int) -> str:
        return " ".join(f"{value:.0f}" for value in rng.uniform(low, high, count))

    tract, pitch = rng.uniform(0.82, 1.22), rng.uniform(70, 230)
    lines = [f"pitch {pitch:.0f} {pitch * rng.uniform(1.2, 1.7):.0f}"]
    for formant in range(9):
        frequency = 100 * tract * rng.uniform(0.93, 1.07)
        lines.append(f"formant {formant} {frequency:.0f} {several(60, 150, 1)} {several(70, 150, 1)}")
    lines += [f"flutter {rng.integers(0, 6)}", f"roughness {rng.integers(0, 4)}"]
    lines += [f"voicing {several(50, 130, 1)}", f"consonants {several(60, 130, 1)} {several(40, 130, 1)}"]
    if rng.random() < 0.4:
        lines.append(f"breath {several(0, 7, 8)}")
    if rng.random() < 0.3:
        lines.append(f"echo {several(20, 140, 1)} {several(5, 40, 1)}")
    if rng.random() < 0.5:
        heights = [several(60, 200, 1) for _ in range(4)]
        lines.append(
            "tone " + " ".join(f"{hz} {h}" for hz, h in zip((600, 1200, 2000, 3000), heights, strict=True))
        )
    return "\n".join(lines)
