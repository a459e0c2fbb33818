"""What a corpus offers, before any of its audio is looked at."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lora_whisper.data.manifest import TimedText


@dataclass(frozen=True)
class Blob:
    """An audio file that lies within another file, as its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Entry:
    """One utterance that a corpus offers.

    Attributes:
        id: name of the utterance.
        audio: a file, which is used where it lies, or the bytes of one, which are written out as they are.
        text: transcript, NFC.
        language: normalised BCP-47 tag.
        start_s: where in the file it begins.
        duration_s: how long it is, None for all the rest of the file.
        speaker: anything that tells speakers apart.
        gender: "female", "male" or "other", if known.
        sentence: what several readings of the same sentence have in common, if known.
        segments: the text in timed pieces, if known.
        note: what is odd about it, in words that can be counted.
    """

    id: str
    audio: Path | Blob
    text: str
    language: str
    start_s: float = 0.0
    duration_s: float | None = None
    speaker: str | None = None
    gender: str | None = None
    sentence: str | None = None
    segments: tuple[TimedText, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Skip:
    """Something in a corpus that is no usable utterance, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Expected:
    """So many more entries are to come; for progress only."""

    utterances: int


Item = Entry | Skip | Expected


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        where: file and line, for messages.
        cells: texts by column name; a cell that holds nothing is empty.
        audio: the sound, where the table itself holds it.
    """

    where: str
    cells: Mapping[str, str]
    audio: Blob | None = None

    def get(self, *columns: str) -> str:
        """The first cell among these columns that holds anything, stripped; empty if none does."""
        return next((cell for column in columns if (cell := self.cells.get(column, "").strip())), "")


def tidy(text: str) -> str:
    """The text in NFC, with single spaces and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def gender_of(name: str) -> str | None:
    """`female`, `male` or `other` for what corpora write: FEMALE, F, female_feminine, or 1 (FLEURS)."""
    known = {"0": "male", "1": "female", "2": "other", "m": "male", "f": "female"}
    word = name.strip().casefold().split("_")[0]
    if word in ("male", "female", "other"):
        return word
    return known.get(word)


def limited(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """The items up to the entry number `limit`; all of them without one."""
    if limit is None:
        yield from items
        return
    promised, given = 0, 0
    for item in items:
        if isinstance(item, Expected):
            more = min(item.utterances, limit - promised)
            promised += more
            yield replace(item, utterances=more)
            continue
        yield item
        given += isinstance(item, Entry)
        if given >= limit:
            return
