"""Utterances of random words and names, for pre-training: more different words than all names of CLDR.

The words are those that the `wordfreq` package counts most often, in lower case as it lists them, and the
proper names of spelling dictionaries. They belong to no split, as the vocabulary of a language does not, but
each utterance has a word that no text of the general domain's splits "dev" and "test" has, so none of these
is ever trained on. Names of ISO standards go further: they have no word that only those splits have.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lora_whisper.data import espeak
from lora_whisper.data.dictionaries import capitalised
from lora_whisper.data.domains import find_domain
from lora_whisper.data.entries import locale_of, tidy
from lora_whisper.data.extras import demo_module, optional_module
from lora_whisper.data.texts import TextSource

_MIN_LENGTH, _MAX_LENGTH = 2, 18
_CHARACTERS = (14, 84)  # of an utterance
_MOST_IN_NAME = 2  # words
_N_PROPER_NAMES = 10_000  # of a language, most frequent first
_CONJOINED = 0.5  # of the lists
_NAMED = 0.4  # of the words of a sentence with names


@cache
def words(language: str, n_words: int = 20_000) -> tuple[str, ...]:
    """Those of the `n_words` most frequent that espeak-ng reads as words, the most frequent first.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    listed = optional_module("wordfreq", "pretrain").top_n_list(language, n_words)
    return _readable([word for word in listed if word.isalpha()], language)


@cache
def proper_names(language: str) -> tuple[str, ...]:
    """Those of spelling dictionaries that espeak-ng reads as words, the most frequent first.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    frequency = optional_module("wordfreq", "pretrain").word_frequency
    found = dict.fromkeys(capitalised(language))
    ranked = sorted(found, key=lambda name: -frequency(name.casefold(), language))
    return _readable(ranked[:_N_PROPER_NAMES], language)


def _readable(candidates: Sequence[str], language: str) -> tuple[str, ...]:
    """Those of usual length that espeak-ng reads as one word."""
    usual = [word for word in candidates if _MIN_LENGTH <= len(word) <= _MAX_LENGTH]
    pairs = zip(usual, espeak.phonemes(usual, language), strict=True)
    return tuple(word for word, sounds in pairs if sounds and "(" not in sounds and " " not in sounds)


def sentence(language: str, rng: np.random.Generator, n_words: int = 20_000) -> str:
    """Random words with capital and full stop; frequent words come oftener than rare ones."""
    pool = words(language, n_words)
    return _as_sentence(_drawn(language, lambda: pool[int(len(pool) * rng.random() ** 2)], rng))


def listing(language: str, rng: np.random.Generator, n_words: int = 20_000) -> str:
    """Words, rarer ones than in a sentence, as a list of names of one or two: "Trenton, New truss, Too."."""
    pool = words(language, n_words)
    return _as_list(language, _drawn(language, lambda: pool[int(len(pool) * rng.random() ** 1.5)], rng), rng)


def roll(language: str, rng: np.random.Generator) -> str:
    """Proper names of spelling dictionaries as a list: "Lyon, Deneb and Paulo Aquin.".

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    return _as_list(language, _drawn(language, lambda: _name(language, rng), rng), rng)


def mingled(language: str, rng: np.random.Generator, n_words: int = 20_000) -> str:
    """Random words, most of them very frequent, with proper names between: "Of Lyon three Deneb hour the.".

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    pool = words(language, n_words)

    def draw() -> str:
        if rng.random() < _NAMED:
            return _name(language, rng)
        return pool[int(len(pool) * rng.random() ** 3)]

    return _as_sentence(_drawn(language, draw, rng))


def naming(language: str, rng: np.random.Generator) -> str:
    """A list of names of `lora_whisper.data.names`, without any word that only held-out texts have.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    source = TextSource(language, "train", {"name": 1.0})
    while True:
        text = source.text(rng).written
        if only_held_out_words(language).isdisjoint(_words_of(text)):
            return text


def _as_sentence(chosen: list[str]) -> str:
    text = " ".join(chosen)
    return text[0].upper() + text[1:] + "."


def _as_list(language: str, chosen: list[str], rng: np.random.Generator) -> str:
    """The words as names of one or two words, every other time with a conjunction before the last."""
    names: list[str] = []
    while chosen:
        size = int(rng.integers(1, _MOST_IN_NAME + 1))
        name = " ".join(chosen[:size])
        names.append(name[0].upper() + name[1:])
        chosen = chosen[size:]
    if rng.random() < _CONJOINED:
        return tidy(demo_module("babel.lists").format_list(names, locale=locale_of(language))) + "."
    return ", ".join(names) + "."


def _name(language: str, rng: np.random.Generator) -> str:
    pool, odds = proper_names(language), _odds(language)
    return pool[min(int(np.searchsorted(odds, rng.random(), side="right")), len(pool) - 1)]


@cache
def _odds(language: str) -> NDArray[np.float64]:
    """Odds that one of the first n proper names is drawn: frequent ones come oftener."""
    weights = 1 / np.sqrt(np.arange(len(proper_names(language))) + 300)
    return np.cumsum(weights / weights.sum())


def _drawn(language: str, draw: Callable[[], str], rng: np.random.Generator) -> list[str]:
    """Words about as long as one utterance, at least one, and one at least that no held-out text has."""
    limit = rng.uniform(*_CHARACTERS)
    chosen: list[str] = []
    length = 0
    while True:
        word = draw()
        length += len(word) + 1
        if length > limit and not held_out_words(language).issuperset(map(str.casefold, chosen)):
            return chosen
        chosen.append(word)


@cache
def held_out_words(language: str) -> frozenset[str]:
    """Every word of the general domain's texts of dev and test, in lower case, with those that join lists."""
    return _said(language, "dev") | _said(language, "test")


@cache
def only_held_out_words(language: str) -> frozenset[str]:
    """Those of `held_out_words` that no text of the general domain's training split has."""
    return held_out_words(language) - _said(language, "train")


def _said(language: str, split: str) -> frozenset[str]:
    source = TextSource(language, split, find_domain("general").kinds)
    texts = [*source.entries, source.conjunction]
    return frozenset(word for text in texts for word in _words_of(text))


def _words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
