"""Several results side by side: rates, what was gained and forgotten, and where the errors are."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.details import (
    Breakdown,
    Confusions,
    Scored,
    System,
    Worst,
    by_duration,
    by_speaker,
    confusions,
    worst,
)
from lora_whisper.evaluation.metrics import Comparison, ErrorCounts, Rate, Unit, paired_bootstrap
from lora_whisper.evaluation.normalizers import NORMALIZERS
from lora_whisper.evaluation.results import EvaluationResult, Failure, LanguageScore
from lora_whisper.languages import fallbacks
from lora_whisper.languages import language as find_language

AdapterChange = Literal["none", "same", "new", "changed", "removed"]
MOST_COLUMNS = 16
"""Of a table of recognised languages; the rarest share the last one."""


@dataclass(frozen=True)
class Similarity:
    """How much (0 to 1) each row's speech is taken for each column's language; `chosen` is row → column."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The scores of one language, one per system; None where a system has none."""

    language: str
    unit: Unit
    scores: tuple[LanguageScore | None, ...]

    @property
    def name(self) -> str:
        """The language in English."""
        return find_language(self.language).name

    @property
    def rates(self) -> tuple[Rate | None, ...]:
        """The rates that judge the language."""
        return tuple(judging_rate(score) if score else None for score in self.scores)

    def is_best(self, number: int) -> bool:
        """True if of several systems none has a lower rate than this one."""
        known = [rate.rate for rate in self.rates if rate]
        rate = self.rates[number]
        return len(known) > 1 and rate is not None and rate.rate == min(known)


@dataclass(frozen=True)
class Mean:
    """The mean rate of each system over languages scored in the same unit, never of both kinds."""

    unit: Unit
    languages: int
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Change:
    """One language before and after; `rewritten` counts the transcripts that differ."""

    system: str
    language: str
    unit: Unit
    utterances: int
    before: Rate
    after: Rate
    difference: Comparison
    rewritten: int
    adapter: AdapterChange

    @property
    def keeps(self) -> bool:
        """True if the language has the adapter it had, or none as before: nothing may be forgotten."""
        return self.adapter in ("none", "same")

    @property
    def worse(self) -> bool:
        """True if the whole interval of the difference is above zero."""
        return self.difference.difference.low > 0

    @property
    def better(self) -> bool:
        """True if the whole interval of the difference is below zero."""
        return self.difference.difference.high < 0


@dataclass(frozen=True)
class Normalized:
    """The judging rate of one language under each normaliser, in the order of `NORMALIZERS`."""

    system: str
    language: str
    unit: Unit
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Recognised:
    """How often the language was recognised, and what each was taken for."""

    system: str
    accuracy: float
    taken_for: Similarity


@dataclass(frozen=True)
class Board:
    """All that result files say, ready to be shown. An empty part is left out."""

    systems: tuple[System, ...]
    rows: tuple[Row, ...]
    means: tuple[Mean, ...] = ()
    before: System | None = None
    changes: tuple[Change, ...] = ()
    normalized: tuple[Normalized, ...] = ()
    recognised: tuple[Recognised, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    confusions: tuple[Confusions, ...] = ()
    worst: tuple[Worst, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What the systems are called."""
        return tuple(system.name for system in self.systems)

    @property
    def failures(self) -> tuple[tuple[str, Failure], ...]:
        """The utterances that could not be decoded, with the system that failed."""
        return tuple((system.name, one) for system in self.systems for one in system.result.failures)

    def verdict(self) -> str:
        """Return what became of the languages since before, a line per system; nothing without a before."""
        parts = [_verdict([one for one in self.changes if one.system == name]) for name in self.names]
        if len(self.names) > 1:
            return "\n".join(f"{name}: {part}" for name, part in zip(self.names, parts, strict=True) if part)
        return "".join(parts)


def board(systems: Sequence[System], before: System | None = None, *, n_worst: int = 10) -> Board:
    """Return the systems side by side, with their changes since `before`, and the worst of each language.

    Raises:
        UsageError: there is no system, two have one name, or they are not normalised alike.
        UnknownLanguage: a result is of a language that does not exist.
    """
    _check(systems, before)
    tags = sorted({tag for system in systems for tag in system.result.scores()})
    rows = tuple(_row(systems, tag) for tag in tags)
    pairs = [(system, tag) for tag in tags for system in systems if tag in system.scored]
    groups = [part(systems, tag) for tag in tags for part in (by_duration, by_speaker)]
    return Board(
        systems=tuple(systems),
        rows=rows,
        means=tuple(_means(rows)),
        before=before,
        changes=tuple(_changes(systems, before)) if before else (),
        normalized=tuple(_normalized(system, tag) for system, tag in pairs),
        recognised=tuple(one for system in systems if (one := _recognised(system))),
        breakdowns=tuple(one for one in groups if len(one.groups) > 1),
        confusions=tuple(confusions(system, tag) for system, tag in pairs),
        worst=tuple(one for tag in tags for one in worst(systems, tag, n_worst)),
        notes=tuple(_notes(systems, before, tags)),
    )


def judging_rate(score: LanguageScore) -> Rate:
    """Return the rate of the unit that judges the language."""
    return score.wer if score.unit == "word" else score.cer


def judging_counts(score: LanguageScore) -> ErrorCounts:
    """Return the counts of the unit that judges the language."""
    return score.wer_counts if score.unit == "word" else score.cer_counts


def _check(systems: Sequence[System], before: System | None) -> None:
    if not systems:
        raise UsageError("a report needs at least one result; make one with `lora-whisper evaluate --out`")
    names = [system.name for system in systems]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two systems are called {twice!r}; give their files different names")
    everything = (*systems, before) if before else tuple(systems)
    used = {system.result.normalizer: system.name for system in reversed(everything)}
    if len(used) > 1:
        listed = ", ".join(f"{name} with {normalizer}" for normalizer, name in sorted(used.items()))
        raise UsageError(f"the results are not normalised alike ({listed}): name one with --normalizer")


def _row(systems: Sequence[System], tag: str) -> Row:
    return Row(tag, find_language(tag).unit, tuple(system.result.scores().get(tag) for system in systems))


def _means(rows: Sequence[Row]) -> Iterator[Mean]:
    units: tuple[Unit, ...] = ("word", "character")
    for unit in units:
        shared = [[rate.rate for rate in row.rates if rate] for row in rows if row.unit == unit]
        complete = [rates for rates in shared if len(rates) == len(rows[0].scores)]
        if len(complete) > 1:
            columns = zip(*complete, strict=True)
            yield Mean(unit, len(complete), tuple(sum(column) / len(column) for column in columns))


def _changes(systems: Sequence[System], before: System) -> Iterator[Change]:
    """Yield a change per language that both heard alike; those that must not change first."""
    for system in systems:
        shared = [tag for tag in system.scored if tag in before.scored]
        found = [_change(system, before, tag) for tag in shared if _same_utterances(system, before, tag)]
        yield from sorted(found, key=lambda one: not one.keeps)


def _change(system: System, before: System, tag: str) -> Change:
    old, new = before.scored[tag], system.scored[tag]
    unit = find_language(tag).unit
    return Change(
        system=system.name,
        language=tag,
        unit=unit,
        utterances=len(new),
        before=judging_rate(before.result.scores()[tag]),
        after=judging_rate(system.result.scores()[tag]),
        difference=paired_bootstrap(
            [one.counts for one in old], [one.counts for one in new], groups=system.result.groups(tag)
        ),
        rewritten=sum(
            a.utterance.hypothesis != b.utterance.hypothesis for a, b in zip(old, new, strict=True)
        ),
        adapter=_adapter_change(before.result, system.result, tag),
    )


def _adapter_change(before: EvaluationResult, after: EvaluationResult, tag: str) -> AdapterChange:
    """Return what became of the adapter that the utterances of a language go to: its own or a parent's."""
    old, new = (
        next((result.adapters[one] for one in fallbacks(tag) if one in result.adapters), None)
        for result in (before, after)
    )
    if old == new:
        return "none" if new is None else "same"
    if old is None:
        return "new"
    return "removed" if new is None else "changed"


def _normalized(system: System, tag: str) -> Normalized:
    unit = find_language(tag).unit
    rates = [
        sum(replace(system.result, normalizer=name).counts(tag, unit), ErrorCounts()).rate
        for name in NORMALIZERS
    ]
    return Normalized(system.name, tag, unit, tuple(rates))


def _recognised(system: System) -> Recognised | None:
    accuracy = system.result.language_id_accuracy()
    if accuracy is None:
        return None
    heard: dict[str, Counter[str]] = {}
    for one in system.result.utterances:
        if one.predicted_language is not None:
            heard.setdefault(one.language, Counter())[one.predicted_language] += 1
    common = [tag for tag, _ in sum(heard.values(), Counter()).most_common()]
    crowded = len(common) > MOST_COLUMNS
    columns = sorted(common[: MOST_COLUMNS - 1] if crowded else common)
    rows = sorted(heard)
    shares = [[heard[row][column] / heard[row].total() for column in columns] for row in rows]
    if crowded:
        columns, shares = [*columns, "other"], [[*share, 1 - sum(share)] for share in shares]
    return Recognised(system.name, accuracy, Similarity(rows, columns, shares))


def _notes(systems: Sequence[System], before: System | None, tags: Sequence[str]) -> Iterator[str]:
    """Say what must be known before rates are compared."""
    for system in systems:
        for tag in tags:
            first = next(one for one in systems if tag in one.scored)
            mine = system.scored.get(tag, ())
            if not mine:
                yield f"{system.name} has no {tag}."
            elif sorted(_keys(mine)) != sorted(_keys(first.scored[tag])):
                yield f"{system.name} has other utterances in {tag} than {first.name}: not comparable."
            elif before and tag in before.scored and not _same_utterances(system, before, tag):
                yield f"{system.name} has other utterances in {tag} than {before.name}: no change is shown."
            invented = system.result.hallucinations(tag).utterances if mine else 0
            if invented:
                whole = _counted(len(mine), "utterance")
                yield f"{system.name} hears what nobody said in {invented:,} of {whole} in {tag}."
        if system.result.failures:
            lost = _counted(len(system.result.failures), "utterance")
            yield f"{system.name} could not decode {lost}: not in the rates."


def _same_utterances(system: System, before: System, tag: str) -> bool:
    return _keys(system.scored[tag]) == _keys(before.scored[tag])


def _keys(rows: Sequence[Scored]) -> list[tuple[str, str]]:
    return [row.key for row in rows]


def _verdict(changes: Sequence[Change]) -> str:
    kept = [one for one in changes if one.keeps]
    trained = [one for one in changes if not one.keeps]
    parts = []
    if trained:
        better, worse = sum(one.better for one in trained), sum(one.worse for one in trained)
        parts.append(
            f"Where the adapter is another than before ({_counted(len(trained), 'language')}), "
            f"{better} got surely better and {worse} surely worse."
        )
    if kept:
        what = "it" if trained else "the adapter"
        parts.append(f"Where {what} is as before ({_counted(len(kept), 'language')}), {_forgetting(kept)}.")
    return " ".join(parts)


def _forgetting(kept: Sequence[Change]) -> str:
    rewritten = sum(one.rewritten for one in kept)
    if not rewritten:
        return "so is every transcript: nothing is forgotten"
    worse = [one.language for one in kept if one.worse]
    listed = f" ({', '.join(worse)})" if worse else ""
    return f"{len(worse)} got surely worse{listed}; {_counted(rewritten, 'transcript')} changed"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
