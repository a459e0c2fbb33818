"""Language tags: BCP-47 names, scripts, fallbacks, and what Whisper calls them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lora_whisper.errors import UnknownLanguage

# Whisper's own codes, in the order of their tokens. Three of them differ from the BCP-47 tag of
# the language: `jw` is jv, `tl` is fil, and `no` also stands for nb; see `whisper_code`.
WHISPER_LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "es": "Spanish",
    "ru": "Russian",
    "ko": "Korean",
    "fr": "French",
    "ja": "Japanese",
    "pt": "Portuguese",
    "tr": "Turkish",
    "pl": "Polish",
    "ca": "Catalan",
    "nl": "Dutch",
    "ar": "Arabic",
    "sv": "Swedish",
    "it": "Italian",
    "id": "Indonesian",
    "hi": "Hindi",
    "fi": "Finnish",
    "vi": "Vietnamese",
    "he": "Hebrew",
    "uk": "Ukrainian",
    "el": "Greek",
    "ms": "Malay",
    "cs": "Czech",
    "ro": "Romanian",
    "da": "Danish",
    "hu": "Hungarian",
    "ta": "Tamil",
    "no": "Norwegian",
    "th": "Thai",
    "ur": "Urdu",
    "hr": "Croatian",
    "bg": "Bulgarian",
    "lt": "Lithuanian",
    "la": "Latin",
    "mi": "Maori",
    "ml": "Malayalam",
    "cy": "Welsh",
    "sk": "Slovak",
    "te": "Telugu",
    "fa": "Persian",
    "lv": "Latvian",
    "bn": "Bengali",
    "sr": "Serbian",
    "az": "Azerbaijani",
    "sl": "Slovenian",
    "kn": "Kannada",
    "et": "Estonian",
    "mk": "Macedonian",
    "br": "Breton",
    "eu": "Basque",
    "is": "Icelandic",
    "hy": "Armenian",
    "ne": "Nepali",
    "mn": "Mongolian",
    "bs": "Bosnian",
    "kk": "Kazakh",
    "sq": "Albanian",
    "sw": "Swahili",
    "gl": "Galician",
    "mr": "Marathi",
    "pa": "Punjabi",
    "si": "Sinhala",
    "km": "Khmer",
    "sn": "Shona",
    "yo": "Yoruba",
    "so": "Somali",
    "af": "Afrikaans",
    "oc": "Occitan",
    "ka": "Georgian",
    "be": "Belarusian",
    "tg": "Tajik",
    "sd": "Sindhi",
    "gu": "Gujarati",
    "am": "Amharic",
    "yi": "Yiddish",
    "lo": "Lao",
    "uz": "Uzbek",
    "fo": "Faroese",
    "ht": "Haitian Creole",
    "ps": "Pashto",
    "tk": "Turkmen",
    "nn": "Nynorsk",
    "mt": "Maltese",
    "sa": "Sanskrit",
    "lb": "Luxembourgish",
    "my": "Myanmar",
    "bo": "Tibetan",
    "tl": "Tagalog",
    "mg": "Malagasy",
    "as": "Assamese",
    "tt": "Tatar",
    "haw": "Hawaiian",
    "ln": "Lingala",
    "ha": "Hausa",
    "ba": "Bashkir",
    "jw": "Javanese",
    "su": "Sundanese",
    "yue": "Cantonese",
}

# Written without spaces between words, so errors are counted in characters.
_CHINESE = {
    "zh",
    "cmn",
    "yue",
    "wuu",
    "nan",
    "hak",
    "gan",
    "hsn",
    "cdo",
    "cjy",
    "cpx",
    "czh",
    "czo",
    "mnp",
    "lzh",
}
_CHARACTER_LANGUAGES = frozenset(_CHINESE | {"ja", "th", "lo", "my", "km"})
_WHISPER_ALIASES = {"jv": "jw", "fil": "tl", "nb": "no"}
_NOT_A_LANGUAGE = frozenset({"und", "mul", "mis", "zxx"})


@dataclass(frozen=True)
class Language:
    """One language or variety.

    Attributes:
        tag: normalised BCP-47 tag, such as `pt-BR`.
        name: English name.
        script: four-letter script it is usually written in, such as `Latn`.
        unit: what errors are counted in.
        parent: the next broader tag (`pt` for `pt-BR`), None at the top.
    """

    tag: str
    name: str
    script: str
    unit: Literal["word", "character"]
    parent: str | None

    @property
    def space(self) -> str:
        """What stands between two texts, and before one, as Whisper writes it."""
        return "" if self.unit == "character" else " "


@lru_cache(maxsize=1024)
def normalize_tag(tag: str) -> str:
    """The canonical form of a BCP-47 tag: `pt_br` becomes `pt-BR`, `jw` becomes `jv`.

    Raises:
        UnknownLanguage: it is no valid tag, or stands for no language (`und`, `mul`).
    """
    import langcodes

    try:
        parsed = langcodes.Language.get(tag.strip())
    except ValueError:
        raise UnknownLanguage(_unknown(tag)) from None
    if not parsed.is_valid() or _means_no_language(parsed.language):
        raise UnknownLanguage(_unknown(tag))
    return str(parsed.to_tag())


@lru_cache(maxsize=1024)
def language(tag: str) -> Language:
    """What is known of the language with this tag.

    Raises:
        UnknownLanguage: it is no valid tag.
    """
    import langcodes

    tag = normalize_tag(tag)
    parsed = langcodes.Language.get(tag)
    return Language(
        tag=tag,
        name=parsed.display_name(),
        script=parsed.maximize().script or "Zzzz",
        unit="character" if parsed.language in _CHARACTER_LANGUAGES else "word",
        parent=next(iter(fallbacks(tag)[1:]), None),
    )


def fallbacks(tag: str) -> list[str]:
    """The tag and its ever broader parents, nearest first: `pt-BR`, `pt` (RFC 4647 look-up).

    Raises:
        UnknownLanguage: it is no valid tag.
    """
    subtags = normalize_tag(tag).split("-")
    chain = []
    while subtags:
        if len(subtags[-1]) > 1:  # a lone letter only introduces what follows it
            chain.append("-".join(subtags))
        subtags.pop()
    return chain


@lru_cache(maxsize=1024)
def whisper_code(tag: str) -> str | None:
    """Whisper's code for this language or its nearest parent, None if Whisper has no token for it.

    `pt-BR` gives `pt`, `nb` gives `no`, `jv` gives `jw`, `cmn` gives `zh`.

    Raises:
        UnknownLanguage: it is no valid tag.
    """
    import langcodes

    base = fallbacks(tag)[-1]
    for candidate in (base, langcodes.standardize_tag(base, macro=True)):
        code = _WHISPER_ALIASES.get(candidate, candidate)
        if code in WHISPER_LANGUAGES:
            return code
    return None


def _means_no_language(subtag: str | None) -> bool:
    return subtag is None or subtag in _NOT_A_LANGUAGE or subtag.startswith("x-")


def _unknown(tag: str) -> str:
    close = _close_tags(tag)
    remedy = (
        f"did you mean {' or '.join(close)}?" if close else "use a BCP-47 tag such as pl, pt-BR or zh-Hans"
    )
    return f"{tag!r} is not a language tag; {remedy}"


def _close_tags(tag: str) -> list[str]:
    """Up to three valid tags that somebody who wrote `tag` may have meant."""
    import difflib
    import re

    names = {name.casefold(): code for code, name in WHISPER_LANGUAGES.items()}
    word = re.split(r"[^\w]|_", tag.strip().casefold())[0]
    matches = [names[name] for name in difflib.get_close_matches(word, names, n=3, cutoff=0.7)]
    if word in names:
        return matches[:1]
    if not matches and word[:2] in WHISPER_LANGUAGES:
        matches = [word[:2]]
    return matches
