"""Synthetic speech in voices that were made from recordings: nearer to people than espeak-ng's, but few.

So each utterance is moved away from its voice: pitch with speed, and formants.
"""

import numpy as np

from lora_whisper.data import flite, pico
from lora_whisper.data.conditions import Condition, Samples

SPEAKERS = Condition(gain_db=(0.0, 0.0), speed=(0.88, 1.14), formants=(0.8, 1.25))
"""How far."""

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
    base = language.split("-", maxsplit=1)[0]
    voices = [(pico, name) for name in pico.VOICES if name.startswith(base)]
    if base == "en":
        voices += [(flite, name) for name in flite.VOICES]
    synthesiser, name = voices[int(rng.integers(len(voices)))]
    return SPEAKERS.apply(synthesiser.speak(text, name, rng), rng)
