"""Systems side by side: what is compared, what is not, and what is never averaged."""

from dataclasses import replace

import pytest
from made_results import BAD, GOOD, made_result

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.board import MOST_COLUMNS, Board, board
from lora_whisper.evaluation.details import System
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.languages import WHISPER_LANGUAGES

PL = {"pl": "sha256:1"}
BARE = System("bare", made_result(BAD))
LORA = System("lora", made_result({**GOOD, "cy": BAD["cy"]}, adapters={**PL, "zh": "2", "ar": "3"}))


def changes(found: Board) -> dict[str, tuple[str, bool, bool, int]]:
    return {one.language: (one.adapter, one.worse, one.better, one.rewritten) for one in found.changes}


def test_rows_hold_every_language_of_every_system() -> None:
    only_polish = System("polish", made_result({"pl": GOOD["pl"]}))
    found = board([BARE, only_polish])
    assert [(row.language, row.unit) for row in found.rows] == [
        ("ar", "word"),
        ("cy", "word"),
        ("pl", "word"),
        ("zh", "character"),
    ]
    assert [score is None for row in found.rows for score in row.scores[1:]] == [True, True, False, True]
    assert {"polish has no ar.", "polish has no zh."} <= set(found.notes)


def test_word_and_character_rates_have_no_common_mean() -> None:
    two = {**GOOD, "ja": BAD["zh"]}
    system = System("a", _with_japanese(two))
    found = board([system])
    assert [(mean.unit, mean.languages) for mean in found.means] == [("word", 3), ("character", 2)]
    scores = system.result.scores()
    words, characters = (mean.rates[0] for mean in found.means)
    assert words == pytest.approx(sum(scores[tag].wer.rate for tag in ("ar", "cy", "pl")) / 3)
    assert characters == pytest.approx(sum(scores[tag].cer.rate for tag in ("ja", "zh")) / 2)


def test_a_mean_needs_two_languages_that_all_systems_have() -> None:
    assert [mean.unit for mean in board([BARE]).means] == ["word"], "one character language is no mean"
    assert board([BARE, System("polish", made_result({"pl": GOOD["pl"]}))]).means == ()


def test_the_lowest_rate_is_best_only_among_several() -> None:
    row = next(row for row in board([BARE, LORA]).rows if row.language == "pl")
    assert [row.is_best(0), row.is_best(1)] == [False, True]
    assert not board([BARE]).rows[0].is_best(0)


def test_changes_tell_learned_from_forgotten() -> None:
    found = board([LORA], BARE)
    assert changes(found) == {
        "ar": ("new", False, True, 5),
        "cy": ("none", False, False, 0),
        "pl": ("new", False, True, 5),
        "zh": ("new", False, True, 5),
    }
    assert [one.keeps for one in found.changes] == [True, False, False, False], "what must not change, first"
    assert found.verdict() == (
        "Where the adapter is another than before (3 languages), 3 got surely better and 0 surely worse. "
        "Where it is as before (1 language), so is every transcript: nothing is forgotten."
    )


def test_forgetting_is_said_with_the_languages() -> None:
    good = System("first", made_result(GOOD, adapters=PL))
    spoiled = System("full", made_result({**GOOD, "pl": BAD["pl"]}, adapters=PL))
    found = board([spoiled], good)
    assert changes(found)["pl"] == ("same", True, False, 5)
    assert found.verdict() == (
        "Where the adapter is as before (4 languages), 1 got surely worse (pl); 5 transcripts changed."
    )


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({}, {}, "none"),
        (PL, PL, "same"),
        ({}, PL, "new"),
        (PL, {}, "removed"),
        (PL, {"pl": "sha256:2"}, "changed"),
        ({"pt": "1"}, {"pt-BR": "2", "pt": "1"}, "none"),
    ],
)
def test_what_became_of_an_adapter(before: dict[str, str], after: dict[str, str], change: str) -> None:
    heard = {"pl": GOOD["pl"]}
    found = board(
        [System("a", made_result(heard, adapters=after))], System("b", made_result(heard, adapters=before))
    )
    assert found.changes[0].adapter == change


def test_a_variety_goes_to_the_adapter_of_its_parent() -> None:
    brazil = replace(
        made_result({"pl": GOOD["pl"]}),
        utterances=tuple(
            replace(one, language="pt-BR") for one in made_result({"pl": GOOD["pl"]}).utterances
        ),
    )
    before = System("b", replace(brazil, adapters={"pt": "1"}))
    same = board([System("a", replace(brazil, adapters={"pt": "1", "pl": "9"}))], before)
    own = board([System("a", replace(brazil, adapters={"pt": "1", "pt-BR": "2"}))], before)
    assert [found.changes[0].adapter for found in (same, own)] == ["same", "changed"]


def test_other_utterances_are_a_note_and_never_a_change() -> None:
    fewer = System("fewer", replace(BARE.result, utterances=BARE.result.utterances[1:]))
    found = board([LORA], fewer)
    assert sorted(changes(found)) == ["ar", "cy", "zh"]
    assert "lora has other utterances in pl than fewer: no change is shown." in found.notes
    assert "fewer has other utterances in pl than lora: not comparable." in board([LORA, fewer]).notes


def test_lost_utterances_are_a_note() -> None:
    assert "bare could not decode 1 utterance: not in the rates." in board([BARE]).notes
    assert [(name, one.audio) for name, one in board([BARE]).failures] == [("bare", "lost <i>.wav")]


def test_all_normalisers_are_shown() -> None:
    row = next(one for one in board([LORA]).normalized if one.language == "pl")
    raw, ours, basic = row.rates
    assert raw > ours == basic == 0.0


def test_recognised_languages_are_shares_of_utterances() -> None:
    (found,) = board([BARE]).recognised
    assert found.accuracy == pytest.approx(5 / 6)
    assert list(found.taken_for.columns) == ["ar", "cy", "en", "pl", "zh"]
    assert found.taken_for.values[0] == pytest.approx([5 / 6, 0, 1 / 6, 0, 0])
    silent = replace(
        BARE.result,
        utterances=tuple(replace(one, predicted_language=None) for one in BARE.result.utterances),
    )
    assert board([System("a", silent)]).recognised == ()


def test_many_recognised_languages_share_the_last_column() -> None:
    tags = list(WHISPER_LANGUAGES)[: len(BARE.result.utterances)]
    utterances = tuple(
        replace(one, predicted_language=tag) for one, tag in zip(BARE.result.utterances, tags, strict=True)
    )
    (found,) = board([System("a", replace(BARE.result, utterances=utterances))]).recognised
    assert (len(found.taken_for.columns), found.taken_for.columns[-1]) == (MOST_COLUMNS, "other")
    assert all(sum(row) == pytest.approx(1) for row in found.taken_for.values)


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ([], "at least one result"),
        ([BARE, BARE], "two systems are called 'bare'"),
        ([BARE, System("raw", replace(BARE.result, normalizer="raw"))], "not normalised alike"),
    ],
)
def test_what_cannot_be_compared_is_refused(systems: list[System], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        board(systems)


def test_a_result_without_utterances_is_no_error() -> None:
    assert board([System("a", made_result({}))]).rows == ()


def _with_japanese(heard: dict[str, str]) -> EvaluationResult:
    base = made_result({tag: text for tag, text in heard.items() if tag != "ja"})
    japanese = tuple(
        replace(one, language="ja", hypothesis=heard["ja"]) for one in base.utterances if one.language == "zh"
    )
    return replace(base, utterances=base.utterances + japanese)
