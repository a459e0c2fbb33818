"""What counts as the same text, in many scripts."""

import importlib.util
import sys
import unicodedata
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from lora_whisper.errors import MissingExtra, UnknownLanguage, UsageError
from lora_whisper.evaluation import normalizers
from lora_whisper.evaluation.metrics import error_counts, units
from lora_whisper.evaluation.normalizers import ALL_NORMALIZERS, NORMALIZERS, normalize, version

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = [
    ("hi", "नमस्ते, दुनिया। आप कैसे हैं?", "नमस्ते दुनिया आप कैसे हैं"),
    ("ta", "வணக்கம், உலகம்!", "வணக்கம் உலகம்"),
    ("ar", "مُحَمَّدٌ، أهلاً؟", "مُحَمَّدٌ أهلاً"),
    ("he", "בית־ספר: שָׁלוֹם.", "בית ספר שָׁלוֹם"),
    ("vi", "Đường phố – Việt Nam…", "đường phố việt nam"),
    ("pl", "„Zażółć GĘŚLĄ jaźń” – Łódź!", "zażółć gęślą jaźń łódź"),
    ("da", "Rødgrød med FLØDE på Ærø, Århus.", "rødgrød med fløde på ærø århus"),
    ("el", "Ο ΟΔΥΣΣΕΎΣ· ο Οδυσσεύς;", "ο οδυσσεύσ ο οδυσσεύσ"),
    ("cy", "Mae’r ci 'bach' i'r tŷ.", "mae'r ci bach i'r tŷ"),
    ("fr", "L’Eau — c'est « bon » : porte-monnaie", "l'eau c'est bon porte monnaie"),
    ("de", "Die STRASSE, die Straße", "die strasse die strasse"),
    ("tr", "IĞDIR'ın İSTANBUL'u", "ığdır'ın istanbul'u"),
    ("uk", "Здоров\u02bcя здоров'я здоров’я", "здоров'я здоров'я здоров'я"),
    ("pt-BR", "São Paulo: 25% a mais!", "são paulo 25 a mais"),
    ("fa", "می\u200cخواهم", "میخواهم"),
    ("ja", "ガギグ、パピプ。 ｶﾞ ＡＢＣ１２３！", "ガギグパピプガabc123"),
    ("zh", "你好， 世界！ＡＢＣ", "你好世界abc"),
    ("yue", "佢喺 香港。", "佢喺香港"),
    ("th", "สวัสดี ครับ \u200bน้ำ", "สวัสดีครับน้ำ"),
    ("my", "မင်္ဂလာပါ။ ခင်ဗျာ", "မင်္ဂလာပါခင်ဗျာ"),
]


@pytest.mark.parametrize(("language", "text", "expected"), SCRIPTS)
def test_default_drops_punctuation_and_case_and_nothing_else(language: str, text: str, expected: str) -> None:
    assert normalize(text, language) == unicodedata.normalize("NFC", expected)


@pytest.mark.parametrize(("language", "text", "expected"), SCRIPTS)
def test_default_is_idempotent_and_blind_to_composition(language: str, text: str, expected: str) -> None:
    once = normalize(text, language)
    assert normalize(once, language) == once
    assert normalize(unicodedata.normalize("NFD", text), language) == once


@pytest.mark.parametrize("language", ["hi", "ta", "th", "ar", "my"])
def test_no_combining_mark_is_lost(language: str) -> None:
    text = next(text for tag, text, _ in SCRIPTS if tag == language)
    marks = [c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] == "M"]
    assert [c for c in normalize(text, language) if unicodedata.category(c)[0] == "M"] == marks != []


def test_hindi_spelling_mistakes_are_errors() -> None:
    reference, hypothesis = "की हिंदी किताब मेरा", "का हिंदी किताब मेरी"
    counts = {
        name: error_counts(
            units(normalize(reference, "hi", name), "word"), units(normalize(hypothesis, "hi", name), "word")
        ).rate
        for name in NORMALIZERS
    }
    assert counts == {"raw": 0.5, "lora-whisper-v1": 0.5, "whisper-basic": 0.0}


# Recorded from `BasicTextNormalizer` of openai-whisper 20250625; spaces at the ends removed.
WHISPER_BASIC = [
    ("नमस्ते दुनिया, आप कैसे हैं?", "नमस त द न य आप क स ह"),
    ("வணக்கம் உலகம்", "வணக கம உலகம"),
    ("สวัสดีครับ", "สว สด คร บ"),
    ("Łódź (city) [noise] it's—FINE", "łódź it s fine"),
    ("Đường phố Việt Nam", "đường phố việt nam"),
    ("مُحَمَّد", "م ح م د"),
    ("प्राचीन", "प र च न"),
    ("ｶﾞｷﾞ ＡＢＣ", "ガギ abc"),
]


@pytest.mark.parametrize(("text", "expected"), WHISPER_BASIC)
def test_whisper_basic_behaves_as_the_published_one(text: str, expected: str) -> None:
    assert normalize(text, "en", "whisper-basic") == expected


def test_raw_keeps_case_and_punctuation() -> None:
    assert normalize("  E\u0301t\u00e9,\n oui… ", "fr", "raw") == "Été, oui…"


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("text", ["", "  \n", "\u200b"])
def test_nothing_stays_nothing(name: str, text: str) -> None:
    assert normalize(text, "en", name).strip("\u200b") == ""


def test_unknown_names_are_errors_of_one_line() -> None:
    with pytest.raises(UsageError, match="lora-whisper-v1") as error:
        normalize("a", "en", "basic")
    assert "\n" not in str(error.value)
    with pytest.raises(UnknownLanguage):
        normalize("a", "no such tag")


V2 = "lora-whisper-v2"
# Two texts that are the same, as a reader of the language would say.
ONE_SPELLING = [
    ("ar", "محمـــد كتـاب", "محمد كتاب"),  # tatweel
    ("ar", "مُحَمَّدٌ كَتَبَ", "محمد كتب"),  # harakat and shadda
    ("ar", "٢٠٢٤", "2024"),
    ("fa", "كتاب علي ۱۲", "کتاب علی 12"),
    ("ur", "كيا", "کیا"),
    ("he", "שָׁלוֹם צה״ל", 'שלום צה"ל'),
    ("hi", "२५ किताबें", "25 किताबें"),
    ("ta", "௨௫", "25"),
    ("th", "น\u0e4dา เเดง ๒๕", "น\u0e33 แดง 25"),
    ("th", "น\u0e4d\u0e49า", "น\u0e49\u0e33"),
    ("lo", "ນ\u0ec9\u0ecdາ", "ນ\u0ec9\u0eb3"),
    ("vi", "Hoà khoẻ thuỷ", "hòa khỏe thủy"),
    ("ro", "Şi ţară", "și țară"),
    ("ca", "Col·legi, coŀlegi", "col.legi col•legi"),
    ("zh", "ＡＢＣ１２３　你好", "abc123你好"),
    ("ja", "ｶﾞｷﾞｸﾞ１２３", "ガギグ123"),
    ("ko", "\u1112\u1161\u11ab국", "한국"),
    ("cy", "Mae’r ci", "mae'r ci"),
    ("el", "ΟΔΌΣ", "οδός"),
    ("de", "GROẞ", "groß"),
]
# Two texts that differ, and must go on to differ.
TWO_WORDS = [
    ("ar", "سأل", "سال"),  # hamza
    ("ar", "على", "علي"),  # alef maksura is a letter of Arabic
    ("ar", "مدرسة", "مدرسه"),
    ("fa", "آب", "اب"),  # madda
    ("hi", "की", "का"),
    ("hi", "हँस", "हंस"),
    ("ta", "கல்", "கால்"),
    ("th", "ไม่", "ไม้"),
    ("vi", "quý", "quỳ"),
    ("vi", "hòa", "hoa"),
    ("vi", "toán", "toàn"),
    ("pl", "łaska", "laska"),
    ("pl", "być", "byc"),
    ("da", "får", "far"),
    ("da", "rød", "rod"),
    ("el", "νόμος", "νομός"),
    ("cy", "tŷ", "ty"),
    ("cy", "i'r", "ir"),
    ("ja", "かき", "かぎ"),
    ("ja", "びよういん", "びょういん"),
    ("zh", "发", "發"),
    ("tr", "ısı", "isi"),
    ("yi", "פֿון", "פון"),
    ("ks", "کٲم", "کام"),
]


@pytest.mark.parametrize(("language", "one", "other"), ONE_SPELLING)
def test_one_word_in_two_spellings_is_one(language: str, one: str, other: str) -> None:
    assert normalize(one, language, V2) == normalize(other, language, V2) != ""


@pytest.mark.parametrize(("language", "one", "other"), TWO_WORDS)
def test_two_words_stay_two(language: str, one: str, other: str) -> None:
    assert normalize(one, language, V2) != normalize(other, language, V2)


EVERY_TEXT = [(tag, text) for tag, text, _ in (*SCRIPTS, *ONE_SPELLING, *TWO_WORDS)]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_v2_is_idempotent_and_blind_to_composition(form: str) -> None:
    for language, text in EVERY_TEXT:
        once = normalize(text, language, V2)
        assert normalize(once, language, V2) == once
        assert normalize(unicodedata.normalize(form, text), language, V2) == once


def test_v2_differs_from_v1_only_where_a_rule_says_so() -> None:
    changed = {tag for tag, text, _ in SCRIPTS if normalize(text, tag, V2) != normalize(text, tag)}
    assert changed == {"ar", "he"}  # their optional vowel signs


def test_marks_that_spell_a_word_are_kept() -> None:
    for language, text, _ in SCRIPTS:
        if language in ("hi", "ta", "th", "my", "vi", "pl", "da", "el", "cy", "ja"):
            marks = [c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] == "M"]
            kept = [c for c in normalize(text, language, V2) if unicodedata.category(c)[0] == "M"]
            assert [c for c in marks if c not in "\uff9e\uff9f"] == kept


# Recorded from `EnglishTextNormalizer` of openai-whisper 20250625.
WHISPER_ENGLISH = [
    ("Mr. Smith won't pay $20 million, he's said.", "mister smith will not pay $20000000 he is said"),
    ("I'll organise the colours of 1,234 theatres!", "i will organize the colors of 1234 theaters"),
    ("Uh, it's twenty-five percent [laughs] (really).", "it is 25%"),
    ("She'd've gone at double oh seven.", "she would have gone at 007"),
    ("the nineteen sixties and the first of May", "the 1960s and the 1st of may"),
    ("kinda dunno, 'cause I can't", "kinda dunno cause i can not"),
    ("Café naïve façade", "cafe naive facade"),
    ("two and a half pounds, three pence, £7.50", "£2.5 3 pence £7.50"),
    ("Let's honour y'all: we're gonna analyse it", "let us honor you all we are going to analyze it"),
    ("one, two, three", "123"),
    ("minus five degrees; plus three", "-5 degrees +3"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), WHISPER_ENGLISH)
def test_english_as_whisper_does_it(text: str, expected: str) -> None:
    pytest.importorskip("whisper_normalizer")
    assert normalize(text, "en-GB", "whisper-english") == expected


def published(name: str) -> ModuleType:
    """A module of openai-whisper's normalizers; the package itself, which needs more, is not imported."""
    folder = Path(importlib.util.find_spec("whisper").submodule_search_locations[0]) / "normalizers"
    spec = importlib.util.spec_from_file_location(
        f"published_normalizers{name}", folder / f"{name[1:] or '__init__'}.py",
        submodule_search_locations=None if name else [str(folder)],
    )  # fmt: skip
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def sentences() -> list[str]:
    """Sentences with what the rules are about: numbers, money, contractions, titles, British spellings."""
    numbers = [
        "twenty one",
        "nine hundred and two",
        "3,000",
        "$4.50",
        "one oh one",
        "first",
        "half a million",
    ]
    verbs = ["organises", "won't analyse", "can't favour", "shouldn't've catalogued", "ain't gonna honour"]
    who = ["Mr. Brown", "Dr. Grey's neighbour", "y'all", "Uh, she", "The (old) [noise] grey theatre"]
    return [f"{a} {b} {c}, the programme's centre." for a in who for b in verbs for c in numbers]


def test_english_agrees_with_the_published_normaliser() -> None:
    pytest.importorskip("whisper_normalizer")
    with warnings.catch_warnings(action="ignore"):  # it leaves a file open
        theirs: Callable[[str], str] = published("").EnglishTextNormalizer()
    for text in (*sentences(), *(text for text, _ in WHISPER_ENGLISH), *(text for _, text in EVERY_TEXT)):
        assert normalize(text, "en", "whisper-english") == " ".join(theirs(text).split()), text


def test_basic_agrees_with_the_published_normaliser() -> None:
    theirs: Callable[[str], str] = published(".basic").BasicTextNormalizer()
    for language, text in (*EVERY_TEXT, *(("en", text) for text in sentences())):
        for form in ("NFC", "NFD"):
            composed = unicodedata.normalize(form, text)
            assert normalize(composed, language, "whisper-basic") == " ".join(theirs(composed).split())


def test_whisper_english_is_basic_elsewhere() -> None:
    for language, text in EVERY_TEXT:
        assert normalize(text, language, "whisper-english") == normalize(text, language, "whisper-basic")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    normalizers._english.cache_clear()
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(MissingExtra, match=r"lora-whisper\[normalizers\]") as error:
        normalize("", "en", "whisper-english")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ALL_NORMALIZERS[:-1])
def test_the_tables_of_unicode_are_part_of_the_version(name: str) -> None:
    assert version(name) == f"Unicode {unicodedata.unidata_version}"


def test_the_library_is_part_of_the_version() -> None:
    pytest.importorskip("whisper_normalizer")
    assert ", whisper-normalizer 0." in version("whisper-english")
