"""What short windows bring, and whether they cost anything: at their own length against padded to 30 s."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import get_args

import torch

from benchmarks.adapted import CONFIG, N_ROWS, Speech, difference_row, heard, results
from benchmarks.measure import Row, Setting, Variant, alternate, ratio_row, timed
from benchmarks.training import LANGUAGE, Clock, train_once
from benchmarks.workload import LORA, MINI, TINY, backbone, row_of, utterances
from lora_whisper.audio import AudioContext
from lora_whisper.data.batching import FixedRows, collate
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.training.trainer import TrainConfig

LENGTH_S = 10.0


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
    times = alternate(variants, setting.rounds(2))
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
    contexts: dict[str, AudioContext] = {"full": "full", "short": "dynamic"}
    ways = {name: partial(_adapted, context, setting) for name, context in contexts.items()}
    name = "CER, mini, adapters at short context minus adapters at full context"
    notes = ("no worse: the interval reaches zero or below",)
    return difference_row(name, results(ways, setting), notes, goal=0.0)


def _adapted(context: AudioContext, setting: Setting, speech: Speech, name: str) -> EvaluationResult:
    """The test speech as an adapter hears it that was trained at this context."""
    bank = AdapterBank(load_backbone(MINI, setting.device))
    adapter = bank.add(LANGUAGE, LORA)
    adapter.info = replace(adapter.info, audio_context=context)
    spoken_s = [one.duration_s or 30.0 for one in speech["train"]]
    row_s = 30.0 if context == "full" else sum(spoken_s) / len(spoken_s)
    config = replace(CONFIG, batch_s=N_ROWS * row_s)  # as many rows in a step in both contexts
    return heard(bank, speech, config, setting, name)
