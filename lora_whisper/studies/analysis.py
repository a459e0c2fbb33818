"""What the runs of a study say, from their files alone. No torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.metrics import ErrorCounts, Rate, Unit
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.evaluation.significance import holm
from lora_whisper.languages import language

RESAMPLES = 2000
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A finished run: its results and what `run.json` says of it."""

    told: EvaluationResult
    recognised: EvaluationResult | None
    facts: Mapping[str, Any]

    @cached_property
    def counts(self) -> dict[tuple[str, Unit], list[ErrorCounts]]:
        """Error counts of each utterance, by language and unit."""
        tags = {one.language for one in self.told.utterances}
        units: tuple[Unit, ...] = ("word", "character")
        return {(tag, unit): self.told.counts(tag, unit) for tag in tags for unit in units}

    def rate(self, tag: str, unit: Unit) -> float:
        """Corpus-level error rate of a language."""
        return sum(self.counts[tag, unit], ErrorCounts()).rate


@dataclass(frozen=True)
class System:
    """The runs of one arm, one a seed."""

    name: str
    about: str
    runs: tuple[Run, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that it was scored on."""
        return tuple(dict.fromkeys(one.language for one in self.runs[0].told.utterances))

    def mean(self, tags: Sequence[str], unit: Unit) -> "Spread":
        """Mean rate over languages, of each seed."""
        return Spread.of([fmean(run.rate(tag, unit) for tag in tags) for run in self.runs])

    def recognised(self, tags: Sequence[str], unit: Unit) -> "Spread | None":
        """The same where the language is recognised, not told."""
        if any(run.recognised is None for run in self.runs):
            return None
        runs = [replace(run, told=run.recognised) for run in self.runs if run.recognised]
        return System(self.name, self.about, tuple(runs)).mean(tags, unit)

    def fact(self, name: str) -> "Spread":
        """A cost of its runs."""
        return Spread.of([float(run.facts[name]) for run in self.runs])


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds; the latter is 0 for one seed alone."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of these values, one a seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class Gain:
    """How much less a system errs than a baseline, as a share of the baseline's mean rate over languages.

    Attributes:
        system: its name.
        baseline: name of what it is compared with.
        unit: of the errors.
        relative: the gain with its 95 % interval; 0.2 is a fifth of the errors gone.
        p: two-sided, by bootstrap over speakers or utterances.
        p_adjusted: the same after Holm's correction for all comparisons of its table.
    """

    system: str
    baseline: str
    unit: Unit
    relative: Rate
    p: float
    p_adjusted: float


def load_system(root: Path, name: str, seeds: Sequence[int]) -> System:
    """The runs of an arm.

    Raises:
        UsageError: a run has not been done.
    """
    runs = []
    for seed in seeds:
        folder = root / f"seed-{seed}" / name
        if not (folder / "run.json").exists():
            raise UsageError(f"{folder}: not done yet; run the study again, it goes on where it stopped")
        recognised = folder / "recognised.json"
        runs.append(
            Run(
                EvaluationResult.load(folder / "told.json"),
                EvaluationResult.load(recognised) if recognised.exists() else None,
                json.loads((folder / "run.json").read_text(encoding="utf-8")),
            )
        )
    return System(name, runs[0].facts["about"], tuple(runs))


def word_languages(tags: Sequence[str]) -> list[str]:
    """Those that are scored in words."""
    return [tag for tag in tags if language(tag).unit == "word"]


def gains(systems: Sequence[System], baseline: System, tags: Sequence[str], unit: Unit) -> list[Gain]:
    """The gain of each system over the baseline, with p-values corrected for their number."""
    found = [_gain(system, baseline, tags, unit) for system in systems]
    adjusted = holm([one.p for one in found])
    return [replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def _gain(system: System, baseline: System, tags: Sequence[str], unit: Unit) -> Gain:
    """Languages are weighed alike; within each, whole speakers are drawn, the same for both systems."""
    rng = np.random.default_rng(0)
    ours, theirs = (np.zeros(RESAMPLES + 1) for _ in range(2))
    for tag in tags:
        table = _table(system, baseline, tag, unit)
        weights = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), RESAMPLES)
        sums = np.vstack([np.ones(len(table)), weights]) @ table  # the first row: all, once
        ours += sums[:, 0] / sums[:, 1]
        theirs += sums[:, 2] / sums[:, 3]
    relative = 1 - ours / np.maximum(theirs, 1e-12)
    low, high = np.quantile(relative[1:], [0.025, 0.975])
    tail = min(int((relative[1:] <= 0).sum()), int((relative[1:] >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))
    rate = Rate(float(relative[0]), float(low), float(high))
    return Gain(system.name, baseline.name, unit, rate, p, p)


def _table(system: System, baseline: System, tag: str, unit: Unit) -> _Floats:
    """Errors and lengths of both (blocks, 4), summed over seeds and within each speaker."""
    _check_same(system, baseline, tag)
    rows = np.zeros((len(system.runs[0].counts[tag, unit]), 4))
    for column, one in ((0, system), (2, baseline)):
        for run in one.runs:
            pairs = [(count.errors, count.reference_length) for count in run.counts[tag, unit]]
            rows[:, column : column + 2] += np.array(pairs) / len(one.runs)
    _, block = np.unique(np.array(system.runs[0].told.groups(tag)), return_inverse=True)
    table = np.zeros((block.max() + 1, 4))
    np.add.at(table, block, rows)
    return table


def _check_same(system: System, baseline: System, tag: str) -> None:
    """Refuse to compare scores of different utterances."""
    heard = [
        [one.id for one in run.told.utterances if one.language == tag]
        for run in (*system.runs, *baseline.runs)
    ]
    if any(ids != heard[0] for ids in heard) or not heard[0]:
        raise UsageError(f"{system.name} and {baseline.name} were scored on other utterances in {tag}")


def chosen(systems: Sequence[System], tags: Sequence[str], name: str) -> System:
    """For each seed and language the system with the lowest development CER, as one system.

    Args:
        systems: to choose from; each trained the languages one by one.
        tags: the languages.
        name: of the choice.
    """
    runs = []
    for seed in range(len(systems[0].runs)):
        at_seed = [system.runs[seed] for system in systems]
        best = {tag: min(at_seed, key=lambda run: _dev_cer(run, tag)) for tag in tags}
        utterances = tuple(u for tag in tags for u in best[tag].told.utterances if u.language == tag)
        choices = {tag: next(s.name for s in systems if s.runs[seed] is best[tag]) for tag in tags}
        runs.append(Run(replace(at_seed[0].told, utterances=utterances), None, {"choices": choices}))
    return System(name, "the best of the three on development speech", tuple(runs))


def _dev_cer(run: Run, tag: str) -> float:
    """The lowest development CER of a language's own training."""
    return min(float(epoch["cer"]) for epoch in run.facts["epochs"][tag])


def steps_to(run: Run, tag: str, target: float) -> int | None:
    """Steps until the development CER of a language was at most `target`; None if it never was."""
    return next((int(one["step"]) for one in run.facts["epochs"][tag] if one["cer"] <= target), None)


@dataclass(frozen=True)
class Forgetting:
    """What a system did to the languages that were there before.

    Attributes:
        system: its name.
        before: mean CER of the old languages before.
        after: the same afterwards.
        rewritten: share of their transcripts that are not the same, letter for letter.
    """

    system: str
    before: Spread
    after: Spread
    rewritten: float

    @property
    def backward_transfer(self) -> float:
        """Change of the mean CER in percentage points; above zero something was forgotten."""
        return 100 * (self.after.mean - self.before.mean)


def forgetting(system: System, before: System, tags: Sequence[str]) -> Forgetting:
    """Old languages before and after new ones were learned."""
    changed = total = 0
    for new, old in zip(system.runs, before.runs, strict=True):
        texts = {one.id: one.hypothesis for one in old.told.utterances if one.language in tags}
        pairs = [(one.hypothesis, texts[one.id]) for one in new.told.utterances if one.id in texts]
        changed, total = changed + sum(a != b for a, b in pairs), total + len(pairs)
    old_rate, new_rate = (one.mean(tags, "character") for one in (before, system))
    return Forgetting(system.name, old_rate, new_rate, changed / max(total, 1))
