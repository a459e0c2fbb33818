"""Numbers and dates as words, where what is written is exactly what is said."""

from functools import cache

from lora_whisper.data.extras import demo_module

_NUM2WORDS = frozenset(
    str.split(
        "am ar az be bn ca cs cy da de en eo es fa fi fr he hu id is it kn ko lt lv nl no pl pt pt_BR ro ru "
        "sk sl sv te tg th tr uk vi kz"
    )
)
_OTHER_NAMES = {"nb": "no", "pt-BR": "pt_BR", "kk": "kz"}

_HAN_DIGITS = "零一二三四五六七八九"
_KANA_DIGITS = ("", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう")
_KANA_IRREGULAR = {
    "さんひゃく": "さんびゃく",
    "ろくひゃく": "ろっぴゃく",
    "はちひゃく": "はっぴゃく",
    "さんせん": "さんぜん",
    "はちせん": "はっせん",
}
_KANA_MONTHS = tuple(str.split("いち に さん し ご ろく しち はち く じゅう じゅういち じゅうに"))
_KANA_DAYS = dict(
    enumerate(str.split("ついたち ふつか みっか よっか いつか むいか なのか ようか ここのか とおか"), 1)
) | {14: "じゅうよっか", 20: "はつか", 24: "にじゅうよっか"}
KANA_WEEKDAYS = tuple(f"{day}ようび" for day in str.split("げつ か すい もく きん ど にち"))

_GREEK_UNITS = str.split(
    "μηδέν ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα δέκα έντεκα δώδεκα δεκατρία δεκατέσσερα "
    "δεκαπέντε δεκαέξι δεκαεπτά δεκαοκτώ δεκαεννέα"
)
_GREEK_TENS = str.split("είκοσι τριάντα σαράντα πενήντα εξήντα εβδομήντα ογδόντα ενενήντα")
_GREEK_HUNDREDS = str.split(
    "εκατόν διακόσια τριακόσια τετρακόσια πεντακόσια εξακόσια επτακόσια οκτακόσια εννιακόσια"
)
_GREEK_THOUSANDS = str.split("δύο τρεις τέσσερις πέντε έξι επτά οκτώ εννέα")


def cardinal(language: str, number: int) -> str | None:
    """The number (0 to 9999) in words, None for a language whose numerals are not known here."""
    if language == "ja":
        return _kana(number)
    if language in ("zh", "yue"):
        return _han(number)
    if language == "el":
        return _greek(number)
    return _num2words(language, number, "cardinal")


def day_of_month(language: str, day: int, ordinal: bool) -> str | None:
    """The day (1 to 31) in words, as an ordinal if asked for and known, None if it cannot be written."""
    if language == "ja":
        return _KANA_DAYS.get(day) or f"{_kana(day)}にち"
    return (_num2words(language, day, "ordinal") if ordinal else None) or cardinal(language, day)


def kana_date(month: int, day: int) -> str:
    """A Japanese date in kana: しがつついたち."""
    return f"{_KANA_MONTHS[month - 1]}がつ{day_of_month('ja', day, ordinal=False)}"


@cache
def _num2words(language: str, number: int, form: str) -> str | None:
    name = _OTHER_NAMES.get(language, language)
    if name not in _NUM2WORDS:
        return None
    try:
        return str(demo_module("num2words").num2words(number, lang=name, to=form)).strip()
    except Exception:  # noqa: BLE001  it knows the language, but stumbles over some of its numbers
        return None


def _han(number: int) -> str:
    words, pending_zero = "", False
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // power % 10
        if digit:
            words += ("零" if pending_zero else "") + _HAN_DIGITS[digit] + unit
        pending_zero = not digit and bool(words)
    return (words[1:] if words.startswith("一十") else words) or "零"


def _kana(number: int) -> str:
    words = ""
    for power, unit in ((1000, "せん"), (100, "ひゃく"), (10, "じゅう"), (1, "")):
        digit = number // power % 10
        if digit:
            word = ("" if digit == 1 and unit else _KANA_DIGITS[digit]) + unit
            words += _KANA_IRREGULAR.get(word, word)
    return words or "ぜろ"


def _greek(number: int) -> str:
    thousands, rest = divmod(number, 1000)
    hundreds, units = divmod(rest, 100)
    words: list[str] = []
    if thousands:
        words.append("χίλια" if thousands == 1 else f"{_GREEK_THOUSANDS[thousands - 2]} χιλιάδες")
    if hundreds:
        words.append("εκατό" if (hundreds, units) == (1, 0) else _GREEK_HUNDREDS[hundreds - 1])
    if units >= 20:
        words.append(_GREEK_TENS[units // 10 - 2])
        units %= 10
    if units or not words:
        words.append(_GREEK_UNITS[units])
    return " ".join(words)
