"""English speech by flite, four of whose voices were made from recordings of people (Black and Lenzo 2001).

The program has to be installed (`apt-get install flite`).
"""

import shutil
import subprocess
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.conditions import Samples
from lora_whisper.errors import AudioError, UsageError

VOICES = ("awb", "kal16", "rms", "slt")
"""A Scot, and two men and a woman from the United States."""

_STRETCHES = (0.7, 1.3)
_RESTING_HZ = (75.0, 135.0)


def speak(text: str, voice: str, rng: np.random.Generator) -> Samples:
    """The text at a random speed, (n_samples,), 16 kHz.

    Raises:
        UsageError: flite is not installed.
        AudioError: flite could not speak the text.
    """
    program = shutil.which("flite")
    if program is None:
        raise UsageError(
            "English in recorded voices needs flite, which is not installed; apt-get install flite"
        )
    settings = {"duration_stretch": rng.uniform(*_STRETCHES)}
    if voice == "kal16":  # the others keep the melody of their speakers
        settings["int_f0_target_mean"] = rng.uniform(*_RESTING_HZ)
    options = [part for name, value in settings.items() for part in ("--setf", f"{name}={value:.3f}")]
    with TemporaryDirectory() as folder:
        path = f"{folder}/speech.wav"
        done = subprocess.run(
            [program, "-voice", voice, *options, "-t", text, "-o", path], capture_output=True, check=False
        )
        if done.returncode:
            raise AudioError(f"flite could not speak {text[:40]!r}: {done.stderr.decode()[:200]}")
        samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE:
        raise AudioError(f"flite speaks with {rate} Hz instead of {SAMPLE_RATE} as {voice}")
    return samples
