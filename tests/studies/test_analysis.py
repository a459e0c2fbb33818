"""Conclusions from made-up runs of known rates."""

from dataclasses import replace

import numpy as np
import pytest

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.normalizers import DEFAULT_NORMALIZER
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult
from lora_whisper.studies.analysis import (
    Run,
    Spread,
    System,
    chosen,
    forgetting,
    gains,
    steps_to,
)

ALPHABET = "abcdefghij"


def result(wrong: dict[str, float], seed: int, count: int = 120) -> EvaluationResult:
    """Ten-letter words of which a share of the letters is wrong, by language."""
    rng = np.random.default_rng(seed)
    rows = []
    for tag, share in wrong.items():
        for index in range(count):
            heard = "".join("x" if rng.random() < share else letter for letter in ALPHABET)
            rows.append(UtteranceResult(f"{tag}-{index}", tag, ALPHABET, heard, None, 1.0, f"s{index % 30}"))
    return EvaluationResult("", "toy", "", {}, DEFAULT_NORMALIZER, None, 0, "0", tuple(rows))


def system(name: str, wrong: dict[str, float], facts: list[dict[str, object]] | None = None) -> System:
    runs = [Run(result(wrong, seed), None, (facts or [{}, {}])[seed]) for seed in range(2)]
    return System(name, "made up", tuple(runs))


def test_a_real_gain_is_found_with_its_size_and_an_unreal_one_is_not() -> None:
    base, better = system("base", {"pl": 0.4, "it": 0.2}), system("better", {"pl": 0.3, "it": 0.15})
    same = system("same", {"pl": 0.4, "it": 0.2})
    found = {one.system: one for one in gains([better, same], base, ["pl", "it"], "character")}
    assert found["better"].relative.rate == pytest.approx(0.25, abs=0.04)
    assert found["better"].relative.low > 0.15 and found["better"].p_adjusted < 0.01
    assert found["better"].pairs_p_adjusted < 0.01 and found["same"].pairs_p_adjusted == 1
    assert found["same"].relative.rate == 0 and found["same"].p_adjusted == 1


def test_other_utterances_are_not_compared() -> None:
    base, other = system("base", {"pl": 0.4}), system("other", {"pl": 0.4})
    short = replace(other.runs[0].told, utterances=other.runs[0].told.utterances[1:])
    with pytest.raises(UsageError, match="other utterances in pl"):
        gains([replace(other, runs=(replace(other.runs[0], told=short),))], base, ["pl"], "character")


def test_means_are_over_languages_and_spreads_over_seeds() -> None:
    spread = system("one", {"pl": 0.4, "it": 0.2}).mean(["pl", "it"], "character")
    assert spread.mean == pytest.approx(0.3, abs=0.02) and 0 < spread.sd < 0.02
    assert Spread.of([0.5]) == Spread(0.5, 0.0)


def epochs(**cer: list[float]) -> dict[str, object]:
    return {
        "epochs": {
            tag: [{"step": 10 * (i + 1), "cer": value} for i, value in enumerate(values)]
            for tag, values in cer.items()
        }
    }


def test_the_choice_is_made_on_development_speech_alone() -> None:
    one = system("one", {"pl": 0.1, "it": 0.1}, [epochs(pl=[0.5, 0.3], it=[0.2])] * 2)
    two = system("two", {"pl": 0.3, "it": 0.3}, [epochs(pl=[0.9, 0.2], it=[0.4])] * 2)
    best = chosen([one, two], ["pl", "it"], "automatic")
    assert best.runs[0].facts["choices"] == {"pl": "two", "it": "one"}
    assert best.runs[0].rate("pl", "character") == two.runs[0].rate("pl", "character")
    assert best.runs[1].rate("it", "character") == one.runs[1].rate("it", "character")


def test_steps_are_counted_to_the_first_epoch_that_is_good_enough() -> None:
    run = system("one", {"pl": 0.1}, [epochs(pl=[0.5, 0.3, 0.2])] * 2).runs[0]
    assert [steps_to(run, "pl", target) for target in (0.5, 0.3, 0.1)] == [10, 20, None]


def test_forgetting_is_nought_only_where_nothing_changed() -> None:
    before = system("before", {"pl": 0.2, "it": 0.2})
    kept = forgetting(system("kept", {"pl": 0.2, "it": 0.2}), before, ["pl", "it"])
    assert kept.backward_transfer == 0 and kept.rewritten == 0
    worse = forgetting(system("worse", {"pl": 0.5, "it": 0.2}), before, ["pl", "it"])
    assert worse.backward_transfer == pytest.approx(15, abs=2) and worse.rewritten > 0.4
