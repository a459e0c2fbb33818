"""What can be said in a language: its names, dates, numbers and measures, mostly from CLDR, in words only.

An entry is one such item. The entries of a kind are enumerated, cleaned and checked against espeak-ng's own
reading, so that whatever is written is what will be said.
"""

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from lora_whisper.data import espeak
from lora_whisper.data.extras import demo_module
from lora_whisper.data.names import names
from lora_whisper.data.numerals import KANA_WEEKDAYS, cardinal, day_of_month, kana_date
from lora_whisper.errors import UnknownLanguage
from lora_whisper.languages import fallbacks

if TYPE_CHECKING:
    from babel import Locale

_UNITS = str.split(
    "area-hectare area-square-kilometer area-square-meter digital-byte digital-gigabyte digital-megabit "
    "duration-century duration-day duration-hour duration-minute duration-month duration-second "
    "duration-week duration-year electric-ampere electric-volt energy-calorie energy-joule "
    "energy-kilowatt-hour frequency-hertz length-centimeter length-foot length-inch length-kilometer "
    "length-light-year length-meter length-mile length-millimeter mass-gram mass-kilogram mass-ounce "
    "mass-pound mass-tonne power-kilowatt power-watt pressure-pascal speed-kilometer-per-hour "
    "speed-meter-per-second temperature-celsius volume-barrel volume-cubic-meter volume-cup volume-liter "
    "volume-milliliter volume-teaspoon"
)
_CURRENCIES = str.split(
    "USD EUR GBP JPY CNY CHF PLN CZK DKK SEK NOK BRL INR RUB TRY UAH HUF RON KRW MXN ZAR AUD"
)
_KANA_FOR_KANJI = {
    "標準時": "ひょうじゅんじ", "夏時間": "なつじかん", "共和国": "きょうわこく", "週間": "しゅうかん",
    "か月": "かげつ", "時間": "じかん", "文字": "もじ", "諸島": "しょとう", "中央": "ちゅうおう",
    "世紀": "せいき", "語": "ご", "島": "とう", "東": "ひがし", "西": "にし", "南": "みなみ", "北": "きた",
    "前": "まえ", "後": "ご", "分": "ふん", "秒": "びょう", "日": "にち", "年": "ねん", "米": "べい",
    "英": "えい", "新": "しん", "旧": "きゅう", "・": " ", "＝": " ",
}  # fmt: skip
_MAX_LENGTH = 60
_TIDIED = str.maketrans("’ʼ", "''", "\xad\u200e\u200f")  # soft hyphens and marks of direction go
_UNSPACED = frozenset({"CJK", "KANA", "HANGUL", "THAI", "MYANMAR"})  # espeak-ng divides these as it likes
_WORD_ENDS = re.compile(r"[\s'\u200c-]+")
_PUNCTUATION = frozenset(" -,、'ʻ\u200c")  # what may stand between letters and their marks


@cache
def locale_of(language: str) -> "Locale":
    """CLDR's locale of a language tag.

    Raises:
        UnknownLanguage: CLDR has none.
        MissingExtra: the `demo` extra is not installed.
    """
    babel = demo_module("babel")
    for tag in fallbacks(language):
        try:
            return babel.Locale.parse(tag, sep="-")
        except (babel.UnknownLocaleError, ValueError):
            continue
    raise UnknownLanguage(f"{language}: CLDR has no texts for it; choose another language")


@cache
def entries(language: str, kind: str) -> tuple[str, ...]:
    """All different entries of one kind that espeak-ng reads as they are written, sorted."""
    raw = _SOURCES[kind](language)
    if language == "ja":
        raw = map(_without_kanji, raw)
    texts = sorted({text for text in map(tidy, raw) if _plain(text)})
    texts = [text for text in texts if _script(text) == script_of(language)]
    read = espeak.phonemes(texts, language)
    return tuple(text for text, sounds in zip(texts, read, strict=True) if _read_as_words(text, sounds))


def _read_as_words(text: str, sounds: str) -> bool:
    """Whether espeak-ng's reading has no switch to another language and no letters spelled out."""
    if not sounds or "(" in sounds:
        return False
    return _script(text) in _UNSPACED or len(sounds.split()) <= len(_WORD_ENDS.split(text))


def tidy(text: str) -> str:
    """The text in NFC, with plain spaces and apostrophes, without invisible marks."""
    text = unicodedata.normalize("NFC", text).translate(_TIDIED)
    return " ".join(text.split()).strip(" .'")


def _plain(text: str) -> bool:
    """Whether it is made of words only: no digits, symbols, brackets, abbreviations, acronyms."""
    allowed = all(c.isalpha() or unicodedata.category(c) in ("Mn", "Mc") or c in _PUNCTUATION for c in text)
    acronym = any(first.isupper() and second.isupper() for first, second in pairwise(text))
    return allowed and not acronym and 1 < len(text) <= _MAX_LENGTH


def _script(text: str) -> str:
    """The script of most letters, as the first word of their Unicode names."""
    names = Counter(unicodedata.name(c, "?").split()[0].split("-")[0] for c in text if c.isalpha())
    names["KANA"] = names.pop("HIRAGANA", 0) + names.pop("KATAKANA", 0)
    return names.most_common(1)[0][0] if len(+names) == 1 else "mixed"


@cache
def script_of(language: str) -> str:
    """The script of the language's entries, as Unicode names begin: LATIN, CYRILLIC, CJK, KANA …"""
    if language == "ja":
        return "KANA"
    names = [tidy(name) for name in locale_of(language).territories.values()]
    counts = Counter(_script(name) for name in names if name).most_common(1)
    return counts[0][0] if counts else "LATIN"


def _without_kanji(text: str) -> str:
    """Japanese with its few common kanji as kana, for espeak-ng reads no kanji."""
    for kanji, kana in _KANA_FOR_KANJI.items():
        text = text.replace(kanji, kana)
    return text


def _calendar(language: str) -> Iterator[str]:
    locale = locale_of(language)
    for form in ("format", "stand-alone"):
        yield from (_spelled(language, month) for month in locale.months[form]["wide"].values())
    yield from KANA_WEEKDAYS if language == "ja" else locale.days["stand-alone"]["wide"].values()


def _zones(language: str) -> Iterator[str]:
    for forms in locale_of(language).meta_zones.values():
        if "long" in forms:
            yield from (name for key, name in forms["long"].items() if key != "daylight")


def _numbers(language: str) -> Iterator[str]:
    for number in (*range(1000), *range(1000, 10_000, 37)):
        words = cardinal(language, number)
        if words:
            yield words.replace(",", "")


def _dates(language: str) -> Iterator[str]:
    first = datetime.date(2024, 1, 1)
    for offset in range(366):
        date = first + datetime.timedelta(days=offset)
        for with_weekday in (False, True):
            text = _date(language, date, with_weekday)
            if text:
                yield text


def _date(language: str, date: datetime.date, with_weekday: bool) -> str | None:
    if language == "ja":
        text = kana_date(date.month, date.day)
        return f"{text}、{KANA_WEEKDAYS[date.weekday()]}" if with_weekday else text
    locale = locale_of(language)
    pattern = locale.datetime_skeletons["MMMMd"].pattern
    day = day_of_month(language, date.day, ordinal="d." in pattern or language == "en")
    if day is None:
        return None
    month = _spelled(language, locale.months["format"]["wide"][date.month])
    fields = {"d": day, "MMMM": month, "M": cardinal(language, date.month)}
    try:
        text = str(demo_module("babel.dates").parse_pattern(pattern.replace("d.", "d")).format % fields)
    except KeyError:
        return None  # the language writes months in a form that is not a word
    weekday = locale.days["format"]["wide"][date.weekday()]
    comma = "" if language in ("zh", "yue") else ", "
    return f"{weekday}{comma}{text}" if with_weekday else text


def _counts(seed: str) -> Iterator[int]:
    """Numbers from 2 to 999, small ones first, another selection for each seed."""
    offset = sum(seed.encode())
    yield from range(2, 13)
    yield from (13 + (offset * 7 + step * 41) % 987 for step in range(12))


def _spelled(language: str, text: str) -> str:
    """The text with its numbers in words, or as "#" if they are not known."""
    return re.sub(r"\d+", lambda digits: cardinal(language, int(digits[0])) or "#", text)


def _measures(language: str) -> Iterator[str]:
    locale, units = locale_of(language), demo_module("babel.units")
    for unit in _UNITS:
        for number in _counts(unit):
            text = units.format_unit(number, unit, "long", format="#", locale=locale)
            if unit not in text:  # CLDR has no word for it: Babel gives the unit's own name
                yield _spelled(language, text)


def _prices(language: str) -> Iterator[str]:
    locale, numbers = locale_of(language), demo_module("babel.numbers")
    space = "" if script_of(language) in _UNSPACED - {"HANGUL"} else " "
    for code in _CURRENCIES:
        for number in _counts(code):
            name = numbers.get_currency_name(code, count=number, locale=locale)
            yield _spelled(language, f"{number}{space}{name}")


def _relative_times(language: str) -> Iterator[str]:
    dates, locale = demo_module("babel.dates"), locale_of(language)
    for unit, days in (("day", 1), ("week", 7), ("month", 30.5), ("year", 365.25)):
        for number in (*range(-60, 0), *range(1, 61)):
            delta = datetime.timedelta(days=number * days)
            text = dates.format_timedelta(delta, unit, threshold=1000, add_direction=True, locale=locale)
            yield _spelled(language, text)


def _named(key: str) -> Callable[[str], Iterable[str]]:
    """A source of the names that CLDR's locale keeps under `key`."""
    return lambda language: getattr(locale_of(language), key).values()


def _cities(language: str) -> Iterator[str]:
    yield from (zone["city"] for zone in locale_of(language).time_zones.values() if "city" in zone)


_SOURCES: dict[str, Callable[[str], Iterable[str]]] = {
    "territory": _named("territories"),
    "language": _named("languages"),
    "script": _named("scripts"),
    "city": _cities,
    "zone": _zones,
    "calendar": _calendar,
    "number": _numbers,
    "date": _dates,
    "measure": _measures,
    "price": _prices,
    "relative": _relative_times,
    "currency": _named("currencies"),
    "name": names,
}
