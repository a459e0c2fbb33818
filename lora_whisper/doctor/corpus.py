"""Faults that show only when utterances are compared: with others of their language, and between splits."""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
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
    PLAIN_STYLE,
    TOO_FAST,
    TOO_SLOW,
    Fault,
    Kind,
    Place,
)
from lora_whisper.doctor.recordings import Heard
from lora_whisper.doctor.texts import FULL_STYLE, NO_CASE, style
from lora_whisper.languages import language as find_language

_FAST, _SLOW = (3.0, 5.0), (4.0, 10.0)
"""Least and most times the pace of its language, up or down, at which an utterance is suspect."""

_DEVIATIONS = 6.0
"""Where it is suspect between these, in robust standard deviations of the logarithm of the rate."""

_LEAST_TO_COMPARE = 8
_MAIN_STYLE = 0.8
_SHORT_TEXT = {"word": 12, "character": 6}  # characters; "yes" may well be said in two splits


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
        spread = math.exp(_DEVIATIONS * _deviation(rates.values(), usual))
        fastest, slowest = (min(max(spread, least), most) for least, most in (_FAST, _SLOW))
        for place, rate in rates.items():
            detail = f"{rate:.1f} characters a second; usual in {tag}: {usual:.1f}"
            if rate > fastest * usual:
                yield Fault(TOO_FAST, place, detail)
            elif rate < usual / slowest:
                yield Fault(TOO_SLOW, place, detail)


def _deviation(rates: Iterable[float], usual: float) -> float:
    """Standard deviation of the logarithms, from the median of their distances: outliers do not widen it."""
    return 1.4826 * median(abs(math.log(rate / usual)) for rate in rates)


def style_faults(items: Sequence[Item]) -> Iterator[Fault]:
    """Texts in another style than most of their language; languages in many styles, or a plain one."""
    for tag, own in _by(items, lambda item: item.utterance.language).items():
        styles = {item.place: found for item in own if (found := style(item.utterance.text)) != NO_CASE}
        if len(styles) >= _LEAST_TO_COMPARE:
            yield from _of_styles(str(tag), styles)


def _of_styles(tag: str, styles: Mapping[Place, str]) -> Iterator[Fault]:
    """Each text that is unlike most; where there is no such majority, one fault for the language."""
    counts = Counter(styles.values())
    common, most = counts.most_common(1)[0]
    others = [place for place, found in styles.items() if found != common]
    if most < _MAIN_STYLE * len(styles):
        shares = "; ".join(f"{100 * n / len(styles):.0f} % {name}" for name, n in counts.most_common())
        yield Fault(MIXED_STYLE, others[0], f"{tag} has {shares}")
        return
    yield from (Fault(MIXED_STYLE, one, f"{styles[one]}; most of {tag}: {common}") for one in others)
    if common != FULL_STYLE:
        yield Fault(PLAIN_STYLE, next(iter(styles)), f"{tag}: {common}")


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
    yield from _shared(items, LEAKED_SPEAKER, _speaker, once=True)


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
    said, tag = _said(item), item.utterance.language
    return f"{tag} {said}" if len(said) >= _SHORT_TEXT[find_language(tag).unit] else ""


def _speaker(item: Item) -> str:
    """The speaker in a language: each corpus has its own speaker 1."""
    return f"{item.utterance.language} {item.utterance.speaker}" if item.utterance.speaker else ""


def _said(item: Item) -> str:
    """The text without its case and punctuation; marks are kept, for they are the vowels of Hindi."""
    return " ".join("".join(map(_heard_letter, item.utterance.text.casefold())).split())


def _heard_letter(letter: str) -> str:
    return letter if letter.isalnum() or unicodedata.category(letter).startswith("M") else " "


def _characters(item: Item) -> int:
    return sum(letter.isalnum() for letter in item.utterance.text)


def _comparable(item: Item) -> bool:
    return item.heard.duration_s > 0 and _characters(item) > 0


def _by(items: Sequence[Item], key: Callable[[Item], Hashable]) -> Mapping[Hashable, list[Item]]:
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
