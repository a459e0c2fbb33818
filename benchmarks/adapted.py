"""Whether something costs accuracy: adapters of `mini`, trained in two ways and scored on the same speech."""

from benchmarks.measure import Row, Setting
from benchmarks.training import LANGUAGE
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import paired_bootstrap
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.jobs import Corpus, train_adapters
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.training.trainer import TrainConfig

N_TRAIN, N_TEST, EPOCHS, SEED = 120, 100, 2, 2606
N_ROWS = 8
CONFIG = TrainConfig(epochs=EPOCHS, learning_rate=2e-3)
NOTE = (
    f"{LANGUAGE}, synthetic speech of the field domain, {N_TRAIN} utterances to train on, "
    f"{EPOCHS} epochs, {N_TEST} to score; 95 % interval by paired bootstrap over utterances"
)


def field_speech(setting: Setting) -> dict[str, list[Utterance]]:
    """What the adapters learn and hear, by split."""
    counts, folder = {"train": N_TRAIN, "test": N_TEST}, setting.folder / "speech"
    return {
        split: read_manifest(prepare_synthetic([LANGUAGE], split, count, SEED, folder, "field"))
        for split, count in counts.items()
    }


def heard(
    bank: AdapterBank, speech: dict[str, list[Utterance]], config: TrainConfig, setting: Setting, name: str
) -> EvaluationResult:
    """The test speech as the bank's adapter hears it after training."""
    folder = setting.folder / f"adapted-{name}"
    train_adapters(bank, [bank[LANGUAGE]], Corpus(speech["train"], []), config, folder)
    return evaluate(LoraWhisper(bank.backbone, bank), speech["test"])


def difference_row(
    name: str, results: dict[str, EvaluationResult], notes: tuple[str, ...], goal: float | None = None
) -> Row:
    """How much higher the CER of the second result is than that of the first; both by their names."""
    first, second = (result.counts(LANGUAGE, "character") for result in results.values())
    found = paired_bootstrap(first, second)
    rates = {f"{which}_cer": one.scores()[LANGUAGE].cer.rate for which, one in results.items()}
    off = found.difference
    figures = rates | {"p": found.p_value}
    return Row(
        name, None, off.low, off.high, goal, difference=off.rate, figures=figures, notes=(NOTE, *notes)
    )
