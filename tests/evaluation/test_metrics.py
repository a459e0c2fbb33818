"""Counts agree with jiwer, intervals with the truth."""

import random
import time

import jiwer
import numpy as np
import pytest

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.metrics import (
    Comparison,
    ErrorCounts,
    Rate,
    align,
    bootstrap_interval,
    error_counts,
    paired_bootstrap,
    units,
)


def random_pairs(number: int, alphabet: str = "abcdef") -> list[tuple[str, str]]:
    """Return pairs of texts that share some words; about one text in ten is empty."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(
            "".join(draw.choices(alphabet, k=draw.randint(1, 2))) for _ in range(draw.randint(0, 9))
        )

    return [(text(), text()) for _ in range(number)]


PAIRS = random_pairs(3000)


@pytest.mark.parametrize("alphabet", ["abcdef", "नम\u094dत", "你好世界"])
def test_words_agree_with_jiwer(alphabet: str) -> None:
    for reference, hypothesis in random_pairs(3400, alphabet):
        ours = error_counts(units(reference, "word"), units(hypothesis, "word"))
        theirs = jiwer.process_words(reference, hypothesis)
        assert ours == ErrorCounts(theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)
        assert ours.rate == pytest.approx(theirs.wer)


def test_characters_agree_with_jiwer_on_text_without_spaces() -> None:
    for reference, hypothesis in PAIRS:
        ours = error_counts(units(reference, "character"), units(hypothesis, "character"))
        theirs = jiwer.process_characters(reference.replace(" ", ""), hypothesis.replace(" ", ""))
        assert ours == ErrorCounts(theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)


def test_corpus_rate_agrees_with_jiwer() -> None:
    counts = [error_counts(units(a, "word"), units(b, "word")) for a, b in PAIRS]
    theirs = jiwer.wer([a for a, _ in PAIRS], [b for _, b in PAIRS])
    assert sum(counts, ErrorCounts()).rate == pytest.approx(theirs)
    assert bootstrap_interval(counts, resamples=10).rate == pytest.approx(theirs)


def test_units_with_equal_hashes_differ() -> None:
    class Colliding(str):
        def __hash__(self) -> int:
            return 1

    assert error_counts([Colliding("a")], [Colliding("b")]).substitutions == 1


@pytest.mark.parametrize(("heard", "rate"), [([], 0.0), (["a", "b", "c"], 3.0)])
def test_an_empty_reference_counts_as_one_unit_as_in_jiwer(heard: list[str], rate: float) -> None:
    counts = error_counts([], heard)
    assert counts.rate == rate == jiwer.wer("", " ".join(heard))
    assert bootstrap_interval([counts, counts]).rate == 2 * rate
    assert bootstrap_interval([]) == Rate(0.0, 0.0, 0.0)


def test_alignment_rebuilds_both_sides_and_agrees_with_the_counts() -> None:
    for left, right in PAIRS[:500]:
        reference, hypothesis = left.split(), right.split()
        edits = align(reference, hypothesis)
        assert [unit for edit in edits for unit in edit.reference] == reference
        assert [unit for edit in edits for unit in edit.hypothesis] == hypothesis
        hits = sum(len(edit.reference) for edit in edits if edit.kind == "equal")
        assert hits == error_counts(reference, hypothesis).hits


def utterances(draw: np.random.Generator, speakers: int, each: int) -> tuple[list[ErrorCounts], list[str]]:
    """Return utterances of 12 units whose error rate is the speaker's own, 20 % in the population."""
    skill = draw.beta(2, 8, size=speakers)
    wrong = draw.binomial(12, skill[:, None], size=(speakers, each))
    counts = [ErrorCounts(hits=12 - int(e), substitutions=int(e)) for e in wrong.flat]
    return counts, [f"s{row}" for row in range(speakers) for _ in range(each)]


@pytest.mark.parametrize(
    ("speakers", "each", "level"), [(100, 1, 0.95), (100, 1, 0.8), (40, 10, 0.95), (10, 5, 0.95)]
)
def test_intervals_cover_the_truth_at_their_stated_rate(speakers: int, each: int, level: float) -> None:
    draw, covered = np.random.default_rng(3), 0
    for trial in range(600):
        counts, groups = utterances(draw, speakers, each)
        interval = bootstrap_interval(counts, groups=groups, seed=trial, level=level)
        covered += interval.low <= 0.2 <= interval.high
    assert level - 0.04 <= covered / 600 <= level + 0.035


def test_ignoring_speakers_is_overconfident() -> None:
    draw, covered = np.random.default_rng(3), 0
    for trial in range(200):
        counts, _ = utterances(draw, 40, 10)
        interval = bootstrap_interval(counts, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
    assert covered / 200 < 0.85


def test_one_speaker_is_no_reason_for_certainty() -> None:
    counts, _ = utterances(np.random.default_rng(0), 20, 1)
    one_speaker = bootstrap_interval(counts, groups=["s"] * 20)
    assert one_speaker == bootstrap_interval(counts)
    assert one_speaker.low < one_speaker.rate < one_speaker.high


def test_the_seed_decides_the_interval() -> None:
    counts, _ = utterances(np.random.default_rng(0), 50, 1)
    assert bootstrap_interval(counts, seed=1) == bootstrap_interval(counts, seed=1)
    assert bootstrap_interval(counts, seed=1) != bootstrap_interval(counts, seed=2)


def test_no_difference_has_uniform_p_values_and_a_real_one_is_found() -> None:
    draw, p_values = np.random.default_rng(5), []
    for trial in range(300):
        a, _ = utterances(draw, 60, 1)
        b, _ = utterances(draw, 60, 1)
        p_values.append(paired_bootstrap(a, b, seed=trial, resamples=400).p_value)
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09
    better = [ErrorCounts(hits=one.hits + 1, substitutions=max(one.substitutions - 1, 0)) for one in a]
    found = paired_bootstrap(a, better)
    assert found.p_value < 0.01
    assert found.difference.low <= found.difference.rate <= found.difference.high < 0


def test_a_system_does_not_differ_from_itself() -> None:
    counts, groups = utterances(np.random.default_rng(0), 10, 3)
    assert paired_bootstrap(counts, counts, groups=groups) == Comparison(Rate(0.0, 0.0, 0.0), 1.0)


def test_a_hundred_thousand_utterances_take_seconds() -> None:
    counts = [ErrorCounts(10, 1, 1, row % 3) for row in range(100_000)]
    start = time.perf_counter()
    bootstrap_interval(counts)
    assert time.perf_counter() - start < 10


def test_lists_that_do_not_match_are_errors() -> None:
    one = ErrorCounts(1)
    with pytest.raises(UsageError, match="2 groups for 1"):
        bootstrap_interval([one], groups=["a", "b"])
    with pytest.raises(UsageError, match="1 utterances cannot be paired with 2"):
        paired_bootstrap([one], [one, one])
