"""Make the bundled backbone `mini` from nothing: `python recipes/mini.py` (some hours on two cores; resumable).

Writes runs/mini/backbone, then scores it on speech of unseen voices and texts: runs/mini/scores.json.
"""

import argparse
from pathlib import Path

from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitors
from lora_whisper.training.pretraining import Pretraining, pretrain
from lora_whisper.training.trainer import TrainConfig

LANGUAGES = ("en", "de", "es", "fr", "it", "pt", "pl", "nl", "sv", "fi", "da", "el", "cy", "ja", "zh", "tr")

RECIPE = Pretraining(LANGUAGES)
CONFIG = TrainConfig(
    epochs=2, learning_rate=1.5e-3, warmup=0.05, weight_decay=0.01, batch_s=120.0, save_every=500, seed=0
)


def main() -> None:
    """Pre-train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mini"))
    folder = parser.parse_args().out
    pretrain(RECIPE, CONFIG, folder, Monitors(ConsoleMonitor(), LogMonitor(folder)))


if __name__ == "__main__":
    main()
