"""Make the bundled backbone `mini` from nothing: `python recipes/mini.py` (hours on two cores; resumable).

Eight stages: clean speech in sixteen languages until attention finds the audio; then any timbre, any word,
noise, echo, times, prompts and silence, eight languages covered well and eight thinly; then more, more with
rarer words, nothing twice, thousands of names, and at last proper names by the decoder alone, in the end
mostly hard ones. Writes runs/mini/backbone, the last stage's loss curve, and its scores on speech of unseen
voices and texts. To bundle it, copy that folder to lora_whisper/assets/mini and run
`recipes/alignment_heads.py --write --backbone lora_whisper/assets/mini`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lora_whisper.data.manifest import read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import Rate
from lora_whisper.evaluation.plots import Line, curves, standalone
from lora_whisper.evaluation.report import percent
from lora_whisper.files import write_json, write_text
from lora_whisper.model.checkpoint import save_backbone
from lora_whisper.training.curriculum import Curriculum
from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitors
from lora_whisper.training.pretraining import Pretraining, Stage, pretrain
from lora_whisper.training.trainer import TrainConfig

WELL_COVERED = ("en", "de", "es", "fr", "it", "pt", "pl", "nl")
THINLY_COVERED = ("sv", "fi", "da", "el", "cy", "ja", "zh", "tr")
LANGUAGES = WELL_COVERED + THINLY_COVERED

RECIPE = Pretraining(LANGUAGES, language_weight=3.0)
LEARNING = TrainConfig(
    epochs=2,
    learning_rate=1.6e-3,
    warmup=0.03,
    weight_decay=0.01,
    batch_s=120.0,
    save_every=500,
    spec_augment=True,
    optimizer="muon",
)
"""How most stages are learned."""
RARE_WORDS = Curriculum(
    {
        "en": 26000,
        "fr": 28000,
        "nl": 20000,
        "es": 17000,
        "it": 17000,
        "de": 17000,
        "pt": 16000,
        "pl": 13000,
    }
    | dict.fromkeys(THINLY_COVERED, 900),
    joined=0.05,
    words=0.6,
    listed=0.65,
    n_words=80_000,
    timbres=0.75,
    perturbed=0.35,
    timestamped=0.25,
    prompted=0.06,
    extended=0.06,
    silent=0.01,
    speeds_wpm=(130, 260),
    word_languages=WELL_COVERED,
)
"""What the later stages have in common: mostly rare words, by many voices."""
PROPER_NAMES = Stage(
    replace(
        RARE_WORDS,
        utterances={
            "fr": 22000,
            "en": 20000,
            "nl": 7000,
            "pt": 7000,
            "de": 6000,
            "es": 5500,
            "it": 4500,
            "pl": 4500,
        }
        | dict.fromkeys(THINLY_COVERED, 300)
        | {"zh": 750, "ja": 400},
        joined=0.03,
        words=0.72,
        listed=0.75,
        proper=0.8,
        mingled=0.6,
        n_words=40_000,
        named=0.55,
        timbres=0.7,
        perturbed=0.3,
        timestamped=0.15,
        prompted=0.04,
        extended=0.03,
        speeds_wpm=(150, 260),
        identified=0.9,
    ),
    replace(LEARNING, epochs=3, batch_s=90.0, spec_augment=False),
    kept=0.25,
    decoder_only=True,
    more_text_layers=1,
)
"""The decoder alone, and a block more of it: names that everybody knows, so often that they stay."""
STAGES = (
    Stage(  # clean speech, all languages alike: attention finds the audio
        Curriculum(dict.fromkeys(LANGUAGES, 5000)),
        TrainConfig(
            epochs=2, learning_rate=1.5e-3, warmup=0.05, weight_decay=0.01, batch_s=120.0, save_every=500
        ),
    ),
    Stage(  # any timbre, any word, noise and echo, times and prompts; eight languages more than the rest
        Curriculum(
            dict.fromkeys(WELL_COVERED, 6700) | dict.fromkeys(THINLY_COVERED, 1050),
            joined=0.06,
            words=0.4,
            timbres=0.5,
            perturbed=0.5,
            timestamped=0.3,
            prompted=0.08,
            extended=0.1,
            silent=0.015,
            word_languages=WELL_COVERED,
        ),
        replace(LEARNING, learning_rate=2e-3),
    ),
    Stage(  # more of it, most where spelling is hardest, spoken faster and by more people
        Curriculum(
            {"en": 9500, "fr": 9500, "es": 8300, "nl": 8300, "de": 7800, "it": 7800, "pt": 7800, "pl": 6000}
            | dict.fromkeys(THINLY_COVERED, 700),
            joined=0.05,
            words=0.45,
            timbres=0.65,
            perturbed=0.45,
            timestamped=0.3,
            prompted=0.08,
            extended=0.08,
            silent=0.01,
            speeds_wpm=(130, 250),
            word_languages=WELL_COVERED,
        ),
        LEARNING,
    ),
    Stage(  # rarer words, and words written like names: spelling is what is still hard
        replace(
            RARE_WORDS,
            utterances={
                "en": 15000,
                "fr": 15000,
                "pt": 11500,
                "nl": 10500,
                "es": 9500,
                "de": 9500,
                "it": 8500,
                "pl": 7500,
            }
            | dict.fromkeys(THINLY_COVERED, 500),
            words=0.5,
            listed=0.5,
            timbres=0.65,
            perturbed=0.4,
        ),
        LEARNING,
    ),
    Stage(RARE_WORDS, replace(LEARNING, epochs=1)),  # nothing twice: it must hold for other words and voices
    Stage(  # thousands of names of languages and places, most where their spelling is hardest to hear
        replace(
            RARE_WORDS,
            utterances={
                "fr": 38000,
                "en": 36000,
                "nl": 20000,
                "de": 12000,
                "es": 12000,
                "it": 12000,
                "pt": 12000,
                "pl": 10000,
            }
            | dict.fromkeys(THINLY_COVERED, 120)
            | {"zh": 800, "ja": 500},
            words=0.45,
            listed=0.5,
            named=0.75,
        ),
        replace(LEARNING, epochs=1),
        kept=0.5,
    ),
    PROPER_NAMES,
    replace(PROPER_NAMES, kept=0.5, hard_names=True, more_text_layers=0),  # those still misspelled, oftener
)
TEST_UTTERANCES, TEST_SEED = 100, 12345
TESTS: dict[str, dict[str, Any]] = {
    "known words": {"words": "known"},
    "new words": {},
    "new words, perturbed": {"perturbed": True},
}
"""All of unseen voices and texts, as arguments of `prepare_synthetic`."""
SMOOTHED_STEPS = 200


def scores(backbone: Path, folder: Path, seed: int, name: str) -> dict[str, Any]:
    """CER and WER of each language, and how often the language itself is recognised, on fresh test speech."""
    manifest = prepare_synthetic(
        LANGUAGES, "test", TEST_UTTERANCES, seed, folder / f"seed-{seed}-{name}", **TESTS[name]
    )
    asr, utterances = LoraWhisper(backbone), read_manifest(manifest)
    told = evaluate(asr, utterances).summary()
    recognised = evaluate(asr, utterances, language="auto").summary()
    return {**told, "language_id": recognised["language_id"]}


def curve(log: Path) -> str:
    """SVG of a stage's losses over its epochs: of training (means of `SMOOTHED_STEPS`) and development."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    steps = {event["step"]: event["losses"]["full"] for event in events if event["event"] == "step"}
    epochs = [event for event in events if event["event"] == "epoch"]
    per_epoch = epochs[0]["step"]
    bins: dict[int, list[tuple[float, float]]] = {}
    for step, loss in steps.items():
        bins.setdefault(step // SMOOTHED_STEPS, []).append((step / per_epoch, loss))
    x, y = (tuple(fmean(pair[i] for pair in pairs) for pairs in bins.values()) for i in (0, 1))
    training = Line("training", x, y)
    scored = [event["scores"]["loss"] for event in epochs]
    return standalone(
        curves([training, Line("development", list(range(1, len(scored) + 1)), scored)], "loss")
    )


def main() -> None:
    """Pre-train unless that is done, then score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mini"))
    parser.add_argument("--test-seed", type=int, default=TEST_SEED)
    options = parser.parse_args()
    folder: Path = options.out
    made = pretrain(RECIPE, STAGES, folder, lambda stage: Monitors(ConsoleMonitor(), LogMonitor(stage)))
    save_backbone(made, folder / "backbone")
    stage = folder / f"stage-{len(STAGES)}"
    if (stage / "log.jsonl").exists():
        write_text(folder / "curve.svg", curve(stage / "log.jsonl"))
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
