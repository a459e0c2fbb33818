"""An alignment is shown as it is scored, and every script as it is written."""

import pytest

from lora_whisper.evaluation.alignment import Cell, cells, direction
from lora_whisper.evaluation.metrics import align, units


def shown(reference: str, hypothesis: str, unit) -> list[tuple[str, str, str]]:
    edits = align(units(reference, unit), units(hypothesis, unit))
    return [(cell.kind, cell.reference, cell.hypothesis) for cell in cells(edits, unit)]


def test_every_word_has_its_own_cell() -> None:
    assert shown("a b c d", "a x y d e", "word") == [
        ("equal", "a", "a"),
        ("replace", "b", "x"),
        ("replace", "c", "y"),
        ("equal", "d", "d"),
        ("insert", "", "e"),
    ]
    assert shown("a b", "b", "word") == [("delete", "a", ""), ("equal", "b", "b")]
    assert cells([], "word") == ()


def test_marks_stay_on_their_letters() -> None:
    assert shown("ที่นี่", "ที่นี", "character") == [
        ("equal", "ที่", "ที่"),
        ("replace", "นี่", "นี"),
    ]
    assert shown("ក្រ", "ក្រ", "character") == [("equal", "ក្រ", "ក្រ")]


def test_a_mark_too_many_is_part_of_a_replaced_cell() -> None:
    assert cells(align(list("ก"), list("ก่")), "character") == (Cell("replace", "ก", "ก่"),)
    assert cells(align([], list("ก่")), "character") == (Cell("insert", "", "ก่"),)


@pytest.mark.parametrize("unit", ["word", "character"])
def test_nothing_is_lost(unit) -> None:
    reference, hypothesis = "ภาษาไทย ดี", "ภาไทยย น่ดี"
    found = shown(reference, hypothesis, unit)
    assert "".join(cell[1] for cell in found) == reference.replace(" ", "")
    assert "".join(cell[2] for cell in found) == hypothesis.replace(" ", "")


@pytest.mark.parametrize("tag", ["ar", "he", "fa", "ur", "yi", "dv", "ps", "ku-Arab"])
def test_right_to_left(tag: str) -> None:
    assert direction(tag) == "rtl"


@pytest.mark.parametrize("tag", ["pl", "zh", "hi", "az", "ku", "uz"])
def test_left_to_right(tag: str) -> None:
    assert direction(tag) == "ltr"
