"""Faults of a text by itself."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from lora_whisper.doctor.faults import (
    EMPTY_TEXT,
    ODD_CHARACTERS,
    SPECIAL_TOKENS,
    WRONG_SCRIPT,
    Kind,
)
from lora_whisper.languages import language as find_language

Finding = tuple[Kind, str]

_NAMES = {
    "Latn": ("LATIN",), "Cyrl": ("CYRILLIC",), "Grek": ("GREEK",), "Arab": ("ARABIC",), "Hebr": ("HEBREW",),
    "Deva": ("DEVANAGARI",), "Beng": ("BENGALI",), "Taml": ("TAMIL",), "Telu": ("TELUGU",),
    "Knda": ("KANNADA",), "Mlym": ("MALAYALAM",), "Gujr": ("GUJARATI",), "Guru": ("GURMUKHI",),
    "Sinh": ("SINHALA",), "Thai": ("THAI",), "Laoo": ("LAO",), "Khmr": ("KHMER",), "Mymr": ("MYANMAR",),
    "Tibt": ("TIBETAN",), "Geor": ("GEORGIAN",), "Armn": ("ARMENIAN",), "Ethi": ("ETHIOPIC",),
    "Hang": ("HANGUL",), "Kore": ("HANGUL", "CJK"), "Hani": ("CJK",), "Hans": ("CJK",), "Hant": ("CJK",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA"),
}  # fmt: skip
"""Script → how Unicode's names of its letters begin."""

_ALSO = {"sr": "LATIN", "uz": "CYRILLIC", "kk": "LATIN", "az": "CYRILLIC", "pa": "ARABIC", "sd": "DEVANAGARI"}
"""Languages that are written in two scripts, and the other one."""

_LEAST_IN_SCRIPT = 0.5
NO_CASE = "no case"
FULL_STYLE = "mixed case, with end mark"
"""As Whisper itself writes."""

_MARK_UP = re.compile(r"<[a-zA-Z/][^<>]*>|&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#\d+|#[xX][0-9a-fA-F]+);|https?://")
_BETWEEN_LETTERS = re.compile(r"[\W\d_]+")  # "IT-компания" is two words, each in its own alphabet
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")
_JOINERS = frozenset("\u200c\u200d")
_NO_JOINERS = frozenset(("Latn", "Cyrl", "Grek", "Armn", "Geor", "Hebr", "Kore", "Jpan", "Hans", "Hant"))
"""Scripts whose letters need no joiners, as Persian and Indic ones do."""

_END_MARKS = frozenset(".!?…。！？;:։")
_CLOSING = "\"'”’»“)]」』"


def text_faults(text: str, language: str) -> Iterator[Finding]:
    """What is wrong with a text in a language."""
    if not any(letter.isalnum() for letter in text):
        yield EMPTY_TEXT, repr(text)
        return
    special = _SPECIAL.search(text)
    if special:
        yield SPECIAL_TOKENS, special[0]
    foreign = foreign_script(text, language)
    if foreign:
        yield WRONG_SCRIPT, f"{foreign.title()} in {find_language(language).name}: {text[:40]!r}"
    odd = odd_characters(_SPECIAL.sub("", text), language)
    if odd:
        yield ODD_CHARACTERS, odd


def foreign_script(text: str, language: str) -> str | None:
    """The script in which most letters are if it is not that of the language; None if all is well."""
    expected = (
        *_NAMES.get(find_language(language).script, ()),
        *_ALSO.get(language.split("-", maxsplit=1)[0], "").split(),
    )
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if find_language(language).script not in _NAMES or not scripts:
        return None
    fitting = sum(count for name, count in scripts.items() if name in expected)
    if fitting >= _LEAST_IN_SCRIPT * scripts.total():
        return None
    return next(name for name, _ in scripts.most_common() if name not in expected)


def _script(letter: str) -> str:
    """How Unicode's name of the letter begins; the forms of East Asian type count as what they stand for."""
    name = unicodedata.name(letter, "unnamed")
    for form in ("FULLWIDTH ", "HALFWIDTH "):
        name = name.removeprefix(form)
    return name.split(" ", 1)[0].split("-", 1)[0]


def odd_characters(text: str, language: str) -> str | None:
    """What does not belong into a transcript: one that is invisible, private, broken, or mark-up."""
    mark_up = _MARK_UP.search(text)
    if mark_up:
        return f"mark-up {mark_up[0][:40]}"
    allowed = frozenset() if find_language(language).script in _NO_JOINERS else _JOINERS
    for letter in text:
        category = unicodedata.category(letter)
        if letter == "\ufffd" or (category in {"Cc", "Cf", "Co", "Cn"} and letter not in allowed):
            return f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name').lower()}"
    return _mixed_word(text)


def _mixed_word(text: str) -> str | None:
    """A word with letters of two alphabets that look alike, as Latin a in a Russian word."""
    for word in _BETWEEN_LETTERS.split(text):
        scripts = {_script(letter) for letter in word if letter.isalpha()}
        if len(scripts & {"LATIN", "CYRILLIC", "GREEK"}) > 1:
            return f"letters of two alphabets in {word!r}"
    return None


def style(text: str) -> str:
    """How a text is written: "upper", "lower" or "mixed" case, and whether it has punctuation."""
    letters = [letter for letter in text if letter.isalpha() and letter.lower() != letter.upper()]
    if not letters:
        return NO_CASE
    case = (
        "upper" if all(map(str.isupper, letters)) else "lower" if all(map(str.islower, letters)) else "mixed"
    )
    ends = text.rstrip().rstrip(_CLOSING)[-1:] in _END_MARKS
    return f"{case} case, {'with' if ends else 'without'} end mark"
