"""Who said what above what was heard: an alignment as cells that can be shown one beside the other."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lora_whisper.evaluation.metrics import Edit, EditKind, Unit
from lora_whisper.languages import language as find_language

_RIGHT_TO_LEFT = frozenset(
    ["Adlm", "Arab", "Aran", "Hebr", "Mand", "Mend", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa"]
)
_JOINERS = ("\u1039", "\u17d2")  # Myanmar and Khmer: the consonant that follows is written below


@dataclass(frozen=True)
class Cell:
    """Reference above hypothesis; one of them is empty where something was deleted or inserted."""

    kind: EditKind
    reference: str
    hypothesis: str


def cells(edits: Sequence[Edit], unit: Unit) -> tuple[Cell, ...]:
    """Return the alignment cell by cell: a word each, or a character with the marks that stand on it.

    Neither half of a cell begins with a mark that belongs to the cell before, so scripts look as written;
    a cell joined of several kinds counts as replaced.
    """
    joined: list[Cell] = []
    for cell in _pairs(edits):
        if joined and unit == "character" and _belongs(joined[-1], cell):
            joined[-1] = _merged(joined[-1], cell)
        else:
            joined.append(cell)
    return tuple(joined)


def direction(tag: str) -> Literal["ltr", "rtl"]:
    """Return how the language is written: "rtl" from right to left.

    Raises:
        UnknownLanguage: it is no valid tag.
    """
    return "rtl" if find_language(tag).script in _RIGHT_TO_LEFT else "ltr"


def _pairs(edits: Sequence[Edit]) -> Iterator[Cell]:
    for edit in edits:
        for place in range(max(len(edit.reference), len(edit.hypothesis))):
            yield Cell(
                edit.kind,
                "".join(edit.reference[place : place + 1]),
                "".join(edit.hypothesis[place : place + 1]),
            )


def _belongs(before: Cell, cell: Cell) -> bool:
    sides = ((before.reference, cell.reference), (before.hypothesis, cell.hypothesis))
    return any(_is_mark(right) or left.endswith(_JOINERS) for left, right in sides if right)


def _is_mark(text: str) -> bool:
    return unicodedata.category(text[0]).startswith("M")


def _merged(before: Cell, cell: Cell) -> Cell:
    reference, hypothesis = before.reference + cell.reference, before.hypothesis + cell.hypothesis
    if reference and hypothesis:
        return Cell("equal" if reference == hypothesis else "replace", reference, hypothesis)
    return Cell("delete" if reference else "insert", reference, hypothesis)
