"""Synthetic speech in voices that were made from recordings: nearer to people than espeak-ng's, but few.

So each utterance is moved away from its voice: pitch with speed, and formants.
"""

from collections.abc import Callable
from types import ModuleType

import numpy as np

from lora_whisper.data import flite, pico
from lora_whisper.data.conditions import Condition, Samples

SPEAKERS = Condition(gain_db=(0.0, 0.0), speed=(0.88, 1.14), formants=(0.8, 1.25))
"""How far."""

Speaker = Callable[[str, str, np.random.Generator], Samples]
"""Speaks a text in a language."""

LANGUAGES = tuple(dict.fromkeys(voice.split("-", maxsplit=1)[0] for voice in pico.VOICES))


def speaks(language: str) -> bool:
    """Whether there is a voice for the language of this tag."""
    return language.split("-", maxsplit=1)[0] in LANGUAGES


def speak(text: str, language: str, rng: np.random.Generator) -> Samples:
    """The text by one of the voices of a language, as somebody else: (n_samples,), 16 kHz.

    Raises:
        MissingExtra: the `voices` extra is not installed.
        UsageError: English, and flite is not installed.
        AudioError: the text cannot be spoken.
    """
    voices = _voices(language)
    synthesiser, name = voices[int(rng.integers(len(voices)))]
    return SPEAKERS.apply(synthesiser.speak(text, name, rng), rng)


def rehearse(language: str) -> None:
    """Let each voice of a language speak: raises what `speak` would raise after hours."""
    for synthesiser, name in _voices(language):
        synthesiser.speak("Anna", name, np.random.default_rng(0))


def _voices(language: str) -> list[tuple[ModuleType, str]]:
    base = language.split("-", maxsplit=1)[0]
    voices = [(pico, name) for name in pico.VOICES if name.startswith(base)]
    return voices + [(flite, name) for name in flite.VOICES if base == "en"]


def as_somebody_else(speak: Speaker, text: str, language: str, rng: np.random.Generator) -> Samples:
    """The text by this speaker, moved away from that voice likewise."""
    return SPEAKERS.apply(speak(text, language, rng), rng)
