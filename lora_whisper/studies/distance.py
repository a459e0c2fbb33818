"""How far languages are from each other by their words, without listening: a yardstick for similarity."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rapidfuzz.distance import Levenshtein

from lora_whisper.data import espeak
from lora_whisper.data.numerals import cardinal
from lora_whisper.errors import UnknownLanguage

NUMBERS = (*range(1, 21), *range(30, 101, 10))
"""What is compared: words that every language has."""

_STRESS = str.maketrans("", "", "ˈˌː-‿ _|0123456789")


def word_distance(one: str, other: str) -> float:
    """Distance of two languages, 0 to about 1: LDND of their number words, as espeak-ng pronounces them.

    The mean normalised Levenshtein distance between words of the same meaning, divided by that between
    words of different meanings, which takes out what is due to chance (Wichmann et al. 2010,
    doi:10.1016/j.physa.2010.05.011, there with the 40 words of Swadesh's list).

    Raises:
        UnknownLanguage: fewer than half of the numbers have words in both.
        MissingExtra: the `demo` extra is not installed.
    """
    words, others = _words(one), _words(other)
    shared = [number for number in NUMBERS if number in words and number in others]
    if 2 * len(shared) < len(NUMBERS):
        raise UnknownLanguage(f"{one} and {other}: too few number words to compare; choose other languages")
    distance = Levenshtein.normalized_distance
    same = fmean(distance(words[n], others[n]) for n in shared)
    different = fmean(distance(words[n], others[m]) for n in shared for m in shared if n != m)
    return same / different


def distances(new: Sequence[str], base: Sequence[str]) -> dict[str, dict[str, float]]:
    """`word_distance` of each new language to each base language."""
    return {tag: {other: word_distance(tag, other) for other in base} for tag in new}


def _words(language: str) -> Mapping[int, str]:
    """The number words of a language in IPA, without stress and length."""
    written = {number: cardinal(language, number) for number in NUMBERS}
    known = {number: text for number, text in written.items() if text}
    spoken = espeak.phonemes(list(known.values()), language)
    return {n: sound.translate(_STRESS) for n, sound in zip(known, spoken, strict=True) if sound}
