"""Whether one recogniser is really better than another: matched-pairs test, and correction for many tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt

import numpy as np

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.metrics import (
    Comparison,
    Edit,
    ErrorCounts,
    Rate,
    Unit,
    align,
    error_counts,
    paired_bootstrap,
    units,
)
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult
from lora_whisper.languages import language as find_language

BUFFER = 2
"""Units that both recognisers have right between two segments of the matched-pairs test."""


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs sentence-segment test of Gillick and Cox (1989), as NIST's `sc_stats -t mapsswe`.

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
    values = np.asarray(differences, dtype=np.float64)
    if count < 2 or not values.any():
        return MatchedPairs(count, 0.0, 1.0)
    spread = float(values.std(ddof=1)) / sqrt(count)
    if spread == 0:  # every segment differs alike
        return MatchedPairs(count, float(np.sign(values[0])) * sqrt(count), 0.0)
    z = float(values.mean()) / spread
    return MatchedPairs(count, z, erfc(abs(z) / sqrt(2)))


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
        gain: share of the first's errors that the second does not make.
        difference: of the rates, second minus first, by paired bootstrap over speakers.
        test: matched pairs.
        p_adjusted: of the test, after Holm's correction for all languages.
    """

    language: str
    unit: Unit
    utterances: int
    first: float
    second: float
    gain: Rate
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
    others = {(one.id, one.language, one.reference): one for one in second.utterances}
    keyed = [(one, others.get((one.id, one.language, one.reference))) for one in first.utterances]
    return [(one, other) for one, other in keyed if other is not None]


def _compared(
    tag: str, pairs: Sequence[tuple[UtteranceResult, UtteranceResult]], normalizer: str
) -> LanguageComparison:
    unit = find_language(tag).unit
    counts: list[list[ErrorCounts]] = [[], []]
    differences: list[int] = []
    for one, other in pairs:
        said, *heard = (
            units(normalize(text, tag, normalizer), unit)
            for text in (one.reference, one.hypothesis, other.hypothesis)
        )
        for place, text in enumerate(heard):
            counts[place].append(error_counts(said, text))
        differences += segment_differences(said, *heard)
    groups = [f"speaker {one.speaker}" if one.speaker else f"row {row}" for row, (one, _) in enumerate(pairs)]
    rates = [sum(one, ErrorCounts()).rate for one in counts]
    difference = paired_bootstrap(*counts, groups=groups)
    base = max(rates[0], 1e-12)
    low, high = -difference.difference.high / base, -difference.difference.low / base
    gain = Rate((rates[0] - rates[1]) / base, low, high)
    test = matched_pairs(differences)
    return LanguageComparison(tag, unit, len(pairs), rates[0], rates[1], gain, difference, test, test.p)
