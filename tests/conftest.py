"""What several test files need: a tiny backbone in memory and on disk, and a little speech."""

from pathlib import Path

import pytest
import soundfile
from toy_whisper import toy_backbone, toy_speech

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.manifest import Utterance, write_manifest
from lora_whisper.model.checkpoint import Backbone, save_backbone


@pytest.fixture
def tiny_backbone() -> Backbone:
    """A new random Whisper with a toy vocabulary."""
    return toy_backbone()


@pytest.fixture(scope="session")
def tiny_backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same Whisper on disk."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    save_backbone(toy_backbone(), folder)
    return folder


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten short clips in each of two languages: `manifest.jsonl` and `pl-0.wav` … `it-9.wav`."""
    folder = tmp_path_factory.mktemp("speech")
    rows = []
    for number, tag in enumerate(("pl", "it")):
        for index in range(10):
            path = folder / f"{tag}-{index}.wav"
            duration_s = 0.6 + 0.05 * index
            soundfile.write(path, toy_speech(duration_s, 100 * number + index), SAMPLE_RATE)
            rows.append(Utterance(path, f"ala {index}", tag, duration_s=duration_s, id=path.stem))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder
