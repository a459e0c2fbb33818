"""What counts as the same text, in many scripts."""

import unicodedata

import pytest

from lora_whisper.errors import UnknownLanguage, UsageError
from lora_whisper.evaluation.metrics import error_counts, units
from lora_whisper.evaluation.normalizers import NORMALIZERS, normalize

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
