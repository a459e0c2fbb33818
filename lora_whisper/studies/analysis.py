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
from lora_whisper.evaluation.significance import holm, matched_pairs
from lora_whisper.languages import language

RESAMPLES = 2000
_Counts = npt.NDArray[np.int64]


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
        pairs_p: two-sided, by the matched-pairs test: errors of all languages and seeds in each utterance.
        pairs_p_adjusted: the same after Holm's correction.
    """

    system: str
    baseline: str
    unit: Unit
    relative: Rate
    p: float
    p_adjusted: float
    pairs_p: float
    pairs_p_adjusted: float


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
    return corrected([_gain(system, baseline, tags, unit) for system in systems])


def corrected(found: Sequence[Gain]) -> list[Gain]:
    """The gains with their p-values corrected for their number."""
    ours, pairs = holm([one.p for one in found]), holm([one.pairs_p for one in found])
    return [
        replace(one, p_adjusted=p, pairs_p_adjusted=q) for one, p, q in zip(found, ours, pairs, strict=True)
    ]


def _gain(system: System, baseline: System, tags: Sequence[str], unit: Unit) -> Gain:
    """Languages are weighed alike; within each, whole speakers are drawn, the same for both systems."""
    rng = np.random.default_rng(0)
    ours, theirs = (np.zeros(RESAMPLES + 1) for _ in range(2))
    differences: list[int] = []
    for tag in tags:
        _check_same(system, baseline, tag)
        mine, other = (_errors(one, tag, unit) for one in (system, baseline))
        differences += (other[:, 0] - mine[:, 0]).tolist()
        table = _by_speaker(system, tag, np.hstack([mine, other]))
        weights = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), RESAMPLES)
        sums = np.vstack([np.ones(len(table)), weights]) @ table  # the first row: all, once
        ours += sums[:, 0] / sums[:, 1]
        theirs += sums[:, 2] / sums[:, 3]
    relative = 1 - ours / np.maximum(theirs, 1e-12)
    low, high = np.quantile(relative[1:], [0.025, 0.975])
    tail = min(int((relative[1:] <= 0).sum()), int((relative[1:] >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))
    rate = Rate(float(relative[0]), float(low), float(high))
    pairs_p = matched_pairs(differences).p
    return Gain(system.name, baseline.name, unit, rate, p, p, pairs_p, pairs_p)


def _errors(system: System, tag: str, unit: Unit) -> _Counts:
    """Errors and length of each utterance (N, 2), of all seeds together."""
    runs = [run.counts[tag, unit] for run in system.runs]
    return np.array([[(one.errors, one.reference_length) for one in run] for run in runs]).sum(0)


def _by_speaker(system: System, tag: str, rows: _Counts) -> _Counts:
    """The rows (N, …), summed within each speaker."""
    _, block = np.unique(np.array(system.runs[0].told.groups(tag)), return_inverse=True)
    table = np.zeros((block.max() + 1, rows.shape[1]), rows.dtype)
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
