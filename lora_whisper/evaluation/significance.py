"""Whether one recogniser is really better than another: matched-pairs test, and correction for many tests.

A language is judged by its own unit, words or characters; a comparison never mixes the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.metrics import (
    Comparison,
    Edit,
    ErrorCounts,
    Rate,
    Unit,
    align,
    bootstrap_interval,
    error_counts,
    paired_bootstrap,
    units,
)
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult
from lora_whisper.languages import language as find_language

BUFFER = 2
"""Units that both recognisers have right between two segments of the matched-pairs test."""
ENOUGH = 50
"""Segments with a difference from which on their mean may be taken as normally distributed."""


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs sentence-segment test of Gillick and Cox (1989), as NIST's `mapsswe`.

    The normal approximation, which the authors ask many segments for, makes two segments that happen to agree
    a certainty. With fewer than `ENOUGH`, p counts instead: in which share of all ways to swap the two
    recognisers, segment by segment, would the errors differ at least as much?

    Attributes:
        segments: stretches in which at least one of the two errs.
        z: mean difference of their errors over its standard error; above zero: the second errs more.
        p: two-sided.
    """

    segments: int
    z: float
    p: float


def matched_pairs(differences: Sequence[int]) -> MatchedPairs:
    """Return the test of errors of the second minus errors of the first, one number per segment."""
    count = len(differences)
    values = np.asarray(differences, dtype=np.int64)
    if count < 2 or not values.any():
        return MatchedPairs(count, 0.0, 1.0)
    spread = float(values.std(ddof=1)) / sqrt(count)
    # Without spread every segment differs alike: as sure as its number allows, and not more.
    z = float(values.mean()) / spread if spread else float(np.sign(values[0])) * sqrt(count)
    few = np.count_nonzero(values) < ENOUGH
    return MatchedPairs(count, z, _exact_p(values) if few else erfc(abs(z) / sqrt(2)))


def _exact_p(values: NDArray[np.int64]) -> float:
    """Return the chance of a sum at least as far from zero, if each of `values` might as well be negative."""
    chances = np.ones(1)  # of each sum of those that stay positive
    for size in np.abs(values[values != 0]):
        chances = (np.pad(chances, (0, size)) + np.pad(chances, (size, 0))) / 2
    sums = 2 * np.arange(len(chances)) - (len(chances) - 1)
    return min(1.0, float(chances[np.abs(sums) >= abs(values.sum())].sum()))


def segment_differences(reference: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Return errors of the second minus errors of the first in each segment of an utterance.

    Segments are parted by `BUFFER` units or more of the reference that both have right; one without an error
    is no segment. Segments of an utterance, unlike its words, may be taken as independent of each other.
    """
    errors = [_errors_by_place(align(reference, heard), len(reference)) for heard in (first, second)]
    differences: list[int] = []
    current: list[int] | None = None
    right = 0
    for ours, theirs in zip(*errors, strict=True):
        if ours or theirs:
            current = current or [0, 0]
            current[0] += ours
            current[1] += theirs
            right = 0
            continue
        right += 1
        if current and right >= BUFFER:
            differences.append(current[1] - current[0])
            current = None
    return [*differences, current[1] - current[0]] if current else differences


def _errors_by_place(edits: Sequence[Edit], length: int) -> list[int]:
    """Return the errors at each unit of the reference; an insertion counts at the unit that follows it."""
    errors, place = [0] * (length + 1), 0
    for edit in edits:
        if edit.kind == "insert":
            errors[place] += len(edit.hypothesis)
            continue
        if edit.kind != "equal":
            for offset in range(len(edit.reference)):
                errors[place + offset] += 1
        place += len(edit.reference)
    return errors


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction (Holm 1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class LanguageComparison:
    """Two results in one language.

    Attributes:
        language: its tag.
        unit: that judges it.
        utterances: how many both have.
        first: rate of the first.
        second: rate of the second.
        gain: share of the first's errors that the second does not make, with its interval by the same
            bootstrap; None if the first makes none.
        difference: of the rates, second minus first, by paired bootstrap over speakers.
        test: matched pairs.
        p_adjusted: of the test, after Holm's correction for all languages.
    """

    language: str
    unit: Unit
    utterances: int
    first: float
    second: float
    gain: Rate | None
    difference: Comparison
    test: MatchedPairs
    p_adjusted: float


def compare_results(first: EvaluationResult, second: EvaluationResult) -> list[LanguageComparison]:
    """Return the comparison of each language that both results have, on the utterances that both have.

    Raises:
        UsageError: they are not normalised alike, or have no utterance in common.
    """
    if first.normalizer != second.normalizer:
        raise UsageError(
            f"one result is normalised by {first.normalizer}, the other by {second.normalizer}; use one"
        )
    pairs = _pairs(first, second)
    if not pairs:
        raise UsageError("the two results have no utterance in common; score the same manifest twice")
    tags = sorted({one.language for one, _ in pairs})
    found = [
        _compared(tag, [pair for pair in pairs if pair[0].language == tag], first.normalizer) for tag in tags
    ]
    adjusted = holm([one.test.p for one in found])
    return [replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def _pairs(
    first: EvaluationResult, second: EvaluationResult
) -> list[tuple[UtteranceResult, UtteranceResult]]:
    """Return the utterances that both have: of one name and language, with one reference."""
    waiting: dict[tuple[str, str, str], list[UtteranceResult]] = {}
    for other in second.utterances:
        waiting.setdefault(_key(other), []).append(other)
    return [(one, waiting[_key(one)].pop(0)) for one in first.utterances if waiting.get(_key(one))]


def _key(one: UtteranceResult) -> tuple[str, str, str]:
    return one.id, one.language, one.reference


def _compared(
    tag: str, pairs: Sequence[tuple[UtteranceResult, UtteranceResult]], normalizer: str
) -> LanguageComparison:
    unit = find_language(tag).unit
    first, second, differences = _counted(tag, unit, pairs, normalizer)
    groups = [f"speaker {one.speaker}" if one.speaker else f"row {row}" for row, (one, _) in enumerate(pairs)]
    test = matched_pairs(differences)
    return LanguageComparison(
        language=tag,
        unit=unit,
        utterances=len(pairs),
        first=sum(first, ErrorCounts()).rate,
        second=sum(second, ErrorCounts()).rate,
        gain=_relative_gain(first, second, groups),
        difference=paired_bootstrap(first, second, groups=groups),
        test=test,
        p_adjusted=test.p,
    )


def _counted(
    tag: str, unit: Unit, pairs: Sequence[tuple[UtteranceResult, UtteranceResult]], normalizer: str
) -> tuple[list[ErrorCounts], list[ErrorCounts], list[int]]:
    """Return the errors of the first and of the second in each utterance, and the differences by segment."""
    first: list[ErrorCounts] = []
    second: list[ErrorCounts] = []
    differences: list[int] = []
    for one, other in pairs:
        said, ours, theirs = (
            units(normalize(text, tag, normalizer), unit)
            for text in (one.reference, one.hypothesis, other.hypothesis)
        )
        first.append(error_counts(said, ours))
        second.append(error_counts(said, theirs))
        differences += segment_differences(said, ours, theirs)
    return first, second, differences


def _relative_gain(
    first: Sequence[ErrorCounts], second: Sequence[ErrorCounts], groups: Sequence[str]
) -> Rate | None:
    if not any(one.errors for one in first):
        return None
    # Both rates have the same denominator, so the gain is a rate itself: errors saved per error of the first.
    saved = [
        ErrorCounts(hits=a.errors, insertions=a.errors - b.errors) for a, b in zip(first, second, strict=True)
    ]
    return bootstrap_interval(saved, groups=groups)
