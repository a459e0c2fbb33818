"""What counts as invented speech, and what does not."""

import json
from dataclasses import asdict, replace

import pytest
from made_results import GOOD, made_result

from lora_whisper.evaluation.board import board
from lora_whisper.evaluation.details import System
from lora_whisper.evaluation.hallucination import (
    RUN,
    Transcribed,
    hallucinations,
    longest_loop,
    signs,
)
from lora_whisper.evaluation.metrics import Unit, error_counts

SAID = "the cat sat on the mat"
INVENTED = "and then it went home again"


def found(said: str, heard: str, unit: Unit = "word") -> tuple[str, ...]:
    split = str.split if unit == "word" else list
    one = Transcribed(split(said), split(heard))
    return signs(one, error_counts(one.reference, one.hypothesis), unit)


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        (SAID, SAID, ()),
        (SAID, "", ()),
        (SAID, "a dog is in this bed", ()),  # all wrong, nothing invented
        (SAID, f"{SAID} and then it went", ()),  # four words
        (SAID, f"{SAID} {INVENTED}", ("run",)),
        (SAID, f"{INVENTED} {SAID}", ("run",)),
        (SAID, f"{SAID} {INVENTED} {INVENTED}", ("run", "long")),
        ("yes", "yes it is", ()),  # thrice as long, but two words
        ("", "", ()),
        ("", "thanks", ("silence",)),
        (SAID, f"{SAID} thank you thank you thank you thank you", ("run", "long", "loop")),
        ("so he went away to sea again", "so he he he he he he", ("loop",)),  # no longer than what was said
        ("no no no no no", "no no no no no no no no", ()),  # a little more of a loop that was said
        ("very very good very very", "very very very very very", ()),  # one error
    ],
)
def test_signs_in_words(said: str, heard: str, expected: tuple[str, ...]) -> None:
    assert found(said, heard) == expected


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("你好世界", "你好世界谢谢大家", ()),
        ("你好世界今天天气", "你好世界今天天气我们一起去公园吃饭吧", ("run", "long")),
        ("你好世界", "你好世界" + "谢谢" * 6, ("run", "long", "loop")),
    ],
)
def test_signs_in_characters_take_more_of_them(said: str, heard: str, expected: tuple[str, ...]) -> None:
    assert found(said, heard, "character") == expected


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("a a", 0), ("a a a", 3), ("x a b a b a b y", 6), ("a b a b a", 0), ("a b a b a b a", 7)],
)
def test_a_loop_is_a_phrase_three_times(text: str, length: int) -> None:
    assert longest_loop(text.split()) == length


def test_long_phrases_loop_too() -> None:
    phrase = [str(number) for number in range(20)]
    assert longest_loop(phrase * 3) == 60
    assert longest_loop([*phrase, "x"] * 3) == 0  # 21 words


def test_share_has_an_interval_and_insertions_are_per_minute() -> None:
    good = Transcribed(SAID.split(), SAID.split(), 6.0)
    bad = Transcribed(SAID.split(), f"{SAID} {INVENTED}".split(), 6.0)
    one = hallucinations([good] * 18 + [bad] * 2, "word")
    assert (one.utterances, one.share.rate) == (2, 0.1)
    assert one.share.low < 0.1 < one.share.high
    assert one.signs == {"silence": 0, "run": 2, "long": 0, "loop": 0}
    assert one.insertions_per_minute == pytest.approx(12 / 2)  # twelve words in two minutes


def test_without_durations_nothing_is_per_minute() -> None:
    bad = Transcribed([], INVENTED.split())
    assert hallucinations([bad], "word").insertions_per_minute is None
    timed = replace(bad, duration_s=30.0)  # only what is timed counts
    assert hallucinations([bad, timed], "word").insertions_per_minute == pytest.approx(12)
    assert hallucinations([], "word").share.rate == 0


def test_a_speaker_who_makes_it_loop_widens_the_interval() -> None:
    good, bad = Transcribed(["a"] * 6, ["a"] * 6), Transcribed(SAID.split(), INVENTED.split() * 3)
    heard, speakers = [bad] * 10 + [good] * 40, [f"s{row // 10}" for row in range(50)]
    alone, together = (hallucinations(heard, "word", groups=groups).share for groups in (None, speakers))
    assert together.rate == alone.rate == 0.2
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_every_sign_but_silence_takes_errors() -> None:
    assert RUN == {"word": 5, "character": 10}
    one = Transcribed(SAID.split(), SAID.split())
    assert signs(one, error_counts(one.reference, one.hypothesis), "word") == ()


def test_result_files_summaries_and_reports_carry_it(tmp_path) -> None:
    result = made_result(GOOD | {"pl": f"dzień dobry polsko {'tak i nie ' * 4}"})
    pl, cy = result.hallucinations("pl"), result.hallucinations("cy")
    assert (pl.utterances, cy.utterances) == (5, 0)
    assert pl.signs["loop"] == 5 and pl.insertions_per_minute and cy.insertions_per_minute == 0
    summary = json.loads(json.dumps(result.summary()))["languages"]["pl"]
    assert {"cer", "wer", "utterances", "unit"} < set(summary)
    assert summary["hallucinations"] == asdict(pl)
    stored = json.loads(result.save(tmp_path / "r.json").read_text(encoding="utf-8"))
    assert stored["hallucinations"]["pl"]["share"]["rate"] == pytest.approx(5 / 6)
    notes = board([System("toy", result)]).notes
    assert [note for note in notes if "nobody said" in note] == [
        "toy hears what nobody said in 5 of 6 utterances in pl."
    ]
