"""Make the bundled backbone `mini` from nothing: `python recipes/mini.py` (resumable).

Nine stages: clean speech in sixteen languages until attention finds the audio; then any timbre, noise, echo,
times, prompts and silence, eight languages covered well and eight thinly; then, twice, mostly rare words and
names; then, twice, names above all; at last, three times, windows of recordings full of speech, after long
prompts. The first five took half an hour on an H100 beside sixteen cores, the last three two and a half on
two. Two cores learn a fifth of all rows in six hours, without bf16 a twentieth (`--share`). Writes
runs/mini/backbone, its loss curve, and its scores on speech of unseen voices and texts. To bundle it, copy
that folder to lora_whisper/assets/mini and run `recipes/alignment_heads.py --write --backbone
lora_whisper/assets/mini`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lora_whisper.data.manifest import read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import Rate
from lora_whisper.evaluation.plots import Line, curves, standalone
from lora_whisper.evaluation.report import percent
from lora_whisper.files import write_json, write_text
from lora_whisper.model.checkpoint import save_backbone
from lora_whisper.model.precision import native_bf16
from lora_whisper.training.curriculum import Curriculum
from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitors
from lora_whisper.training.pretraining import Pretraining, Stage, pretrain
from lora_whisper.training.trainer import TrainConfig

WELL_COVERED = ("en", "de", "es", "fr", "it", "pt", "pl", "nl")
THINLY_COVERED = ("sv", "fi", "da", "el", "cy", "ja", "zh", "tr")
LANGUAGES = WELL_COVERED + THINLY_COVERED

RECIPE = Pretraining(LANGUAGES, n_audio_layer=5, language_weight=3.0)
LEARNING = TrainConfig(
    epochs=4,
    learning_rate=2e-3,
    schedule="constant",
    warmup=0.02,
    weight_decay=0.01,
    batch_s=480.0,
    save_every=250,
    spec_augment=True,
    optimizer="muon",
)
"""How most stages are learned."""
REFINING = replace(LEARNING, epochs=1, learning_rate=1e-3, schedule="linear", batch_s=120.0)
"""How the last ones are."""
SPELLING = Curriculum(
    {
        "fr": 64000,
        "en": 54000,
        "nl": 34000,
        "pt": 30000,
        "de": 27000,
        "es": 27000,
        "it": 25000,
        "pl": 25000,
    }
    | dict.fromkeys(THINLY_COVERED, 4000),
    joined=0.05,
    words=0.6,
    listed=0.65,
    n_words=200_000,
    proper=0.3,
    mingled=0.4,
    named=0.6,
    timbres=0.7,
    perturbed=0.4,
    timestamped=0.25,
    prompted=0.06,
    extended=0.06,
    silent=0.01,
    speeds_wpm=(130, 260),
    word_languages=WELL_COVERED,
    written=dict.fromkeys(THINLY_COVERED, 2) | {"da": 60, "el": 500, "ja": 1000, "zh": 1200},
)
"""What the later stages hear: mostly rare words and names, by many voices, for spelling is hardest."""
NAMES = replace(
    SPELLING,
    utterances={
        "fr": 76000,
        "en": 51000,
        "nl": 17000,
        "pt": 16500,
        "es": 15500,
        "de": 15000,
        "it": 13500,
        "pl": 11500,
    }
    | dict.fromkeys(THINLY_COVERED, 1000),
    proper=0.5,
    mingled=0.5,
    named=0.65,
    written=dict.fromkeys(THINLY_COVERED, 2) | {"el": 90, "ja": 200, "zh": 260},
)
"""What stages 5 and 6 hear: names above all, most of them French and English, the hardest to spell."""


def part_of_names(n: int) -> dict[str, int]:
    """Rows of each language: the n-th part of those of `NAMES`."""
    return {tag: count // n for tag, count in NAMES.utterances.items()}


WINDOWS = replace(
    NAMES,
    utterances=part_of_names(7),
    windows=0.4,
    timestamped=0.4,
    prompted=0.15,
    written=dict.fromkeys(THINLY_COVERED, 1) | {"el": 6, "ja": 14, "zh": 18},
)
"""What teaches recordings of any length: windows full of speech, cut off anywhere, after long prompts."""
STAGES = (
    Stage(  # clean speech: attention finds the audio
        Curriculum(
            dict.fromkeys(WELL_COVERED, 7000) | dict.fromkeys(THINLY_COVERED, 2000),
            written=dict.fromkeys(THINLY_COVERED, 10) | {"da": 200, "el": 1200, "ja": 2000, "zh": 2000},
        ),
        replace(LEARNING, epochs=2, warmup=0.05, batch_s=120.0),
    ),
    Stage(  # any timbre, noise and echo, times and prompts, other words
        replace(
            SPELLING,
            utterances=dict.fromkeys(WELL_COVERED, 15000)
            | {"fr": 21000, "en": 19000}
            | dict.fromkeys(THINLY_COVERED, 3500),
            joined=0.06,
            words=0.45,
            listed=0.5,
            n_words=80_000,
            proper=0.0,
            mingled=0.0,
            named=0.3,
            timbres=0.5,
            perturbed=0.5,
            timestamped=0.3,
            prompted=0.08,
            extended=0.1,
            silent=0.015,
        ),
        replace(LEARNING, batch_s=240.0),
    ),
    Stage(SPELLING, LEARNING),
    Stage(SPELLING, replace(LEARNING, epochs=1, schedule="linear")),  # other rows of it
    Stage(NAMES, REFINING),
    Stage(  # hardly any Greek and Japanese text, of which too much is known by now: letters are forgotten
        replace(
            NAMES,
            utterances=dict.fromkeys(WELL_COVERED, 640)
            | {"fr": 3200, "en": 2100}
            | dict.fromkeys(THINLY_COVERED, 60),
            written=dict.fromkeys(THINLY_COVERED, 1) | {"zh": 20},
        ),
        replace(REFINING, learning_rate=2.5e-3, batch_s=30.0, optimizer="adamw"),
        learned="tokens",
    ),
    Stage(WINDOWS, REFINING),
    Stage(  # other rows of it, more of them windows
        replace(
            WINDOWS,
            utterances=part_of_names(12),
            windows=0.5,
            timestamped=0.5,
            written=dict.fromkeys(THINLY_COVERED, 1) | {"el": 20, "ja": 12, "zh": 14},
        ),
        REFINING,
    ),
    Stage(  # again, with more times, silence and Chinese
        replace(
            WINDOWS,
            utterances=part_of_names(11),
            windows=0.5,
            timestamped=0.6,
            silent=0.04,
            written=dict.fromkeys(THINLY_COVERED, 2) | {"el": 12, "ja": 14, "zh": 40},
        ),
        REFINING,
    ),
)
SHARE_OF_TWO_CORES = {True: 0.2, False: 0.05}
"""Of the rows: what two cores learn within six hours, by whether they multiply in bf16 (docs/log.md)."""
LEAST_BATCH_S = 120.0
"""The smallest batch of a stage with fewer rows, unless it has a smaller one anyway."""
TEST_UTTERANCES, TEST_SEED = 100, 12345
TESTS: dict[str, dict[str, Any]] = {
    "known words": {"words": "known"},
    "new words": {},
    "new words, perturbed": {"perturbed": True},
}
"""All of unseen voices and texts, as arguments of `prepare_synthetic`."""
SMOOTHED_STEPS = 500


def smaller(stage: Stage, share: float) -> Stage:
    """The stage with this share of its rows, in batches that are smaller, too, where they are large."""
    heard, batch_s = stage.curriculum, stage.config.batch_s
    fewer = {tag: round(share * count) for tag, count in heard.utterances.items()}
    written = {tag: round(share * count) for tag, count in heard.written.items()}
    return replace(
        stage,
        curriculum=replace(heard, utterances=fewer, written=written),
        config=replace(stage.config, batch_s=max(share * batch_s, min(batch_s, LEAST_BATCH_S))),
    )


def scores(backbone: Path, folder: Path, seed: int, name: str) -> dict[str, Any]:
    """CER and WER of each language, and how often the language itself is recognised, on fresh test speech."""
    manifest = prepare_synthetic(
        LANGUAGES, "test", TEST_UTTERANCES, seed, folder / f"seed-{seed}-{name}", **TESTS[name]
    )
    asr, utterances = LoraWhisper(backbone), read_manifest(manifest)
    told = evaluate(asr, utterances).summary()
    recognised = evaluate(asr, utterances, language="auto").summary()
    return {**told, "language_id": recognised["language_id"]}


def curve(logs: Sequence[Path]) -> str:
    """SVG of the losses of all stages: of training (means of `SMOOTHED_STEPS`) and development."""
    bins: dict[int, list[tuple[float, float]]] = {}
    scored: list[tuple[float, float]] = []
    before = 0
    for log in logs:
        events = [json.loads(line) for line in log.read_text().splitlines()]
        for event in events:
            step = before + event["step"]
            if event["event"] == "step":
                bins.setdefault(step // SMOOTHED_STEPS, []).append((step / 1000, event["losses"]["full"]))
            else:
                scored.append((step / 1000, event["scores"]["loss"]))
        before += events[-1]["step"]
    means = [tuple(map(fmean, zip(*pairs, strict=True))) for pairs in bins.values()]
    training, development = ([*zip(*pairs, strict=True)] for pairs in (means, scored))
    lines = [Line("training", *training), Line("development, after each epoch", *development)]
    return standalone(curves(lines, "loss", over="thousand steps"))


def main() -> None:
    """Pre-train unless that is done, then score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mini"))
    parser.add_argument(
        "--share", type=float, help="of all rows; default: 1 on a GPU, else what takes six hours"
    )
    parser.add_argument("--test-seed", type=int, default=TEST_SEED)
    options = parser.parse_args()
    folder: Path = options.out
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usual = 1.0 if device.type == "cuda" else SHARE_OF_TWO_CORES[native_bf16(device)]
    share = usual if options.share is None else options.share
    stages = [smaller(stage, share) for stage in STAGES]
    backbone = pretrain(
        RECIPE, stages, folder, lambda stage: Monitors(ConsoleMonitor(), LogMonitor(stage)), device
    )
    save_backbone(backbone, folder / "backbone")
    logs = [folder / f"stage-{number + 1}" / "log.jsonl" for number in range(len(STAGES))]
    write_text(folder / "curve.svg", curve(logs))
    found = {name: scores(folder / "backbone", folder / "speech", options.test_seed, name) for name in TESTS}
    write_json(folder / f"scores-{options.test_seed}.json", found)
    columns = [f"{rate}, {name}" for name in TESTS for rate in ("CER", "WER")]
    print(f"| language | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
    for tag in LANGUAGES:
        rates = [one["languages"][tag][rate] for one in found.values() for rate in ("cer", "wer")]
        print(f"| {tag} | {' | '.join(percent(Rate(**rate)) for rate in rates)} |")
    for name, one in found.items():
        print(f"language recognised, {name}: {100 * one['language_id']['accuracy']:.1f} %")


if __name__ == "__main__":
    main()
