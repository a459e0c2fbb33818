"""Error counts and rates, and how sure we can be of them.

A rate is corpus-level: all errors over all reference units, never the mean of the utterances' rates. Its
interval comes from a bootstrap over utterances, or over speakers where they are known: the utterances of one
speaker share their difficulty, and treating them as independent makes intervals too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from lora_whisper.errors import UsageError

Unit = Literal["word", "character"]
EditKind = Literal["equal", "replace", "delete", "insert"]
_DRAWS_AT_ONCE = 4_000_000
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorCounts:
    """What became of the reference units (hit, substituted, deleted), and what was inserted between them."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Units in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference unit.

        An empty reference counts as one unit: nothing said, nothing heard is 0 %; three words heard, 300 %.
        """
        return self.errors / max(self.reference_length, 1)

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class Rate:
    """An error rate (1.0 = 100 %) and the interval that holds the true one at the stated level."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The difference b − a of two systems on the same utterances, its interval, and its two-sided p-value."""

    difference: Rate
    p_value: float


@dataclass(frozen=True)
class Edit:
    """A run of units that `kind` turns from the reference into the hypothesis."""

    kind: EditKind
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def units(text: str, unit: Unit) -> list[str]:
    """Return the words of `text`, or its characters (code points) without the spaces."""
    words = text.split()
    return words if unit == "word" else list("".join(words))


def error_counts(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCounts:
    """Return the counts of one cheapest way (Levenshtein) from the reference to the hypothesis units."""
    edits = Levenshtein.editops(*_as_numbers(reference, hypothesis))
    kinds = [edit.tag for edit in edits]
    substitutions, deletions = kinds.count("replace"), kinds.count("delete")
    hits = len(reference) - substitutions - deletions
    return ErrorCounts(hits, substitutions, deletions, kinds.count("insert"))


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """Return the same cheapest way as runs of equal, replaced, deleted and inserted units, in order."""
    runs = Levenshtein.opcodes(*_as_numbers(reference, hypothesis))
    return [
        Edit(
            cast("EditKind", run.tag),
            tuple(reference[run.src_start : run.src_end]),
            tuple(hypothesis[run.dest_start : run.dest_end]),
        )
        for run in runs
    ]


def bootstrap_interval(
    counts: Sequence[ErrorCounts],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Rate:
    """Return the corpus-level rate of `counts` (one per utterance) with its bootstrap interval.

    Whole `groups` (speakers) are drawn where given; with only one group, utterances are.
    A single utterance, or none, says nothing about spread: the interval is then the rate itself.

    Raises:
        UsageError: `groups` does not name one group per utterance.
    """
    table = _blocks([(one.errors, one.reference_length) for one in counts], groups)
    total = _ratio(table.sum(axis=0))
    rates = _ratio(_resample(table, seed, resamples))
    return _interval(float(total), rates, len(table), level)


def paired_bootstrap(
    counts_a: Sequence[ErrorCounts],
    counts_b: Sequence[ErrorCounts],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Return how much higher the rate of b is than that of a on the same utterances (negative: b is better).

    The p-value is twice the share of resamples on the far side of zero, never below 1 / resamples.

    Raises:
        UsageError: the two lists differ in length, or `groups` does not name one group per utterance.
    """
    if len(counts_a) != len(counts_b):
        raise UsageError(
            f"{len(counts_a)} utterances cannot be paired with {len(counts_b)}: score the same ones twice"
        )
    pairs = zip(counts_a, counts_b, strict=True)
    table = _blocks([(a.errors, a.reference_length, b.errors, b.reference_length) for a, b in pairs], groups)
    total = _difference(table.sum(axis=0))
    differences = _difference(_resample(table, seed, resamples))
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Comparison(_interval(float(total), differences, len(table), level), p_value)


def _as_numbers(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return both sequences with one number per distinct unit, so that no two units can share a hash."""
    numbers: dict[str, int] = {}
    left, right = (
        [numbers.setdefault(unit, len(numbers)) for unit in side] for side in (reference, hypothesis)
    )
    return left, right


def _blocks(rows: Sequence[tuple[int, ...]], groups: Sequence[str] | None) -> _Floats:
    """Return the table (blocks, columns) to draw from: the rows, or their sums per group."""
    if groups is not None and len(groups) != len(rows):
        raise UsageError(f"{len(groups)} groups for {len(rows)} utterances: give one group per utterance")
    table = np.array(rows or [(0,) * 4], dtype=np.float64)
    if groups is None or len(set(groups)) < 2:
        return table
    _, block = np.unique(np.array(groups), return_inverse=True)
    return np.stack([np.bincount(block, weights=column) for column in table.T], axis=1)


def _resample(table: _Floats, seed: int, resamples: int) -> _Floats:
    """Return column sums (resamples, columns) of as many blocks as there are, drawn with replacement."""
    random, n = np.random.default_rng(seed), len(table)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    sums = []
    for start in range(0, resamples, at_once):
        drawn = random.integers(0, n, size=(min(at_once, resamples - start), n), dtype=np.int32)
        sums.append(np.stack([column[drawn].sum(axis=1) for column in table.T], axis=1))
    return np.concatenate(sums)


def _ratio(sums: _Floats) -> _Floats:
    """Return errors per reference unit for `sums` (..., 2), with the rule of `ErrorCounts.rate`."""
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


def _difference(sums: _Floats) -> _Floats:
    return _ratio(sums[..., 2:]) - _ratio(sums[..., :2])


def _interval(rate: float, draws: _Floats, blocks: int, level: float) -> Rate:
    """Return `rate` with the percentile interval of `draws`, widened as Student's t widens the normal one.

    Plain percentiles are too narrow by sqrt(1 - 1/n) and by using z for t, which matters for few speakers
    (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.3).
    """
    normal = NormalDist()
    z = normal.inv_cdf((1 - level) / 2)
    freedom = max(blocks - 1, 1)
    # Student's t by its Cornish-Fisher expansion: right to 1 % from three degrees of freedom on.
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    tail = normal.cdf(t * (blocks / freedom) ** 0.5)
    low, high = np.quantile(draws, (tail, 1 - tail))
    return Rate(rate, min(float(low), rate), max(float(high), rate))
