"""Text as it is compared: what counts as the same word in 100 languages.

| name              | what it does                                                                         |
|-------------------|--------------------------------------------------------------------------------------|
| `raw`             | NFC and single spaces: case and punctuation count                                     |
| `lora-whisper-v1` | also folds case and drops punctuation and symbols; combining marks stay              |
| `lora-whisper-v2` | also folds what a language writes in two ways: see `SPELLINGS` and `UNVOWELLED`      |
| `whisper-basic`   | behaves as OpenAI's `BasicTextNormalizer`, to compare with published numbers          |
| `whisper-english` | OpenAI's `EnglishTextNormalizer` for English, `whisper-basic` for all else, likewise |

Whisper's normaliser turns every combining mark into a space, so in Devanagari, Tamil or Thai most spelling
mistakes cost nothing: two wrong words of four can score 0 %. Use it to compare with published numbers,
never to judge.

What a name does never changes: a rule that is added makes another name. What is a letter and what a mark
comes from Unicode's tables, though, and English from a library, so result files record `version` too.
"""

import importlib
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from lora_whisper.errors import MissingExtra, UsageError
from lora_whisper.languages import language as find_language

DEFAULT_NORMALIZER = "lora-whisper-v1"
NORMALIZERS = ("raw", DEFAULT_NORMALIZER, "whisper-basic")
"""Those that reports show side by side."""
ALL_NORMALIZERS = ("raw", "lora-whisper-v1", "lora-whisper-v2", "whisper-basic", "whisper-english")

Replacement = tuple[re.Pattern[str], str]

SPELLINGS: dict[str, tuple[Replacement, ...]] = {
    "Arab": ((re.compile("\u0640"), ""),),  # tatweel only stretches the line
    "Thai": (
        (re.compile("\u0e40\u0e40"), "\u0e41"),  # two sara e typed for one sara ae
        (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),  # sara am in two parts
    ),
    "Laoo": ((re.compile("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2"), "\\1\u0eb3"),),
    "fa": ((re.compile("[\u064a\u0649]"), "\u06cc"), (re.compile("\u0643"), "\u06a9")),  # Arabic keyboards
    "ur": ((re.compile("[\u064a\u0649]"), "\u06cc"), (re.compile("\u0643"), "\u06a9")),
    "ro": ((re.compile("ş"), "ș"), (re.compile("ţ"), "ț")),  # cedillas of old keyboards
    "ca": ((re.compile("(?<=l)[·•.‧](?=l)"), ""), (re.compile("ŀ[·•.‧]?(?=l)"), "l")),  # one word: col·legi
    "he": ((re.compile('(?<=[א-ת])["״”“](?=[א-ת])'), ""),),  # an abbreviation is one word
    "vi": tuple(
        (re.compile(rf"{before}{after}(?!\w)"), to)
        for before, after, to in (
            *zip("ooooo", "àáảãạ", ("òa", "óa", "ỏa", "õa", "ọa"), strict=True),
            *zip("ooooo", "èéẻẽẹ", ("òe", "óe", "ỏe", "õe", "ọe"), strict=True),
            *zip(["(?<!q)u"] * 5, "ỳýỷỹỵ", ("ùy", "úy", "ủy", "ũy", "ụy"), strict=True),
        )
    ),  # the tone of hoà, hòa may stand on either vowel
}
"""What has two spellings that no listener can tell apart, by language or script: pattern, replacement.

Applied to lower-case NFC text, before punctuation is dropped.
"""

UNVOWELLED: dict[str, re.Pattern[str]] = {
    "Arab": re.compile(
        "[\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"
    ),
    "Hebr": re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"),
}
"""Vowel signs that ordinary spelling leaves out and a writer may add anywhere, by script.

With and without them it is the same word, correctly spelt; hamza and madda change it and stay. Not in
`_VOWELLED`, where they belong to the spelling.
"""

_VOWELLED = ("ks", "yi")  # Kashmiri, Yiddish
_APOSTROPHES = "'’‘ʼʻ＇`´"
_DOTTED_I = ("tr", "az")
_WIDE_SCRIPTS = ("Hans", "Hant", "Jpan", "Kore")
_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESISED = re.compile(r"\([^)]+\)")
_NOT_WHISPERS = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")


def normalize(text: str, language: str, name: str = DEFAULT_NORMALIZER) -> str:
    """Return `text` as the normaliser `name` compares it; `language` is a tag such as `pt-BR`.

    Raises:
        UsageError: no normaliser has this name.
        UnknownLanguage: `language` is not a language tag.
        MissingExtra: `whisper-english` needs a library that is not installed.
    """
    if name == "raw":
        return _collapse(unicodedata.normalize("NFC", text))
    if name == "lora-whisper-v1":
        return _lora_whisper(text, language, spellings=False)
    if name == "lora-whisper-v2":
        return _lora_whisper(text, language, spellings=True)
    if name == "whisper-basic":
        return _whisper_basic(text)
    if name == "whisper-english":
        return _whisper_english(text, language)
    raise UsageError(f"no normalizer {name!r}; choose one of {', '.join(ALL_NORMALIZERS)}")


def version(name: str) -> str:
    """Return what else decides how `name` normalises: the tables of Unicode, and the library for English."""
    unicode = f"Unicode {unicodedata.unidata_version}"
    if name != "whisper-english":
        return unicode
    return f"{unicode}, whisper-normalizer {importlib.metadata.version('whisper-normalizer')}"


def _lora_whisper(text: str, language: str, *, spellings: bool) -> str:
    """Fold what a listener cannot hear (case, punctuation, symbols, width) and nothing that changes a word.

    An apostrophe inside a word stays (`i'r`, `l'eau`), a hyphen separates words, invisible characters vanish,
    `ß` becomes `ss` and a final sigma an ordinary one. Languages scored in characters lose their spaces.
    """
    found = find_language(language)
    text = unicodedata.normalize("NFKC" if found.script in _WIDE_SCRIPTS else "NFC", text)
    base = found.tag.split("-")[0]
    if base in _DOTTED_I:
        text = text.replace("İ", "i").replace("I", "ı")
    folded = unicodedata.normalize("NFC", text.casefold())
    visible = "".join(character for character in folded if unicodedata.category(character) != "Cf")
    if spellings:
        visible = _one_spelling(visible, base, found.script)
    kept = _collapse(_drop_punctuation(visible))
    return kept.replace(" ", "") if found.unit == "character" else kept


def _one_spelling(text: str, base: str, script: str) -> str:
    """Return `text` with one spelling of what has two in this language, and ASCII digits."""
    for pattern, replacement in (*SPELLINGS.get(script, ()), *SPELLINGS.get(base, ())):
        text = pattern.sub(replacement, text)
    if script in UNVOWELLED and base not in _VOWELLED:
        text = UNVOWELLED[script].sub("", text)
    return "".join(str(unicodedata.decimal(character, character)) for character in text)


def _drop_punctuation(text: str) -> str:
    """Return `text` with a space for all but letters, marks and numbers, and `'` for apostrophes in words."""
    kinds = [unicodedata.category(character)[0] for character in text]
    kept = []
    for position, (character, kind) in enumerate(zip(text, kinds, strict=True)):
        inside = kinds[position - 1 : position] + kinds[position + 1 : position + 2]
        if character in _APOSTROPHES and len(inside) == 2 and set(inside) <= set("LMN"):
            kept.append("'")
        else:
            kept.append(character if kind in "LMN" else " ")
    return "".join(kept)


def _whisper_basic(text: str) -> str:
    """Lower the case, drop bracketed text, and put a space for each mark (!), symbol and punctuation mark."""
    text = _PARENTHESISED.sub("", _BRACKETED.sub("", text.lower()))
    wide = unicodedata.normalize("NFKC", text)
    return _collapse("".join(" " if unicodedata.category(c)[0] in "MSP" else c for c in wide).lower())


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _whisper_english(text: str, language: str) -> str:
    if find_language(language).tag.split("-")[0] != "en":
        return _whisper_basic(text)
    return _collapse(_english()(text))


@cache
def _english() -> Callable[[str], str]:
    """Return OpenAI's normaliser for English, without the contractions that the library adds to it.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        library = importlib.import_module("whisper_normalizer.english")
    except ImportError:
        raise MissingExtra(
            "whisper-english needs whisper-normalizer: pip install 'lora-whisper[normalizers]'"
        ) from None
    found = library.EnglishTextNormalizer()
    for pattern in _NOT_WHISPERS:
        found.replacers.pop(pattern, None)
    normalizer: Callable[[str], str] = found
    return normalizer
