"""Faults that show only when utterances are compared: with others of their language, and between splits."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lora_whisper.data.manifest import Utterance
from lora_whisper.doctor.faults import (
    CONTRADICTION,
    DUPLICATE,
    LEAKED_AUDIO,
    LEAKED_SPEAKER,
    LEAKED_TEXT,
    MIXED_STYLE,
    TOO_FAST,
    TOO_SLOW,
    Fault,
    Kind,
    Place,
)
from lora_whisper.doctor.recordings import Heard
from lora_whisper.doctor.texts import NO_CASE, style

_FASTEST, _SLOWEST = 4.0, 0.12
"""Times the median rate of its language at which an utterance is suspect."""

_LEAST_TO_COMPARE = 8
_RARE_STYLE = 0.1
_SHORT_TEXT = 12  # characters; "yes" may well be said in two splits


@dataclass(frozen=True)
class Item:
    """An utterance, its line, and what was heard of it."""

    place: Place
    utterance: Utterance
    heard: Heard


def rate_faults(items: Sequence[Item]) -> Iterator[Fault]:
    """Texts that are far longer or shorter than is usual for their time in their language."""
    for tag, own in _by(items, lambda item: item.utterance.language).items():
        rates = {item.place: _characters(item) / item.heard.duration_s for item in own if _comparable(item)}
        if len(rates) < _LEAST_TO_COMPARE:
            continue
        usual = median(rates.values())
        for place, rate in rates.items():
            detail = f"{rate:.1f} characters a second; usual in {tag}: {usual:.1f}"
            if rate > _FASTEST * usual:
                yield Fault(TOO_FAST, place, detail)
            elif rate < _SLOWEST * usual:
                yield Fault(TOO_SLOW, place, detail)


def style_faults(items: Sequence[Item]) -> Iterator[Fault]:
    """Texts of a style that less than a tenth of their language has, where one style has most of it."""
    for tag, own in _by(items, lambda item: item.utterance.language).items():
        styles = {item.place: found for item in own if (found := style(item.utterance.text)) != NO_CASE}
        counts = Counter(styles.values())
        if not counts:
            continue
        common, most = counts.most_common(1)[0]
        if len(own) < _LEAST_TO_COMPARE or most < (1 - 2 * _RARE_STYLE) * len(own):
            continue
        for place, found in styles.items():
            if found != common and counts[found] < _RARE_STYLE * len(own):
                yield Fault(MIXED_STYLE, place, f"{found}; most of {tag}: {common}")


def copies(items: Sequence[Item]) -> Iterator[Fault]:
    """Recordings that stand twice in one manifest, with one text or with two."""
    by_audio = _by(
        [item for item in items if item.heard.sha256], lambda item: (item.place.manifest, item.heard.sha256)
    )
    for same in by_audio.values():
        first, *others = same
        for item in others:
            kind = DUPLICATE if _said(item) == _said(first) else CONTRADICTION
            yield Fault(kind, item.place, f"as {first.place}")


def leaks(items: Sequence[Item]) -> Iterator[Fault]:
    """What stands in more than one manifest: recordings, texts, and speakers, each of these once."""
    yield from _shared(items, LEAKED_AUDIO, lambda item: item.heard.sha256)
    yield from _shared(items, LEAKED_TEXT, _long_text)
    yield from _shared(items, LEAKED_SPEAKER, lambda item: item.utterance.speaker or "", once=True)


def _shared(
    items: Sequence[Item], kind: Kind, key: Callable[[Item], str], once: bool = False
) -> Iterator[Fault]:
    for value, same in _by([item for item in items if key(item)], key).items():
        first = same[0]
        told: set[object] = {first.place.manifest}
        for item in same:
            if item.place.manifest == first.place.manifest or (once and item.place.manifest in told):
                continue
            told.add(item.place.manifest)
            named = "" if kind is LEAKED_AUDIO else f": {str(value)[:40]!r}"
            yield Fault(kind, item.place, f"also in {first.place}{named}")


def _long_text(item: Item) -> str:
    said = _said(item)
    return f"{item.utterance.language} {said}" if len(said) >= _SHORT_TEXT else ""


def _said(item: Item) -> str:
    return " ".join(item.utterance.text.casefold().split())


def _characters(item: Item) -> int:
    return sum(letter.isalnum() for letter in item.utterance.text)


def _comparable(item: Item) -> bool:
    return item.heard.duration_s > 0 and _characters(item) > 0


def _by(items: Sequence[Item], key: Callable[[Item], Hashable]) -> Mapping[Hashable, list[Item]]:
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
