"""Endlessly many short texts in a language, composed of CLDR's names, dates, numbers and measures.

Every entry belongs to exactly one split, by a hash of the entry itself, so no split says what another one
says.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from lora_whisper.data.entries import entries, locale_of, script_of, tidy
from lora_whisper.data.extras import demo_module
from lora_whisper.errors import UnknownLanguage, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

SPLITS = ("train", "dev", "test")
_TRAIN_PERCENT, _DEV_PERCENT = 80, 10
_SAME_KIND = 0.6  # share of utterances whose entries are all of one kind
_MAX_ENTRIES, _MIN_ENTRIES = 5, 10  # in an utterance, in a source
_LENGTHS = {
    "CJK": (5, 28),
    "KANA": (8, 40),
    "HANGUL": (6, 32),
}  # characters in an utterance
_DEFAULT_LENGTH = (14, 84)  # in all other scripts
_FULL_STOPS = {"CJK": "。", "KANA": "。", "DEVANAGARI": "।", "BENGALI": "।", "THAI": "", "ETHIOPIC": "።"}
_COMMAS = {"CJK": "、", "KANA": "、", "ARABIC": "، ", "THAI": " ", "ETHIOPIC": "፣ "}


@dataclass(frozen=True)
class Text:
    """What one utterance says.

    Attributes:
        written: the whole text, with capital and full stop.
        entries: the items it is made of.
    """

    written: str
    entries: tuple[str, ...]


def stable_hash(text: str) -> int:
    """A 64-bit hash of the text that is the same in every process and on every platform."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def check_split(split: str) -> str:
    """The split's name, if it is one of the three.

    Raises:
        UsageError: it is not.
    """
    if split not in SPLITS:
        raise UsageError(f"{split!r} is no split of synthetic speech; choose one of {', '.join(SPLITS)}")
    return split


def split_of(entry: str) -> str:
    """The one split that may use the entry; how it is capitalised makes no difference."""
    bucket = stable_hash(entry.casefold()) % 100
    if bucket < _TRAIN_PERCENT:
        return "train"
    return "dev" if bucket < _TRAIN_PERCENT + _DEV_PERCENT else "test"


class TextSource:
    """Texts of one language and split.

    Args:
        language: normalised language tag.
        split: one of `SPLITS`.
        kinds: the kinds of entries to use, and how often.

    Raises:
        UnknownLanguage: there are hardly any entries of these kinds in the language.
    """

    def __init__(self, language: str, split: str, kinds: "Mapping[str, float]"):
        self.language = language
        self.script = script_of(language)
        pools = {kind: _pool(language, kind, check_split(split)) for kind in kinds}
        self._pools = [(pool, kinds[kind]) for kind, pool in pools.items() if pool]
        if len(self.entries) < _MIN_ENTRIES:
            raise UnknownLanguage(
                f"{language}: too few texts that espeak-ng can read; choose another language"
            )
        total = sum(weight for _, weight in self._pools)
        self._weights = [weight / total for _, weight in self._pools]

    @property
    def entries(self) -> frozenset[str]:
        """Everything that these texts can be made of."""
        return frozenset(entry for pool, _ in self._pools for entry in pool)

    @property
    def conjunction(self) -> str:
        """What stands between the entries of a list of two."""
        return str(demo_module("babel.lists").format_list(["", ""], locale=locale_of(self.language)))

    def text(self, rng: "np.random.Generator") -> Text:
        """The next text: one to five entries as a list, or a long entry alone."""
        low, high = _LENGTHS.get(self.script, _DEFAULT_LENGTH)
        limit = rng.uniform(low, high)
        pool = self._draw_pool(rng) if rng.random() < _SAME_KIND else None
        chosen: list[str] = []
        length = 0
        while len(chosen) < _MAX_ENTRIES:
            entry = _draw(pool or self._draw_pool(rng), rng)
            length += len(entry) + 2
            if length > limit and length - len(entry) > low:
                break
            if entry not in chosen:
                chosen.append(entry)
        return Text(self._written(chosen, with_conjunction=rng.random() < 0.5), tuple(chosen))

    def _draw_pool(self, rng: "np.random.Generator") -> tuple[str, ...]:
        return self._pools[int(rng.choice(len(self._pools), p=self._weights))][0]

    def _written(self, chosen: list[str], with_conjunction: bool) -> str:
        joined = _COMMAS.get(self.script, ", ").join(chosen)
        if with_conjunction:
            listed = tidy(demo_module("babel.lists").format_list(chosen, locale=locale_of(self.language)))
            joined = joined if "(" in listed else listed  # Welsh: "a(c)" depends on the next word
        return self._capitalised(joined) + _FULL_STOPS.get(self.script, ".")

    def _capitalised(self, text: str) -> str:
        dotted = self.language in ("tr", "az") and text[0] == "i"
        return ("İ" if dotted else text[0].title()) + text[1:]


def _draw(pool: tuple[str, ...], rng: "np.random.Generator") -> str:
    return pool[int(rng.integers(len(pool)))]


@cache
def _pool(language: str, kind: str, split: str) -> tuple[str, ...]:
    return tuple(entry for entry in entries(language, kind) if split_of(entry) == split)
