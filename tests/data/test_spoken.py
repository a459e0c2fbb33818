from pathlib import Path

import numpy as np
import pytest

from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.spoken import prepare_spoken
from lora_whisper.errors import OutputError, UnknownLanguage, UsageError

SAID = [
    Utterance(Path("a.wav"), "siedem", "pl", speaker="ala"),
    Utterance(Path("b.wav"), "siedem", "pl", speaker="ola"),
    Utterance(Path("c.wav"), "dwa koty", "pl"),
    Utterance(Path("d.wav"), "七", "zh"),
    Utterance(Path("e.wav"), "", "pl"),
]


def test_each_text_is_spoken_in_as_many_voices(tmp_path):
    told = []
    manifest = prepare_spoken(SAID, 3, 0, tmp_path, lambda *counts: told.append(counts))
    rows = read_manifest(manifest)
    assert [row.text for row in rows] == ["siedem"] * 3 + ["dwa koty"] * 3 + ["七"] * 3
    assert told[-1] == (9, 9) and len({row.speaker for row in rows}) == 9
    clips = [row.load() for row in rows]
    assert all(np.abs(clip).max() > 0.01 for clip in clips)
    assert len({clip.tobytes() for clip in clips}) == 9


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    made = {}
    for name, seed in (("one", 4), ("again", 4), ("other", 5)):
        manifest = prepare_spoken(SAID[:1], 1, seed, tmp_path / name)
        (audio,) = (tmp_path / name / "audio").iterdir()
        made[name] = manifest.read_bytes(), audio.read_bytes()
    assert made["one"] == made["again"] and made["one"] != made["other"]


def test_a_share_has_recorded_voices(tmp_path, monkeypatch):
    said = []

    def speak(text, language, rng):
        said.append((text, language))
        return rng.standard_normal(4000).astype(np.float32)

    monkeypatch.setattr("lora_whisper.data.recorded.speak", speak)
    utterances = [Utterance(Path("a.wav"), "seven", "en-GB"), *SAID[:1]]
    rows = read_manifest(prepare_spoken(utterances, 4, 0, tmp_path, recorded_share=0.5))
    assert said == [("seven", "en-GB")] * 2
    assert len({row.speaker for row in rows}) == 8


class Neural:
    """Stands for Kokoro."""

    def __init__(self):
        self.said = []

    def speak(self, text, language, rng):
        self.said.append((text, language))
        return rng.standard_normal(4000).astype(np.float32)


def test_a_share_has_neural_voices(tmp_path, monkeypatch):
    monkeypatch.setattr("lora_whisper.data.recorded.speak", Neural().speak)
    utterances, neural = [Utterance(Path("a.wav"), "seven", "en"), *SAID[:1]], Neural()
    manifest = prepare_spoken(
        utterances, 8, 0, tmp_path, recorded_share=0.25, neural=neural, neural_share=0.5
    )
    assert neural.said == [("seven", "en")] * 4  # it has not learned Polish
    rows = read_manifest(manifest)
    assert len({row.speaker for row in rows}) == 16
    assert len({row.load().tobytes() for row in rows}) == 16


def test_copies_hold_no_more_than_recordings_at_their_rate(tmp_path):
    above = {}
    for rate in (8000, 16_000):
        (row,) = read_manifest(prepare_spoken(SAID[:1], 1, 0, tmp_path / str(rate), sample_rate=rate))
        power = np.abs(np.fft.rfft(row.load())) ** 2
        above[rate] = power[int(len(power) * 0.54) :].sum() / power.sum()  # of 8 kHz: from 4.3 on
    assert above[8000] < 1e-6 < 1e-4 < above[16_000]


def test_what_cannot_be_spoken_is_refused(tmp_path):
    with pytest.raises(UsageError, match="0 copies of 1 texts"):
        prepare_spoken(SAID[:1], 0, 0, tmp_path)
    with pytest.raises(UsageError, match="5 copies of 0 texts"):
        prepare_spoken(SAID[4:], 5, 0, tmp_path)
    for shares in ({"recorded_share": 2}, {"neural_share": -1}, {"recorded_share": 0.6, "neural_share": 0.6}):
        with pytest.raises(UsageError, match="shares are between 0 and 1"):
            prepare_spoken(SAID[:1], 1, 0, tmp_path, **shares)
    with pytest.raises(UsageError, match="no Kokoro to speak them"):
        prepare_spoken(SAID[:1], 1, 0, tmp_path, neural_share=0.5)
    with pytest.raises(UsageError, match="between 4000 and 16000 Hz"):
        prepare_spoken(SAID[:1], 1, 0, tmp_path, sample_rate=8)
    with pytest.raises(UnknownLanguage):
        prepare_spoken([Utterance(Path("a.wav"), "x", "xx")], 1, 0, tmp_path)
    assert not (tmp_path / "spoken.jsonl").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        prepare_spoken(SAID[:1], 1, 0, tmp_path / "file")
