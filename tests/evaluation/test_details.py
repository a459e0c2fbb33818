"""Groups, confusions and the worst utterances follow from the results alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_results import BAD, GOOD, made_result

from lora_whisper.evaluation.details import System, by_duration, by_speaker, confusions, worst
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult


def system(rows: list[tuple[str, str, float, str | None]], name: str = "a", tag: str = "en") -> System:
    """Rows are reference, hypothesis, duration, speaker."""
    utterances = tuple(
        UtteranceResult(str(number), tag, said, heard, None, duration_s, speaker)
        for number, (said, heard, duration_s, speaker) in enumerate(rows)
    )
    return System(name, replace(made_result({}), utterances=utterances))


ROWS = [
    ("one two", "one two", 1.0, "ann"),
    ("one two", "one too", 2.0, "ann"),
    ("one two three four", "won too", 4.9, "bob"),
    ("one", "one and all", 31.0, None),
]


def test_groups_by_length_are_corpus_level_rates_in_order() -> None:
    found = by_duration([system(ROWS)], "en")
    assert [(group.name, group.utterances, group.rates[0].rate) for group in found.groups] == [
        ("under 2 s", 1, 0.0),
        ("2–5 s", 2, 5 / 6),
        ("over 30 s", 1, 2.0),
    ]


def test_groups_by_speaker_are_worst_first_and_limited() -> None:
    found = by_speaker([system(ROWS)], "en")
    assert [(group.name, group.rates[0].rate) for group in found.groups] == [("bob", 1.0), ("ann", 0.25)]
    assert found.left_out == 0
    limited = by_speaker([system(ROWS)], "en", most=1)
    assert ([group.name for group in limited.groups], limited.left_out) == (["bob"], 1)


def test_a_system_without_a_group_has_no_rate_there() -> None:
    found = by_speaker([system(ROWS), system(ROWS[:2], "b")], "en")
    assert [group.rates[1] is None for group in found.groups] == [True, False]


def test_repeated_errors_are_counted_by_kind() -> None:
    found = confusions(system([*ROWS, *ROWS, ("a b", "a b b", 1.0, None)]), "en")
    assert [(one.reference, one.hypothesis, one.count) for one in found.substitutions] == [
        ("two", "too", 4),
        ("one", "won", 2),
    ]
    assert [(one.reference, one.count) for one in found.deletions] == [("four", 2), ("three", 2)]
    assert [(one.hypothesis, one.count) for one in found.insertions] == [("all", 2), ("and", 2)]
    assert confusions(system(ROWS), "xx").substitutions == ()


def test_the_worst_are_those_with_the_highest_rate_of_any_system() -> None:
    other = system([*ROWS[:1], ("one two", "", 2.0, "ann"), *ROWS[2:]], "b")
    found = worst([system(ROWS), other], "en", 10)
    assert [one.utterance.id for one in found] == ["3", "2", "1"], "a perfect one is not among the worst"
    assert [heard.system for heard in found[0].heard] == ["a", "b"]
    assert [heard.counts.rate for heard in found[2].heard] == [0.5, 1.0]
    assert len(worst([other], "en", 2)) == 2


def test_one_that_only_one_system_has_is_there() -> None:
    found = worst([system(ROWS[:1]), system(ROWS, "b")], "en", 10)
    assert [[heard.system for heard in one.heard] for one in found] == [["b"]] * 3


def test_characters_judge_where_words_are_not_written() -> None:
    (first, *_) = worst([System("a", made_result(BAD))], "zh", 1)
    assert [cell.kind for cell in first.heard[0].cells] == ["replace", "equal", "replace", "delete"]


@pytest.mark.parametrize("result", [made_result(GOOD), made_result(BAD)])
def test_counts_agree_with_the_scores(result: EvaluationResult) -> None:
    for tag, rows in System("a", result).scored.items():
        score = result.scores()[tag]
        judged = score.wer_counts if score.unit == "word" else score.cer_counts
        assert sum(row.counts.errors for row in rows) == judged.errors


def test_sound_is_looked_for_beside_the_result_and_where_it_was(tmp_path: Path) -> None:
    one = replace(made_result(GOOD).utterances[0], audio="a.wav", start_s=1.5, duration_s=2.0)
    somewhere = System("a", made_result(GOOD), tmp_path)
    assert somewhere.clip(replace(one, audio="")) is None
    assert somewhere.clip(one).path == Path("a.wav")
    (tmp_path / "a.wav").touch()
    clip = somewhere.clip(one)
    assert (clip.path, clip.start_s, clip.duration_s) == (tmp_path / "a.wav", 1.5, 2.0)
    assert somewhere.clip(replace(one, audio="/lost/a.wav")).path == Path("/lost/a.wav")
