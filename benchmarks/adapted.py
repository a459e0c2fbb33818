"""Whether something costs accuracy: adapters of `mini`, trained in two ways and scored on the same speech.

Two trainings differ by chance, more than the utterances of one test tell (docs/log.md). So there are several
pairs, each with texts, voices and a training of its own, and it is pairs that the interval draws.
"""

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.measure import Row, Setting
from benchmarks.training import LANGUAGE
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import ErrorCounts, paired_bootstrap
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.jobs import Corpus, train_adapters
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.training.trainer import TrainConfig

N_TRAIN, N_TEST, EPOCHS = 40, 40, 2
SEEDS = (2606, 2607, 2608, 2609)
N_ROWS = 8
CONFIG = TrainConfig(epochs=EPOCHS, learning_rate=2e-3)
NOTE = (
    f"{LANGUAGE}, synthetic speech of the field domain, {N_TRAIN} utterances to train on, "
    f"{EPOCHS} epochs, {N_TEST} to score, {len(SEEDS)} times; 95 % interval by paired bootstrap over these"
)


Speech = Mapping[str, list[Utterance]]
"""What an adapter learns and hears, by split."""

Way = Callable[[Speech, str], EvaluationResult]
"""Trains an adapter on the speech and scores it; what it is called must occur once."""


def results(ways: Mapping[str, Way], setting: Setting) -> dict[str, list[EvaluationResult]]:
    """What each way comes to with the speech of each seed, by its name."""
    found: dict[str, list[EvaluationResult]] = {name: [] for name in ways}
    for seed in SEEDS:
        speech = _field_speech(seed, setting)
        for name, way in ways.items():
            found[name].append(way(speech, f"{name}-{seed}"))
    return found


def _field_speech(seed: int, setting: Setting) -> Speech:
    prepare = partial(prepare_synthetic, [LANGUAGE], seed=seed, domain="field")
    folder = setting.folder / f"speech-{seed}"
    counts = {"train": N_TRAIN, "test": N_TEST}
    return {split: read_manifest(prepare(split, count, out=folder)) for split, count in counts.items()}


def heard(
    bank: AdapterBank, speech: Speech, config: TrainConfig, setting: Setting, name: str
) -> EvaluationResult:
    """The test speech as the bank's adapter hears it after training."""
    folder = setting.folder / f"adapted-{name}"
    train_adapters(bank, [bank[LANGUAGE]], Corpus(speech["train"], []), config, folder)
    return evaluate(LoraWhisper(bank.backbone, bank), speech["test"])


def difference_row(
    name: str,
    pair: Mapping[str, list[EvaluationResult]],
    notes: tuple[str, ...],
    goal: float | None = None,
) -> Row:
    """How much higher the CER of the second results is than that of the first; both by their names."""
    counts = {which: [_counted(one) for one in several] for which, several in pair.items()}
    found = paired_bootstrap(*counts.values())
    rates = {f"{which}_cer": sum(several, ErrorCounts()).rate for which, several in counts.items()}
    off = found.difference
    return Row(
        name,
        None,
        off.low,
        off.high,
        goal,
        difference=off.rate,
        figures=rates | {"p": found.p_value},
        notes=(NOTE, *notes),
    )


def _counted(result: EvaluationResult) -> ErrorCounts:
    return sum(result.counts(LANGUAGE, "character"), ErrorCounts())
