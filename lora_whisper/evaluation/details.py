"""Where the errors are: groups of utterances, confusions, and the worst utterances with their sound."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lora_whisper.evaluation.alignment import Cell, cells
from lora_whisper.evaluation.metrics import (
    Edit,
    ErrorCounts,
    Rate,
    Unit,
    align,
    bootstrap_interval,
    error_counts,
    units,
)
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.evaluation.players import Clip
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult
from lora_whisper.languages import language as find_language

GroupKind = Literal["duration", "speaker"]
DURATIONS = (
    ("under 2 s", 2.0),
    ("2–5 s", 5.0),
    ("5–10 s", 10.0),
    ("10–20 s", 20.0),
    ("20–30 s", 30.0),
    ("over 30 s", float("inf")),
)
"""Groups of utterances by length, and where each ends."""
MOST_SPEAKERS = 8
MOST_CONFUSIONS = 8


@dataclass(frozen=True)
class System:
    """A result and what it is called; `folder` is where its file is, for audio named relative to it."""

    name: str
    result: EvaluationResult
    folder: Path = Path()

    @cached_property
    def scored(self) -> Mapping[str, Sequence["Scored"]]:
        """The utterances of each language, aligned in the unit that judges it."""
        found: dict[str, list[Scored]] = {}
        for one in self.result.utterances:
            found.setdefault(one.language, []).append(self._scored(one))
        return dict(sorted(found.items()))

    def clip(self, utterance: UtteranceResult) -> Clip | None:
        """Return where the sound of an utterance is; None if the result does not say."""
        if not utterance.audio:
            return None
        beside = self.folder / utterance.audio
        path = beside if beside.is_file() else Path(utterance.audio)
        return Clip(path, utterance.start_s, utterance.duration_s or None)

    def _scored(self, one: UtteranceResult) -> "Scored":
        unit = find_language(one.language).unit
        said, heard = (
            units(normalize(text, one.language, self.result.normalizer), unit)
            for text in (one.reference, one.hypothesis)
        )
        return Scored(one, error_counts(said, heard), tuple(align(said, heard)))


@dataclass(frozen=True)
class Scored:
    """An utterance, its errors and its alignment in the unit that judges its language."""

    utterance: UtteranceResult
    counts: ErrorCounts
    edits: tuple[Edit, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What must be equal for two systems to have heard the same."""
        return self.utterance.id, self.utterance.reference


@dataclass(frozen=True)
class Group:
    """Some utterances of a language and the rate of each system on them, None where it has none of them."""

    name: str
    utterances: int
    rates: tuple[Rate | None, ...]


@dataclass(frozen=True)
class Breakdown:
    """The groups of one language; `left_out` counts groups that are not shown."""

    language: str
    by: GroupKind
    groups: tuple[Group, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Confusion:
    """What was taken for what, and how often; one of them is empty for a deletion or an insertion."""

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True)
class Confusions:
    """The most frequent errors of one system in one language, by kind."""

    system: str
    language: str
    substitutions: tuple[Confusion, ...]
    deletions: tuple[Confusion, ...]
    insertions: tuple[Confusion, ...]


@dataclass(frozen=True)
class Heard:
    """What one system made of an utterance: as written, aligned, and its errors."""

    system: str
    text: str
    cells: tuple[Cell, ...]
    counts: ErrorCounts
    predicted_language: str | None


@dataclass(frozen=True)
class Worst:
    """One of the utterances with the most errors, and what every system heard."""

    utterance: UtteranceResult
    clip: Clip | None
    heard: tuple[Heard, ...]


def by_duration(systems: Sequence[System], tag: str) -> Breakdown:
    """Return the rates of utterances of similar length, short ones first; empty groups are left out."""
    names = [name for name, _ in DURATIONS]
    groups = _groups(systems, tag, lambda one: _duration_group(one.duration_s))
    return Breakdown(tag, "duration", tuple(groups[name] for name in names if name in groups))


def by_speaker(systems: Sequence[System], tag: str, most: int = MOST_SPEAKERS) -> Breakdown:
    """Return the rates of the speakers understood worst, by the worst rate of any system.

    Utterances without a speaker belong to no group.
    """
    groups = list(_groups(systems, tag, lambda one: one.speaker).values())
    ranked = sorted(groups, key=lambda group: max(rate.rate for rate in group.rates if rate), reverse=True)
    return Breakdown(tag, "speaker", tuple(ranked[:most]), left_out=max(0, len(ranked) - most))


def confusions(system: System, tag: str, most: int = MOST_CONFUSIONS) -> Confusions:
    """Return the most frequent substitutions, deletions and insertions of single words or characters.

    What happened only once is left out.
    """
    found: dict[str, Counter[tuple[str, str]]] = {
        kind: Counter() for kind in ("replace", "delete", "insert", "equal")
    }
    for edit in (edit for one in system.scored.get(tag, ()) for edit in one.edits):
        if edit.kind != "equal":
            found[edit.kind].update(_pairs(edit))
    tops = {
        kind: tuple(Confusion(*pair, count) for pair, count in _most_common(counter, most))
        for kind, counter in found.items()
    }
    return Confusions(system.name, tag, tops["replace"], tops["delete"], tops["insert"])


def worst(systems: Sequence[System], tag: str, most: int) -> tuple[Worst, ...]:
    """Return the utterances with the highest error rate of any system, then most errors; no perfect ones."""
    rows = _paired(systems, tag)
    faulty = [row for row in rows if any(one.counts.errors for one in row if one)]
    faulty.sort(key=_badness, reverse=True)
    return tuple(_worst(systems, row) for row in faulty[:most])


def _groups(
    systems: Sequence[System], tag: str, name: Callable[[UtteranceResult], str | None]
) -> dict[str, Group]:
    parts = [_split(system.scored.get(tag, ()), name) for system in systems]
    names = dict.fromkeys(key for part in parts for key in part)
    return {
        key: Group(
            key,
            max(len(part.get(key, ())) for part in parts),
            tuple(_rate(part[key]) if key in part else None for part in parts),
        )
        for key in names
    }


def _split(rows: Iterable[Scored], name: Callable[[UtteranceResult], str | None]) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for row in rows:
        key = name(row.utterance)
        if key:
            groups.setdefault(key, []).append(row)
    return groups


def _rate(rows: Sequence[Scored]) -> Rate:
    speakers = [row.utterance.speaker for row in rows]
    groups = [f"speaker {name}" if name else f"row {number}" for number, name in enumerate(speakers)]
    return bootstrap_interval([row.counts for row in rows], groups=groups)


def _duration_group(duration_s: float) -> str:
    return next((name for name, end_s in DURATIONS if duration_s < end_s), DURATIONS[-1][0])


def _pairs(edit: Edit) -> Iterator[tuple[str, str]]:
    for place in range(max(len(edit.reference), len(edit.hypothesis))):
        yield "".join(edit.reference[place : place + 1]), "".join(edit.hypothesis[place : place + 1])


def _most_common(counter: Counter[tuple[str, str]], most: int) -> list[tuple[tuple[str, str], int]]:
    """Return the largest counts above one; what is equally frequent stands in the order of its letters."""
    repeated = [item for item in counter.items() if item[1] > 1]
    return sorted(repeated, key=lambda item: (-item[1], item[0]))[:most]


def _paired(systems: Sequence[System], tag: str) -> list[list[Scored | None]]:
    """Return a row per utterance that any system has, with what each made of it."""
    tables = [{one.key: one for one in system.scored.get(tag, ())} for system in systems]
    keys = dict.fromkeys(key for table in tables for key in table)
    return [[table.get(key) for table in tables] for key in keys]


def _badness(row: Sequence[Scored | None]) -> tuple[float, int]:
    counts = [one.counts for one in row if one]
    return max(count.rate for count in counts), max(count.errors for count in counts)


def _worst(systems: Sequence[System], row: Sequence[Scored | None]) -> Worst:
    found = [(system, one) for system, one in zip(systems, row, strict=True) if one]
    unit: Unit = find_language(found[0][1].utterance.language).unit
    clips = (system.clip(one.utterance) for system, one in found)
    return Worst(
        utterance=found[0][1].utterance,
        clip=next((clip for clip in clips if clip), None),
        heard=tuple(
            Heard(
                system.name,
                one.utterance.hypothesis,
                cells(one.edits, unit),
                one.counts,
                one.utterance.predicted_language,
            )
            for system, one in found
        ),
    )
