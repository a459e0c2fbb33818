"""English speech by flite, whose voices were made from recordings of four people (Black and Lenzo 2001).

The program has to be installed (`apt-get install flite`): recipes need it, nothing else does.
"""

import shutil
import subprocess
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.conditions import Condition, Samples
from lora_whisper.errors import AudioError, UsageError

VOICES = ("awb", "kal16", "rms", "slt")
"""A Scot, and two men and a woman from the United States."""

SPEAKERS = Condition(gain_db=(0.0, 0.0), speed=(0.88, 1.14), formants=(0.8, 1.25))
"""How far their voices are moved, so that there are more than four: pitch with speed, and formants."""

_STRETCH = (0.7, 1.3)
_RESTING_HZ = (75.0, 135.0)


def speaks(language: str) -> bool:
    """Whether flite speaks the language of this tag: English only."""
    return language.split("-", maxsplit=1)[0] == "en"


def speak(text: str, rng: np.random.Generator) -> Samples:
    """The text by a random voice at a random speed, (n_samples,), 16 kHz.

    Raises:
        UsageError: flite is not installed.
        AudioError: flite could not speak the text.
    """
    voice = VOICES[int(rng.integers(len(VOICES)))]
    settings = {"duration_stretch": rng.uniform(*_STRETCH)}
    if voice == "kal16":  # the others keep the melody of their speakers
        settings["int_f0_target_mean"] = rng.uniform(*_RESTING_HZ)
    return SPEAKERS.apply(_synthesise(text, voice, settings), rng)


def _synthesise(text: str, voice: str, settings: dict[str, float]) -> Samples:
    program = shutil.which("flite")
    if program is None:
        raise UsageError("flite is not installed; `apt-get install flite`, or leave its share out")
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
