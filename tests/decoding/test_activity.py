"""Speech and silence: the pure parts on hand-made probabilities, the network on synthetic speech."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data import espeak
from lora_whisper.decoding.activity import FRAME, ActivityLimits, Region, SileroActivity, speech_regions
from lora_whisper.errors import CheckpointError, MissingExtra

FRAME_S = FRAME / SAMPLE_RATE
LIMITS = ActivityLimits(shortest_speech_s=4 * FRAME_S, shortest_pause_s=3 * FRAME_S, longest_s=20 * FRAME_S)


def spans(text: str, limits: ActivityLimits = LIMITS) -> list[tuple[int, int]]:
    """Regions in frames of probabilities written as a digit a frame: 9 is 0.9."""
    values = [int(letter) / 10 for letter in text]
    regions = speech_regions(values, len(values) * FRAME_S, limits)
    return [(round(one.start_s / FRAME_S), round(one.end_s / FRAME_S)) for one in regions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("000000", []),
        ("0099999000", [(2, 7)]),
        ("00944449000", [(2, 8)]),  # above `stop` goes on
        ("0099900000", []),  # too short
        ("00999009990", [(2, 10)]),  # too short a pause
        ("0999900009999", [(1, 5), (9, 13)]),
        ("99999", [(0, 5)]),
    ],
)
def test_speech_begins_and_ends(text: str, expected: list[tuple[int, int]]) -> None:
    assert spans(text) == expected


def test_long_speech_is_cut_where_it_is_least_probable() -> None:
    text = "9" * 14 + "6" + "9" * 15 + "5" + "9" * 9
    assert spans(text) == [(0, 14), (14, 30), (30, 40)]
    assert all(end - start <= 20 for start, end in spans("9" * 100))


def test_a_region_does_not_go_beyond_the_audio() -> None:
    assert speech_regions([0.9] * 10, 9.5 * FRAME_S, LIMITS) == [Region(0, 9.5 * FRAME_S)]


@pytest.fixture(scope="module")
def silero() -> SileroActivity:
    pytest.importorskip("onnxruntime", reason="needs the vad extra")
    return SileroActivity()


def test_synthetic_speech_is_found_between_silences(silero: SileroActivity) -> None:
    speech = espeak.synthesise("one two three four five six seven", "en", espeak.Voice(""))
    pause = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([pause, speech, pause, speech, pause])
    found = speech_regions(silero.probabilities([samples]), len(samples) / SAMPLE_RATE, ActivityLimits())
    length_s = len(speech) / SAMPLE_RATE
    assert [one.start_s for one in found] == pytest.approx([1, 2 + length_s], abs=0.15)
    assert [one.end_s for one in found] == pytest.approx([1 + length_s, 2 + 2 * length_s], abs=0.2)


def test_blocks_of_any_size_are_one_signal(silero: SileroActivity) -> None:
    samples = espeak.synthesise("one two three four five", "en", espeak.Voice(""))
    whole = silero.probabilities([samples])
    assert len(whole) == -(-len(samples) // FRAME)
    for size in (1000, 4096, 16000):
        blocks = [samples[start : start + size] for start in range(0, len(samples), size)]
        np.testing.assert_allclose(silero.probabilities(blocks), whole, atol=1e-4)
    assert len(silero.probabilities([])) == 0


def test_noise_and_silence_are_not_speech(silero: SileroActivity) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 5 * SAMPLE_RATE).astype(np.float32)
    for samples in (noise, np.zeros(5 * SAMPLE_RATE, np.float32)):
        assert speech_regions(silero.probabilities([samples]), 5.0, ActivityLimits()) == []


def test_what_is_missing_or_no_such_network_is_named(
    silero: SileroActivity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert silero
    with pytest.raises(CheckpointError, match="none"):
        SileroActivity(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="bad"):
        SileroActivity(tmp_path / "bad.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"lora-whisper\[vad\]"):
        SileroActivity()
