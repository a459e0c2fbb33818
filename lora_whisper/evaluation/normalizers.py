"""Text as it is compared: what counts as the same word in 100 languages.

| name              | what it does                                                                         |
|-------------------|--------------------------------------------------------------------------------------|
| `raw`             | NFC and single spaces: case and punctuation count                                     |
| `lora-whisper-v1` | also folds case and drops punctuation and symbols; combining marks stay              |
| `whisper-basic`   | behaves as OpenAI's `BasicTextNormalizer`, to compare with published numbers          |

Whisper's normaliser turns every combining mark into a space, so in Devanagari, Tamil or Thai most spelling
mistakes cost nothing: two wrong words of four can score 0 %. Use it to compare with published numbers,
never to judge.
"""

import re
import unicodedata

from lora_whisper.errors import UsageError
from lora_whisper.languages import language as find_language

DEFAULT_NORMALIZER = "lora-whisper-v1"
NORMALIZERS = ("raw", "lora-whisper-v1", "whisper-basic")

_APOSTROPHES = "'’‘ʼʻ＇`´"
_DOTTED_I = ("tr", "az")
_WIDE_SCRIPTS = ("Hans", "Hant", "Jpan", "Kore")
_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESISED = re.compile(r"\([^)]+\)")


def normalize(text: str, language: str, name: str = DEFAULT_NORMALIZER) -> str:
    """Return `text` as the normaliser `name` compares it; `language` is a tag such as `pt-BR`.

    Raises:
        UsageError: no normaliser has this name.
        UnknownLanguage: `language` is not a language tag.
    """
    if name == "raw":
        return _collapse(unicodedata.normalize("NFC", text))
    if name == "lora-whisper-v1":
        return _lora_whisper_v1(text, language)
    if name == "whisper-basic":
        return _whisper_basic(text)
    raise UsageError(f"no normalizer {name!r}; choose one of {', '.join(NORMALIZERS)}")


def _lora_whisper_v1(text: str, language: str) -> str:
    """Fold what a listener cannot hear (case, punctuation, symbols, width) and nothing that changes a word.

    An apostrophe inside a word stays (`i'r`, `l'eau`), a hyphen separates words, invisible characters vanish,
    `ß` becomes `ss` and a final sigma an ordinary one. Languages scored in characters lose their spaces.
    """
    found = find_language(language)
    text = unicodedata.normalize("NFKC" if found.script in _WIDE_SCRIPTS else "NFC", text)
    if found.tag.split("-")[0] in _DOTTED_I:
        text = text.replace("İ", "i").replace("I", "ı")
    folded = unicodedata.normalize("NFC", text.casefold())
    visible = "".join(character for character in folded if unicodedata.category(character) != "Cf")
    kept = _collapse(_drop_punctuation(visible))
    return kept.replace(" ", "") if found.unit == "character" else kept


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
