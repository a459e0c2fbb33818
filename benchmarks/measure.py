"""How anything is measured: variants in turns, in one process, after a warm-up, and their ratios.

Machines are noisy and differ; the ratio of two times taken one after the other does so much less. A row holds
the median of the ratios of all rounds, with the lowest and the highest one.
"""

import gc
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lora_whisper.memory import give_freed_memory_back, keep_freed_memory, peak_memory_bytes

MIB = 2**20


class MissingPeer(Exception):
    """A program to compare with, or something that it needs, is not installed; one line says which."""


@dataclass(frozen=True)
class Setting:
    """What is asked for on the command line.

    Attributes:
        quick: few utterances and rounds, one geometry.
        device: "cpu" or "cuda".
        folder: for backbones, adapters and converted models; thrown away afterwards.
        geometries: of the rows that are measured for several; empty for those that fit the time.
        memory: whether peak memory is measured in a full run.
    """

    quick: bool
    device: str
    folder: Path
    geometries: tuple[str, ...] = ()
    memory: bool = True

    def chosen(self, quick: Sequence[str], full: Sequence[str]) -> Sequence[str]:
        """The geometries of a topic: those asked for, or else its own for a quick or a full run."""
        return self.geometries or (quick if self.quick else full)

    def rounds(self, full: int) -> int:
        """How often variants take turns, after the warm-up."""
        return min(full, 2) if self.quick else full


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what is compared.
        ratio: how many times faster ours is, median of the rounds; None where that is not the question.
        low: smallest ratio seen; of a difference, the lower end of its interval.
        high: largest ratio seen, or the upper end.
        goal: what the project wants: a ratio no lower, a difference or a number of seconds no higher.
        difference: in place of a ratio: how far two results are apart.
        seconds: in place of a ratio: how long it takes.
        figures: what else was seen, by a name that holds the unit.
        notes: what a reader must know to judge the row.
    """

    name: str
    ratio: float | None
    low: float | None
    high: float | None
    goal: float | None
    difference: float | None = None
    seconds: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one. A difference counts from where it is certain."""
        if self.goal is None:
            return None
        if self.ratio is not None:
            return self.ratio >= self.goal
        if self.difference is not None:
            return (self.difference if self.low is None else self.low) <= self.goal
        return self.seconds is not None and self.seconds <= self.goal


@dataclass
class Variant:
    """One way to do a piece of work.

    Attributes:
        name: whose way.
        run: does it once and returns the seconds that count.
        warm_up: a shorter piece that meets the largest shapes; None for the work itself.
        theirs: whether it is a peer's, whose freed memory goes where it goes without us.
        figures: what else the last run showed.
        ready: whether it has been done once.
    """

    name: str
    run: Callable[[], float]
    warm_up: Callable[[], object] | None = None
    theirs: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    ready: bool = False

    def prepare(self) -> None:
        """Do it once without looking at the clock."""
        keep_freed_memory(not self.theirs)
        (self.warm_up or self.run)()
        self.ready = True

    def measured(self) -> float:
        """Do it once; the seconds that count."""
        keep_freed_memory(not self.theirs)
        return self.run()


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """The function, returning how many seconds it takes with the device's work finished."""

    def run() -> float:
        synchronize()
        began = time.perf_counter()
        function()
        synchronize()
        return time.perf_counter() - began

    return run


def synchronize() -> None:
    """Wait until a GPU, if there is one, has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(variants: Sequence[Variant], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round, by its name: warm up all, then run them in turns."""
    for variant in variants:
        if not variant.ready:
            variant.prepare()
    times: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            times[variant.name].append(variant.measured())
    return times


def ratio_row(
    name: str,
    theirs: Sequence[float],
    ours: Sequence[float],
    goal: float | None,
    figures: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Row:
    """How many times faster ours is, by the seconds of both in each round."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    seconds = {"theirs_s": statistics.median(theirs), "ours_s": statistics.median(ours)}
    return Row(
        name,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        goal,
        figures=seconds | dict(figures or {}),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Peaks:
    """Peak memory of variants, by name, in MiB; empty where it was not measured."""

    mib: Mapping[str, float]

    def of(self, theirs: str, ours: str) -> dict[str, float]:
        """Figures of two variants."""
        sides = {"theirs": theirs, "ours": ours}
        return {f"{side}_working_mib": self.mib[name] for side, name in sides.items() if name in self.mib}


def peaks(variants: Sequence[Variant], setting: Setting) -> Peaks:
    """The most that each variant holds while it meets its largest shapes, beyond what lay there before.

    So weights and libraries do not count. Not measured in a quick run, nor where the system does not tell.
    """
    on_cpu = setting.device == "cpu"
    if setting.quick or not setting.memory or (on_cpu and not _RESET_PEAK.exists()):
        return Peaks({})
    working_mib = _resident_mib if on_cpu else _allocated_mib
    return Peaks({one.name: working_mib(one) for one in variants})


_RESET_PEAK = Path("/proc/self/clear_refs")
"""Linux forgets a process's peak of resident memory when 5 is written here."""


def _resident_mib(variant: Variant) -> float:
    """On a CPU: of its first time."""
    gc.collect()
    give_freed_memory_back()
    _RESET_PEAK.write_text("5", encoding="ascii")
    before = peak_memory_bytes()
    variant.prepare()
    return (peak_memory_bytes() - before) / MIB


def _allocated_mib(variant: Variant) -> float:
    """On a GPU: of another time than the first, in which libraries make room for themselves."""
    if not variant.ready:
        variant.prepare()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    variant.prepare()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def require(*modules: str, remedy: str) -> None:
    """Make sure that peers can be imported.

    Raises:
        MissingPeer: one is not installed.
    """
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingPeer(f"{', '.join(absent)} not installed; {remedy}")
