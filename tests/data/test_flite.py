import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from lora_whisper.data import flite
from lora_whisper.errors import AudioError, UsageError

needs_flite = pytest.mark.skipif(not shutil.which("flite"), reason="flite is not installed")


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "flite"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


@needs_flite
@pytest.mark.parametrize("voice", flite.VOICES)
def test_all_voices_are_there(voice: str) -> None:
    samples = flite.speak("seven eight", voice, np.random.default_rng(0))
    assert samples.dtype == np.float32 and 0.3 < len(samples) / 16000 < 3
    assert np.abs(samples).max() > 0.01


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install flite"):
        flite.speak("hello", "slt", np.random.default_rng(0))


def test_what_the_program_says_when_it_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, "echo no such voice >&2; exit 3", monkeypatch)
    with pytest.raises(AudioError, match="could not speak 'hello': no such voice"):
        flite.speak("hello", "slt", np.random.default_rng(0))
