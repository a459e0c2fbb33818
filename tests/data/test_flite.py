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
def test_speech_depends_on_the_generator_alone() -> None:
    first, again, other = (flite.speak("seven eight", np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(other) != len(first)
    assert first.dtype == np.float32
    assert 0.3 < len(first) / 16000 < 3


@needs_flite
@pytest.mark.parametrize("voice", flite.VOICES)
def test_all_voices_are_there(voice: str) -> None:
    assert np.abs(flite._synthesise("hello", voice, {})).max() > 0.01


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install flite"):
        flite.speak("hello", np.random.default_rng(0))


def test_what_the_program_says_when_it_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, "echo no such voice >&2; exit 3", monkeypatch)
    with pytest.raises(AudioError, match="could not speak 'hello': no such voice"):
        flite.speak("hello", np.random.default_rng(0))
