"""Sentences of random words, for pre-training: more different words than all names of CLDR.

The words are those that the `wordfreq` package counts most often, in lower case as it lists them.
"""

from functools import cache

import numpy as np

from lora_whisper.data import espeak
from lora_whisper.data.extras import optional_module
from lora_whisper.data.texts import split_of

_MIN_LENGTH, _MAX_LENGTH = 2, 18
_CHARACTERS = (14, 84)  # of a sentence
_MOST_IN_NAME = 2  # words


@cache
def words(language: str, split: str, n_words: int = 20_000) -> tuple[str, ...]:
    """Those of the `n_words` most frequent that are of one split and read as words by espeak-ng, in order.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    listed = optional_module("wordfreq", "pretrain").top_n_list(language, n_words)
    plain = [
        w for w in listed if w.isalpha() and _MIN_LENGTH <= len(w) <= _MAX_LENGTH and split_of(w) == split
    ]
    read = espeak.phonemes(plain, language)
    pairs = zip(plain, read, strict=True)
    return tuple(word for word, sounds in pairs if sounds and "(" not in sounds and " " not in sounds)


def sentence(language: str, split: str, rng: np.random.Generator, n_words: int = 20_000) -> str:
    """Random words with capital and full stop; frequent words come oftener than rare ones."""
    text = " ".join(_drawn(words(language, split, n_words), rng))
    return text[0].upper() + text[1:] + "."


def listing(language: str, split: str, rng: np.random.Generator, n_words: int = 20_000) -> str:
    """Random words written as a list of names, of one or two words each: "Trenton, New truss, Tuesdays."."""
    chosen = _drawn(words(language, split, n_words), rng)
    names: list[str] = []
    while chosen:
        size = int(rng.integers(1, _MOST_IN_NAME + 1))
        names.append(" ".join(chosen[:size]))
        chosen = chosen[size:]
    return ", ".join(name[0].upper() + name[1:] for name in names) + "."


def _drawn(pool: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """At least one random word, all of them together about as long as one utterance."""
    limit = rng.uniform(*_CHARACTERS)
    chosen: list[str] = []
    length = 0
    while True:
        word = pool[int(len(pool) * rng.random() ** 2)]
        length += len(word) + 1
        if chosen and length > limit:
            return chosen
        chosen.append(word)
