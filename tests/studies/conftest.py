"""A bench of three toy languages, small enough to train in a second."""

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from toy_whisper import toy_speech

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.manifest import Utterance, write_manifest
from lora_whisper.studies.bench import Bench
from lora_whisper.training.trainer import TrainConfig

TRAINING = TrainConfig(epochs=2, learning_rate=1e-2, batch_s=4.0, precision="fp32")


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    for number, (split, count) in enumerate((("train", 4), ("dev", 2), ("test", 3))):
        rows = []
        for place, tag in enumerate(("pl", "it", "en", "cy")):
            for index in range(count):
                path = folder / f"{split}-{tag}-{index}.wav"
                soundfile.write(path, toy_speech(0.7, 1000 * number + 10 * place + index), SAMPLE_RATE)
                rows.append(Utterance(path, f"ala {index}", tag, duration_s=0.7, id=path.stem))
        write_manifest(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture
def bench(manifests: Path, tiny_backbone_folder: Path) -> Bench:
    return Bench(
        base={"pl": 4, "it": 3},
        new={"en": 2, "cy": 0},
        dev=2,
        test=3,
        seeds=(0,),
        backbone=str(tiny_backbone_folder),
        manifests=(manifests,),
        rank=2,
        training=replace(TRAINING),
        full_learning_rate=1e-3,
    )
