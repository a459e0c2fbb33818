"""Clips are small, short and playable; what cannot be heard is a note."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_whisper.evaluation.players import Clip, Player, players


def decoded(player: Player) -> tuple[np.ndarray, int]:
    head, _, data = player.address.partition(",")
    assert head == "data:audio/mpeg;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Twenty seconds in stereo at 44.1 kHz: silence, and a tone from second 2 to second 3."""
    samples = np.zeros((20 * 44100, 2), np.float32)
    samples[2 * 44100 : 3 * 44100] = 0.5 * np.sin(np.arange(44100) * 0.06)[:, None]
    soundfile.write(tmp_path / "tone.wav", samples, 44100)
    return tmp_path / "tone.wav"


def test_a_part_of_a_file_is_heard(tone: Path) -> None:
    samples, rate = decoded(*players([Clip(tone, 2.0, 1.0)]))
    assert (rate, samples.ndim) == (16000, 1)
    assert len(samples) / rate == pytest.approx(1.0, abs=0.2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.15)
    silence, _ = decoded(*players([Clip(tone, 4.0, 1.0)]))
    assert np.abs(silence).max() < 0.05


def test_long_clips_are_cut_and_say_so(tone: Path) -> None:
    for clip in (Clip(tone), Clip(tone, 0.0, 20.0)):
        (player,) = players([clip])
        samples, rate = decoded(player)
        assert len(samples) / rate == pytest.approx(15.0, abs=0.2)
        assert player.note == "the first 15 s"
        assert len(player.address) < 80_000
    assert players([Clip(tone, 10.0)])[0].note == ""


@pytest.mark.parametrize("content", [None, b"", b"no audio at all", b"RIFF"])
def test_what_cannot_be_heard_is_a_note(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    (player,) = players([Clip(path)])
    assert player.address == ""
    assert player.note.startswith("no audio: ")


def test_unknown_places_and_ends_are_notes(tone: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, np.float32), 16000)
    made = players([None, Clip(tone, 30.0), Clip(tone, -1.0), Clip(tmp_path), Clip(empty)])
    assert [player.address for player in made] == [""] * 5
    assert all(player.note.startswith("no audio: ") for player in made)


def test_the_first_clips_fit_and_the_others_are_notes(tone: Path) -> None:
    one = len(players([Clip(tone, 0.0, 1.0)])[0].address)
    made = players([Clip(tone, 0.0, 1.0)] * 4, most_characters=2 * one + 10)
    assert [bool(player.address) for player in made] == [True, True, False, False]
    assert made[2].note.startswith("no audio: the clips of this page would be over")


def test_samples_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.array([np.nan, np.inf, -np.inf, 2.0] * 4000, np.float32), 16000, subtype="FLOAT")
    samples, _ = decoded(*players([Clip(path)]))
    assert np.isfinite(samples).all()
