"""Tests of differences: by hand, in simulation, and between result files."""

from dataclasses import replace

import numpy as np
import pytest

from lora_whisper.cli import run
from lora_whisper.errors import UsageError
from lora_whisper.evaluation.normalizers import DEFAULT_NORMALIZER
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult
from lora_whisper.evaluation.significance import (
    MatchedPairs,
    compare_results,
    holm,
    matched_pairs,
    segment_differences,
)


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_matched_pairs_is_the_formula() -> None:
    values = [1, 0, 2, -1, 1, 1, 0, 3]
    z = np.mean(values) / (np.std(values, ddof=1) / np.sqrt(8))
    found = matched_pairs(values)
    assert found.segments == 8 and found.z == pytest.approx(z)
    assert found.p == pytest.approx(0.0471, abs=2e-4)  # two tails of the normal distribution at 1.986
    assert matched_pairs([]) == MatchedPairs(0, 0.0, 1.0) and matched_pairs([0, 0]).p == 1
    assert matched_pairs([1] * 9).p == 0 and matched_pairs([-1] * 9).z == -3


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


def test_under_the_null_it_rejects_at_its_level() -> None:
    rng, rejected, trials = np.random.default_rng(5), 0, 400
    for _ in range(trials):
        rejected += matched_pairs(rng.integers(-1, 2, 120).tolist()).p < 0.05
    assert 0.02 < rejected / trials < 0.085


def result(wrong: dict[str, float], seed: int, count: int = 150) -> EvaluationResult:
    """Sentences of ten words of which a share is wrong."""
    rng, said = np.random.default_rng(seed), "one two three four five six seven eight nine ten"
    rows = []
    for tag, share in wrong.items():
        for index in range(count):
            heard = " ".join("x" if rng.random() < share else word for word in said.split())
            rows.append(UtteranceResult(f"{tag}-{index}", tag, said, heard, None, 3.0, f"s{index % 25}"))
    return EvaluationResult("", "toy", "", {}, DEFAULT_NORMALIZER, None, 0, "0", tuple(rows))


def test_a_better_language_is_found_and_an_equal_one_is_not() -> None:
    found = {one.language: one for one in compare_results(
        result({"pl": 0.3, "de": 0.3}, 1), result({"pl": 0.2, "de": 0.3}, 2)
    )}  # fmt: skip
    better, equal = found["pl"], found["de"]
    assert better.gain.rate == pytest.approx(1 / 3, abs=0.08) and better.gain.low > 0.15
    assert better.p_adjusted < 0.001 and better.difference.p_value < 0.01 and better.test.z < -3
    assert equal.p_adjusted > 0.05 and equal.gain.low < 0 < equal.gain.high
    assert better.p_adjusted >= better.test.p


def test_only_common_utterances_count() -> None:
    whole = result({"pl": 0.3}, 1)
    part = replace(whole, utterances=whole.utterances[:40])
    (found,) = compare_results(whole, part)
    assert found.utterances == 40 and found.gain.rate == 0 and found.p_adjusted == 1
    with pytest.raises(UsageError, match="in common"):
        compare_results(whole, result({"de": 0.3}, 1))
    with pytest.raises(UsageError, match="use one"):
        compare_results(whole, replace(whole, normalizer="raw"))


def test_the_command(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = result({"pl": 0.3}, 1), result({"pl": 0.1}, 2)
    paths = [str(first.save(tmp_path / "a.json")), str(second.save(tmp_path / "b.json"))]
    assert run(["compare", *paths]) == 0
    out = capsys.readouterr().out
    assert "pl" in out and "WER" in out and "+6" in out
    assert run(["compare", paths[0], str(tmp_path / "none.json")]) == 1
