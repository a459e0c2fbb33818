"""Measure: `python -m benchmarks [--quick] [--device cuda] [--json]`.

Each row runs two variants in turns, after a warm-up, and reports the median ratio of their times with the
range of the ratios seen: machines are noisy, ratios in one run much less so.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from lora_whisper.data.batching import Row, collate
from lora_whisper.decoding.search import decode
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.layers import LoRAConfig
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.training.methods import language_lora
from lora_whisper.training.trainer import resolve_precision, track_losses

LANGUAGES = ("en", "de", "es", "fr", "it", "pt", "pl", "nl")


@dataclass(frozen=True)
class Measurement:
    """How many times faster the second variant is.

    Attributes:
        name: what is compared.
        ratio: time of the first over time of the second, median of the rounds.
        low: smallest ratio seen.
        high: largest ratio seen.
        goal: what the project wants the ratio to be; None without a goal.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None


def compare(
    name: str, first: Callable[[], object], second: Callable[[], object], rounds: int, goal: float | None
) -> Measurement:
    """Run both in turns."""
    ratios = []
    for round_ in range(rounds + 1):
        times = [elapsed_s(variant) for variant in (first, second)]
        if round_:  # the first round warms up
            ratios.append(times[0] / times[1])
    return Measurement(name, statistics.median(ratios), min(ratios), max(ratios), goal)


def elapsed_s(function: Callable[[], object]) -> float:
    """Seconds that a call takes, with the device's work finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def training_context(backbone: Backbone, rows: int, rounds: int) -> Measurement:
    """A training step on 10 s utterances at their own length against the same padded to 30 s."""
    bank = AdapterBank(backbone)
    adapter = bank.add("pl", LoRAConfig())
    tokens = (*backbone.tokenizer.start_sequence("pl"), *range(100, 150), backbone.tokenizer.eot)
    n_mels, precision = backbone.model.dims.n_mels, resolve_precision("auto", backbone.model.device)

    def step(frames: int) -> Callable[[], None]:
        row = Row(torch.randn(n_mels, frames), tokens, 4)
        batch = collate([row] * rows).to(backbone.model.device)
        track = language_lora(adapter, _NoRows(), None)

        def run() -> None:
            with precision():
                loss = track_losses(backbone.model, [track], [rows], batch)["pl"]
            loss.backward()

        return run

    measured = compare("training: 10 s at dynamic against full context", step(3000), step(1024), rounds, None)
    bank.remove("pl")
    return measured


def mixed_languages(backbone: Backbone, rows: int, rounds: int) -> Measurement:
    """Decoding eight languages through eight adapters against one language merged into the weights."""
    bank = AdapterBank(backbone)
    for seed, tag in enumerate(LANGUAGES):
        for part in bank.add(tag, LoRAConfig(), seed=seed).parts.values():
            torch.nn.init.normal_(part.b, std=1e-3)
    merged = Backbone(bank.merge(LANGUAGES[0]), backbone.tokenizer, backbone.name, backbone.audio_context)
    mel = torch.randn(rows, backbone.model.dims.n_mels, 1024, device=backbone.model.device)
    mixed = [LANGUAGES[row % len(LANGUAGES)] for row in range(rows)]
    measured = compare(
        "decoding: eight languages in a batch against one merged language",
        lambda: decode(merged, mel, [LANGUAGES[0]] * rows),
        lambda: decode(backbone, mel, mixed, routing=bank.route(mixed)),
        rounds,
        0.9,
    )
    for tag in LANGUAGES:
        bank.remove(tag)
    return measured


class _NoRows:
    """A row source without rows: the step is given its batch directly."""

    durations_s: tuple[float, ...] = ()

    def row(self, index: int) -> Row:
        """There is none."""
        raise IndexError(index)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    backbone = load_backbone(arguments.backbone, arguments.device)
    rounds = 3 if arguments.quick else 9
    rows = [training_context(backbone, 8, rounds), mixed_languages(backbone, 16, rounds)]
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    for row in rows:
        goal = f"goal {row.goal}" if row.goal else ""
        print(f"{row.name:70} {row.ratio:6.2f}  ({row.low:.2f} to {row.high:.2f})  {goal}")


if __name__ == "__main__":
    main()
