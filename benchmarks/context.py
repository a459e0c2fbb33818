"""What short windows bring, and whether they cost anything: at their own length against padded to 30 s."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import get_args

import torch

from benchmarks.measure import Row, Setting, Variant, alternate, ratio_row, timed
from benchmarks.training import LANGUAGE, Clock, train_once
from benchmarks.workload import LORA, MINI, TINY, backbone, row_of, utterances
from lora_whisper.audio import AudioContext
from lora_whisper.data.batching import FixedRows, collate
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import paired_bootstrap
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.jobs import Corpus, train_adapters
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.training.trainer import TrainConfig

N_ROWS, LENGTH_S = 8, 10.0
N_TRAIN, N_TEST, EPOCHS, SEED = 120, 100, 2, 2606
CER_CONFIG = TrainConfig(epochs=EPOCHS, learning_rate=2e-3)


def measure(setting: Setting) -> Iterator[Row]:
    """The rows."""
    for geometry in setting.chosen((TINY,), (TINY,)):
        one = backbone(geometry, setting.folder, setting.device)
        yield _both("encoding", geometry, one, _encoding, setting)
        yield _both("training", geometry, one, _training, setting)
    if not setting.quick:
        yield _cer(setting)


def _both(
    what: str,
    geometry: str,
    one: Backbone,
    work: Callable[[Backbone, AudioContext], Callable[[], float]],
    setting: Setting,
) -> Row:
    variants = [Variant(context, work(one, context)) for context in get_args(AudioContext)]
    times = alternate(variants, setting.rounds(5))
    name = f"{what}, {geometry}, {N_ROWS} utterances of {LENGTH_S:.0f} s at their own length, against 30 s"
    return ratio_row(name, times["full"], times["dynamic"], None, notes=("ours on both sides",))


def _encoding(one: Backbone, context: AudioContext) -> Callable[[], float]:
    rows = [row_of(each, one, context) for each in utterances(N_ROWS, [LANGUAGE], length_s=LENGTH_S)]
    batch = collate(rows).to(one.model.device)

    @torch.inference_mode()
    def encode() -> None:
        one.model.encode(batch.mel, batch.n_positions)

    return timed(encode)


def _training(one: Backbone, context: AudioContext) -> Callable[[], float]:
    rows = [row_of(each, one, context) for each in utterances(N_ROWS, [LANGUAGE], length_s=LENGTH_S)]
    config = TrainConfig(epochs=1, batch_s=30.0 * N_ROWS)  # one step

    def step() -> float:
        clock = Clock()
        train_once(one, FixedRows(rows), config, clock)
        return clock.times[-1] - clock.times[0]

    return step


def _cer(setting: Setting) -> Row:
    """How much higher the CER is where an adapter was trained and decodes at short context."""
    counts = {"train": N_TRAIN, "test": N_TEST}
    folder = setting.folder / "speech"
    speech = {
        split: read_manifest(prepare_synthetic([LANGUAGE], split, count, SEED, folder, "field"))
        for split, count in counts.items()
    }
    results = [_adapted(context, speech, setting) for context in get_args(AudioContext)]
    full, dynamic = (result.counts(LANGUAGE, "character") for result in results)
    difference = paired_bootstrap(full, dynamic)
    rates = [result.scores()[LANGUAGE].cer.rate for result in results]
    return Row(
        "CER, mini, adapters at short context minus adapters at full context",
        None,
        difference.difference.low,
        difference.difference.high,
        0.0,
        difference=difference.difference.rate,
        figures={"full_cer": rates[0], "short_cer": rates[1], "p": difference.p_value},
        notes=(
            f"{LANGUAGE}, synthetic speech of the field domain, {N_TRAIN} utterances to train on, "
            f"{EPOCHS} epochs, {N_TEST} to score; 95 % interval by paired bootstrap over utterances",
            "no worse: the interval reaches zero or below",
        ),
    )


def _adapted(context: AudioContext, speech: dict[str, list[Utterance]], setting: Setting) -> EvaluationResult:
    """The test speech as an adapter hears it that was trained at this context."""
    one = load_backbone(MINI, setting.device)
    bank = AdapterBank(one)
    adapter = bank.add(LANGUAGE, LORA)
    adapter.info = replace(adapter.info, audio_context=context)
    spoken_s = [one.duration_s or 30.0 for one in speech["train"]]
    row_s = 30.0 if context == "full" else sum(spoken_s) / len(spoken_s)
    config = replace(CER_CONFIG, batch_s=N_ROWS * row_s)  # as many rows in a step in both contexts
    train_adapters(
        bank, [adapter], Corpus(speech["train"], []), config, setting.folder / f"adapted-{context}"
    )
    return evaluate(LoraWhisper(one, bank), speech["test"])
