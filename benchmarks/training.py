"""Training: seconds of audio a second, ours against transformers' `Seq2SeqTrainer` with PEFT.

One pass over the same utterances with the same LoRA and about as many rows in a step: theirs as its users run
it (fp32, features made as they go) and at its best (bf16, rows of similar length together, features ready).
Ours has its own defaults (precision "auto", windows as long as the speech) and gets its features in the same
way as the variant beside it. What trainers do before their loop and after it does not count.
"""

import gc
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import peers_transformers as peers
from benchmarks.machine import trains_in_bf16
from benchmarks.measure import Row, Setting, Variant, alternate, peaks, ratio_row
from benchmarks.workload import (
    LORA,
    SMALL,
    TINY,
    FreshRows,
    Speech,
    backbone,
    backbone_folder,
    row_of,
    utterances,
)
from lora_whisper.data.batching import COARSE, FINE, FixedRows, JoinedRows, RowSource, plan_batches
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.tokenizer import Tokenizer
from lora_whisper.training.methods import language_lora
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import StepReport
from lora_whisper.training.trainer import TrainConfig, train

LANGUAGE = "pl"
USERS, BEST = "transformers + PEFT as its users run it", "transformers + PEFT at its best"
OURS_FRESH, OURS = "ours, features as it goes", "ours, features ready"
GOALS = {USERS: 8.0, BEST: 3.5}
GPU_GOAL = 4.0
CPU_ROWS, LARGE_CPU_ROWS, GPU_ROWS = 8, 4, 16
"""Rows of a step, theirs exactly, ours in the mean: on a CPU for the smallest geometry, for others and in a
quick run, on a GPU."""
STEPS, QUICK_STEPS, GPU_STEPS = 2, 1, 12
CONFIG = TrainConfig(epochs=1)
"""Ours: the defaults, precision "auto" among them."""
GPU_PASSES, GPU_COUNTED = 10, 4
"""On a GPU ours records a step when a batch of its shape comes for the second time. So it passes over the
speech ten times, in one epoch; what the last four take counts, as of theirs the steps behind the first one.
What recording took in all is a figure of its own."""
GPU_WARM_UP = 3
"""Passes after which the largest batch has been recorded."""


class Clock(Monitor):
    """Looks at the clock when the loop begins and after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def start(self, states: object) -> None:  # noqa: ARG002
        """The loop begins."""
        self.times.append(time.perf_counter())

    def step(self, report: StepReport) -> None:  # noqa: ARG002
        """A step is done; its loss has been read, so a GPU has done it too."""
        self.times.append(time.perf_counter())


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of each geometry."""
    for geometry in setting.chosen((TINY,), (TINY, SMALL)):
        yield from _geometry(geometry, setting)
        gc.collect()


def variant(name: str, geometry: str, setting: Setting) -> Variant:
    """One way to train a geometry, models loaded."""
    return (_ours if name in (OURS, OURS_FRESH) else _theirs)(name, geometry, setting)


def train_once(one: Backbone, rows: RowSource, config: TrainConfig, clock: Monitor) -> None:
    """Train a new adapter on the rows with our trainer; nothing is left of it."""
    bank = AdapterBank(one)
    adapter = bank.add(LANGUAGE, LORA)
    folder = Path(tempfile.mkdtemp())
    try:
        train(one.model, [language_lora(adapter, rows, None)], config, folder, monitor=clock)
    finally:
        shutil.rmtree(folder)
        bank.remove(LANGUAGE)


def _geometry(geometry: str, setting: Setting) -> Iterator[Row]:
    pairs = _pairs(geometry, setting)
    names = (*pairs, *pairs.values())
    variants = [variant(name, geometry, setting) for name in names]
    memory = peaks(variants, setting)
    times = alternate(variants, setting.rounds(2))
    audio_s = sum(one.duration_s for one in _speech(geometry, setting))
    for theirs, ours in pairs.items():
        speeds = {
            "theirs_audio_s_per_s": audio_s / statistics.median(times[theirs]),
            "ours_audio_s_per_s": audio_s / statistics.median(times[ours]),
        }
        goal = GOALS[theirs] if setting.device == "cpu" else GPU_GOAL
        name = f"training, {geometry}, against {theirs}"
        figures = speeds | memory.of(theirs, ours) | variants[names.index(ours)].figures
        yield ratio_row(name, times[theirs], times[ours], goal, figures, _notes(theirs, geometry, setting))


def _pairs(geometry: str, setting: Setting) -> dict[str, str]:
    """Their variants and ours beside each.

    On a GPU nobody trains in fp32; on two cores a step of a larger geometry in fp32 takes about a minute.
    """
    as_used = setting.device == "cpu" and geometry == TINY
    return ({USERS: OURS_FRESH} if as_used else {}) | {BEST: OURS}


def _speech(geometry: str, setting: Setting) -> list[Speech]:
    """What everybody trains on."""
    steps = GPU_STEPS if setting.device != "cpu" else QUICK_STEPS if setting.quick else STEPS
    return utterances(steps * _n_rows(geometry, setting), [LANGUAGE])


def _n_rows(geometry: str, setting: Setting) -> int:
    if setting.device != "cpu":
        return GPU_ROWS
    return CPU_ROWS if geometry == TINY and not setting.quick else LARGE_CPU_ROWS


def budget_s(durations_s: Sequence[float], n_rows: int, on_gpu: bool = False) -> float:
    """Budget of a batch of ours with which there are as many steps as with `n_rows` rows in each."""
    budget = n_rows * sum(durations_s) / len(durations_s)
    while len(_plan(durations_s, budget, on_gpu)) > -(-len(durations_s) // n_rows):
        budget *= 1.02
    return budget


def _plan(durations_s: Sequence[float], budget: float, on_gpu: bool) -> list[list[int]]:
    """The batches of ours."""
    padding = replace(COARSE, budget_s=budget) if on_gpu else FINE
    return plan_batches(durations_s, budget, CONFIG.seed, epoch=0, padding=padding)


def _ours(name: str, geometry: str, setting: Setting) -> Variant:
    one = backbone(geometry, setting.folder, setting.device)
    speech = _speech(geometry, setting)
    ready = name == OURS
    rows = FixedRows([row_of(each, one) for each in speech]) if ready else FreshRows(speech, one)
    on_gpu = setting.device != "cpu"
    passes, counted = (GPU_PASSES, GPU_COUNTED) if on_gpu else (1, 1)
    source = JoinedRows([rows] * passes)
    budget = budget_s(source.durations_s, _n_rows(geometry, setting), on_gpu)
    config = replace(CONFIG, batch_s=budget)
    n_steps = len(_plan(source.durations_s, budget, on_gpu))
    n_counted = round(n_steps * counted / passes)

    def run(figures: dict[str, float]) -> float:
        clock = Clock()
        train_once(one, source, config, clock)
        step_s = (clock.times[-1] - clock.times[-1 - n_counted]) / n_counted
        if on_gpu:
            figures["ours_recording_s"] = clock.times[-1] - clock.times[0] - n_steps * step_s
        return step_s * n_steps / passes

    def warm_up() -> None:
        train_once(one, JoinedRows([rows] * GPU_WARM_UP), config, Clock())

    made = Variant(name, lambda: run(made.figures), warm_up if on_gpu else None)
    return made


def _theirs(name: str, geometry: str, setting: Setting) -> Variant:
    peers.available()
    folder, best = backbone_folder(geometry, setting.folder), name == BEST
    tokenizer = Tokenizer.load(Path(folder))
    features = peers.extractor(folder)
    model = peers.with_new_adapter(peers.load(folder, setting.device))
    collator = peers.Collator(features, tokenizer.sot)
    bf16 = best and trains_in_bf16(setting.device)
    n_rows = _n_rows(geometry, setting)
    training = peers.Training(n_rows, bf16, best, setting.device, setting.folder / "trainer")

    def epoch_of(speech: Sequence[Speech]) -> float:
        return peers.train_epoch(model, examples[len(speech)], collator, training)

    speech = _speech(geometry, setting)
    sets = speech, speech[-n_rows:]  # all; one batch, the shapes are always the same
    examples = {len(one): peers.Examples(one, tokenizer, features, best) for one in sets}
    return Variant(name, lambda: epoch_of(sets[0]), lambda: epoch_of(sets[1]), theirs=True)


def _notes(theirs: str, geometry: str, setting: Setting) -> tuple[str, ...]:
    rows = _n_rows(geometry, setting)
    shape = f"LoRA of rank {LORA.rank} in six modules; {rows} rows a step (ours: {rows} in the mean)"
    if theirs == USERS:
        return (
            shape,
            "theirs: Seq2SeqTrainer, fp32, random order; features computed as it goes on both sides",
        )
    return (
        shape,
        "theirs: Seq2SeqTrainer, bf16 if the hardware has it, group by length; features ready on both sides",
        "their encoder takes 30 s and nothing else, so length groups spare the decoder only",
        *(_GPU_NOTES if setting.device != "cpu" else ()),
    )


_GPU_NOTES = (
    "theirs: the first step, which also starts the loaders, counts as long as the others",
    "ours: the last four of ten passes; steps are recorded as CUDA graphs in the first ones, once a training",
)
