"""Make the bundled backbone `mini` from nothing: `python recipes/mini.py` (an hour on two cores; resumable).

Writes runs/mini/backbone and scores it on speech of unseen voices and texts: runs/mini/scores.json. To bundle
it, copy the backbone folder to lora_whisper/assets/mini.
"""

import argparse
from pathlib import Path
from typing import Any

from lora_whisper.data.manifest import read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import Rate
from lora_whisper.evaluation.report import percent
from lora_whisper.files import write_json
from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitors
from lora_whisper.training.pretraining import Pretraining, pretrain
from lora_whisper.training.trainer import TrainConfig

LANGUAGES = ("en", "de", "es", "fr", "it", "pt", "pl", "nl", "sv", "fi", "da", "el", "cy", "ja", "zh", "tr")

RECIPE = Pretraining(LANGUAGES)
CONFIG = TrainConfig(
    epochs=2, learning_rate=1.5e-3, warmup=0.05, weight_decay=0.01, batch_s=120.0, save_every=500, seed=0
)
TEST_UTTERANCES, TEST_SEED = 100, 12345


def scores(backbone: Path, folder: Path) -> dict[str, Any]:
    """CER and WER of each language, and how often the language itself is recognised, on fresh test speech."""
    manifest = prepare_synthetic(LANGUAGES, "test", TEST_UTTERANCES, TEST_SEED, folder)
    asr, utterances = LoraWhisper(backbone), read_manifest(manifest)
    told = evaluate(asr, utterances).summary()
    recognised = evaluate(asr, utterances, language="auto").summary()
    return {**told, "language_id": recognised["language_id"]}


def main() -> None:
    """Pre-train unless that is done, then score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mini"))
    folder: Path = parser.parse_args().out
    if not (folder / "backbone").exists():
        pretrain(RECIPE, CONFIG, folder, Monitors(ConsoleMonitor(), LogMonitor(folder)))
    found = scores(folder / "backbone", folder / "speech")
    write_json(folder / "scores.json", found)
    print("| language | CER | WER |\n|---|---|---|")
    for tag, rates in found["languages"].items():
        cer, wer = (percent(Rate(**rates[kind])) for kind in ("cer", "wer"))
        print(f"| {tag} | {cer} | {wer} |")
    print(f"language recognised: {100 * found['language_id']['accuracy']:.1f} %")


if __name__ == "__main__":
    main()
