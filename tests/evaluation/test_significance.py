"""Tests of differences: by hand, in simulation, and between result files."""

import itertools
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.normalizers import DEFAULT_NORMALIZER
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult
from lora_whisper.evaluation.significance import (
    ENOUGH,
    MatchedPairs,
    compare_results,
    holm,
    matched_pairs,
    segment_differences,
)


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_many_segments_are_the_published_formula() -> None:
    values = [1, 0, 2, -1, 1, 1, 0, -3, -1, 2] * 9
    z = np.mean(values) / (np.std(values, ddof=1) / np.sqrt(90))
    found = matched_pairs(values)
    assert found.segments == 90 and found.z == pytest.approx(z)
    assert found.p == pytest.approx(2 * NormalDist().cdf(-z))


def test_few_segments_are_counted() -> None:
    values = [1, 0, 2, -1, 1, 1, 0, 3]
    signs = itertools.product((-1, 1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(sign, values, strict=True))) for sign in signs]
    found = matched_pairs(values)
    assert found.z == pytest.approx(1.986, abs=1e-3)
    assert found.p == pytest.approx(np.mean([one >= sum(values) for one in sums]))


def test_agreeing_segments_are_as_sure_as_their_number_allows() -> None:
    assert matched_pairs([1, 1]).p == pytest.approx(0.5)  # the normal distribution would say 0
    assert matched_pairs([-1] * 9) == MatchedPairs(9, -3.0, pytest.approx(2 / 2**9))
    assert matched_pairs([]) == MatchedPairs(0, 0.0, 1.0)
    assert matched_pairs([0, 0]).p == matched_pairs([5]).p == 1
    assert matched_pairs([-1] * 200).p < 1e-30


def test_counting_meets_the_formula_where_it_takes_over() -> None:
    draw = np.random.default_rng(2)
    values = [*draw.choice([-2, -1, 1, 2, 3], ENOUGH - 1).tolist()]
    counted, formula = matched_pairs(values), matched_pairs([*values, 1])
    assert counted.p == pytest.approx(2 * NormalDist().cdf(-abs(counted.z)), abs=0.02)
    assert counted.p == pytest.approx(formula.p, abs=0.03)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a b c d e f g h", "a b c d e f g h", []),
        ("a x c d e f g h", "a b c d e f g h", [-1]),
        ("a x c d e f y h", "a b c d e f g h", [-1, -1]),  # parted by two that both have
        ("a x c d e f g h", "a b c x e f g h", [0]),  # one between them: one segment
        ("a x c d e f g h", "a b c d e f x h", [-1, 1]),
        ("a b c d e f g h i", "a b c d e f g h", [-1]),  # inserted at the end
        ("z a b c d e f g h", "a b c e f g h", [-1, 1]),
        ("", "a b c d e f g h", [-8]),
    ],
)
def test_segments_are_parted_by_what_both_have_right(first: str, second: str, expected: list[int]) -> None:
    assert segment_differences(list("abcdefgh"), first.split(), second.split()) == expected


@pytest.mark.parametrize("segments", [6, 20, 49, 120])
def test_under_the_null_it_rejects_at_most_at_its_level(segments: int) -> None:
    draw, trials = np.random.default_rng(5), 1000
    p_values = [matched_pairs(draw.integers(-2, 3, segments).tolist()).p for _ in range(trials)]
    for level in (0.05, 0.2):
        rejected = np.mean(np.array(p_values) < level)
        tolerance = 3 * (level * (1 - level) / trials) ** 0.5
        assert rejected < level + tolerance
        assert rejected > level / 2 - tolerance  # few segments have few possible p


def result(wrong: dict[str, float], seed: int, count: int = 150) -> EvaluationResult:
    """Sentences of ten words of which a share is wrong."""
    rng, said = np.random.default_rng(seed), "one two three four five six seven eight nine ten"
    rows = []
    for tag, share in wrong.items():
        for index in range(count):
            heard = " ".join("x" if rng.random() < share else word for word in said.split())
            rows.append(UtteranceResult(f"{tag}-{index}", tag, said, heard, None, 3.0, f"s{index % 25}"))
    return EvaluationResult("", "toy", "", {}, DEFAULT_NORMALIZER, None, 0, "0", tuple(rows))


def test_equal_recognisers_are_told_apart_at_the_stated_rate() -> None:
    trials = 150
    compared = [
        compare_results(
            result({"pl": 0.2, "cy": 0.1}, 2 * trial, 40), result({"pl": 0.2, "cy": 0.1}, 2 * trial + 1, 40)
        )
        for trial in range(trials)
    ]
    alone = np.mean([one.test.p < 0.05 for found in compared for one in found])
    either = np.mean([min(one.p_adjusted for one in found) < 0.05 for found in compared])
    bootstrap = np.mean([one.difference.p_value < 0.05 for found in compared for one in found])
    assert 0.02 < alone < 0.09 and 0.01 < either < 0.105 and 0.02 < bootstrap < 0.1


def test_the_interval_covers_the_true_gain() -> None:
    """True rates 30 and 20 %: a third is gained."""
    covered, trials = 0, 150
    for trial in range(trials):
        (one,) = compare_results(result({"pl": 0.3}, 2 * trial, 60), result({"pl": 0.2}, 2 * trial + 1, 60))
        assert one.gain is not None
        covered += one.gain.low <= 1 / 3 <= one.gain.high
    assert 0.89 <= covered / trials <= 0.99


def test_a_better_language_is_found_and_an_equal_one_is_not() -> None:
    found = {one.language: one for one in compare_results(
        result({"pl": 0.3, "de": 0.3}, 1), result({"pl": 0.2, "de": 0.3}, 2)
    )}  # fmt: skip
    better, equal = found["pl"], found["de"]
    assert better.gain is not None and equal.gain is not None and found["pl"].unit == "word"
    assert better.gain.rate == pytest.approx(1 / 3, abs=0.08) and better.gain.low > 0.15
    assert better.p_adjusted < 0.001 and better.difference.p_value < 0.01 and better.test.z < -3
    assert equal.p_adjusted > 0.05 and equal.gain.low < 0 < equal.gain.high
    assert better.p_adjusted >= better.test.p


def test_only_common_utterances_count() -> None:
    whole = result({"pl": 0.3}, 1)
    part = replace(whole, utterances=whole.utterances[:40])
    (found,) = compare_results(whole, part)
    assert found.gain is not None
    assert found.utterances == 40 and found.gain.rate == 0 and found.p_adjusted == 1
    with pytest.raises(UsageError, match="in common"):
        compare_results(whole, result({"de": 0.3}, 1))
    with pytest.raises(UsageError, match="use one"):
        compare_results(whole, replace(whole, normalizer="raw"))


def test_repeated_utterances_are_paired_one_by_one() -> None:
    twice = result({"pl": 0.3}, 1, 2)
    one = replace(twice, utterances=(twice.utterances[0],) * 2)
    assert compare_results(one, one)[0].utterances == 2
    assert compare_results(one, twice)[0].utterances == 1


def test_nothing_is_gained_on_what_was_right() -> None:
    (found,) = compare_results(result({"pl": 0.0}, 1), result({"pl": 0.2}, 2))
    assert found.gain is None and found.first == 0 < found.second
    assert found.test.z > 3 and found.p_adjusted < 0.001


def test_each_language_is_judged_by_its_own_unit() -> None:
    rows = tuple(UtteranceResult(str(n), "zh", "你好世界", "你好世间", None, 1.0, None) for n in range(5))
    heard = tuple(replace(one, hypothesis="你坏世间") for one in rows)
    first = replace(result({}, 0), utterances=rows)
    (found,) = compare_results(first, replace(first, utterances=heard))
    assert (found.unit, found.first, found.second) == ("character", 0.25, 0.5)
    assert found.gain is not None and found.gain.rate == -1
