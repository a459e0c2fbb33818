"""Speech by SVOX Pico (Apache-2.0, from Android), whose six voices were made from recordings of people.

They come with the package `ttspico`, the extra `voices`, which needs a C compiler to be installed.
"""

import numpy as np

from lora_whisper.data.conditions import Samples
from lora_whisper.data.extras import optional_module
from lora_whisper.errors import AudioError

VOICES = ("de-DE", "en-GB", "en-US", "es-ES", "fr-FR", "it-IT")
"""One person each."""

_PITCHES, _RATES = (70, 140), (75, 140)  # of 100


def speak(text: str, voice: str, rng: np.random.Generator) -> Samples:
    """The text at a random pitch and speed, (n_samples,), 16 kHz.

    Raises:
        MissingExtra: the `voices` extra is not installed.
        AudioError: Pico has nothing to say.
    """
    engine = optional_module("ttspico", "voices").TtsEngine(voice)  # a used one remembers what it said
    engine.pitch, engine.rate = int(rng.integers(*_PITCHES)), int(rng.integers(*_RATES))
    spoken = engine.speak(text.replace("<", " "))  # which would begin a tag
    if not spoken:
        raise AudioError(f"Pico could not speak {text[:40]!r}")
    return np.frombuffer(spoken, np.int16) * np.float32(1 / 32768)
