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
    """A random vocal tract, as espeak-ng's voice files say it: pitch, formants, stress, breath, tone.

    The ranges are those of the voice variants of the training split: formants from 30 % below to 42 % above
    the standard voice's, most of them in proportion, some far from it; pitches of men, women and children.
    """

    def several(low: float, high: float, count: int) -> str:
        return " ".join(f"{value:.0f}" for value in rng.uniform(low, high, count))

    tract, pitch = (
        np.exp(rng.uniform(np.log(0.7), np.log(1.42))),
        np.exp(rng.uniform(np.log(60), np.log(270))),
    )
    lines = [f"pitch {pitch:.0f} {pitch * rng.uniform(1.1, 1.75):.0f}"]
    for formant in range(9):
        frequency = 100 * tract * np.clip(1 + rng.laplace(0, 0.08), 0.5, 1.5)
        lines.append(f"formant {formant} {frequency:.0f} {several(60, 160, 1)} {several(70, 150, 1)}")
    lines += [f"flutter {rng.integers(0, 7)}", f"roughness {rng.integers(0, 5)}"]
    lines += [f"voicing {several(35, 200, 1)}", f"consonants {several(40, 140, 1)} {several(30, 150, 1)}"]
    if rng.random() < 0.4:
        lines.append(f"breath {several(0, 10, 8)}")
    if rng.random() < 0.3:
        lines.append(f"echo {several(20, 140, 1)} {several(5, 60, 1)}")
    if rng.random() < 0.5:
        heights = [several(30, 255, 1) for _ in range(4)]
        lines.append(
            "tone " + " ".join(f"{hz} {h}" for hz, h in zip((600, 1200, 2000, 3000), heights, strict=True))
        )
    if rng.random() < 0.3:
        lines.append(f"stressAdd {several(-20, 130, 7)} {several(0, 200, 1)}")
    if rng.random() < 0.3:
        lines.append(f"stressAmp {several(12, 32, 8)}")
    if rng.random() < 0.3:
        lines.append(f"intonation {rng.integers(1, 5)}")
    return "\n".join(lines)
