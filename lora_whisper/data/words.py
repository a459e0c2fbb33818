"""Sentences of random words, for pre-training: more different words than all names of CLDR.

The words are those that the `wordfreq` package counts most often, in lower case as it lists them.
"""

from functools import cache

import numpy as np

from lora_whisper.data import espeak
from lora_whisper.data.extras import optional_module
from lora_whisper.data.texts import split_of

N_WORDS = 20_000
"""Most frequent words of a language to choose from."""

_MIN_LENGTH, _MAX_LENGTH = 2, 18
_CHARACTERS = (14, 84)  # of a sentence


@cache
def words(language: str, split: str) -> tuple[str, ...]:
    """The words of one split that espeak-ng reads as words, most frequent first.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    listed = optional_module("wordfreq", "pretrain").top_n_list(language, N_WORDS)
    plain = [
        w for w in listed if w.isalpha() and _MIN_LENGTH <= len(w) <= _MAX_LENGTH and split_of(w) == split
    ]
    read = espeak.phonemes(plain, language)
    pairs = zip(plain, read, strict=True)
    return tuple(word for word, sounds in pairs if sounds and "(" not in sounds and " " not in sounds)


def sentence(language: str, split: str, rng: np.random.Generator) -> str:
    """Random words with capital and full stop; frequent words come oftener than rare ones."""
    pool = words(language, split)
    limit = rng.uniform(*_CHARACTERS)
    chosen: list[str] = []
    length = 0
    while True:
        word = pool[int(len(pool) * rng.random() ** 2)]
        length += len(word) + 1
        if chosen and length > limit:
            break
        chosen.append(word)
    text = " ".join(chosen)
    return text[0].upper() + text[1:] + "."
