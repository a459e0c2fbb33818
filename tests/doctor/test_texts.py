import pytest

from lora_whisper.doctor.faults import EMPTY_TEXT, ODD_CHARACTERS, SPECIAL_TOKENS, WRONG_SCRIPT
from lora_whisper.doctor.texts import style, text_faults

GOOD = {
    "pl": "Zażółć gęślą jaźń, proszę.",
    "da": "Æbler, pærer og ål på øen.",
    "el": "Καλημέρα σας, τι κάνετε;",
    "cy": "Mae'r tŷ yn fawr.",
    "zh": "今天天气很好。",
    "ja": "きょうはＡＢＣのテレビを見た。",
    "ko": "안녕하세요, 한국어입니다.",
    "hi": "नमस्ते, आप कैसे हैं?",
    "ta": "வணக்கம், எப்படி இருக்கிறீர்கள்?",
    "th": "สวัสดีครับ",
    "ar": "مرحبا، كيف حالك؟",
    "fa": "می‌خواهم بروم",  # with a joiner, which Persian needs
    "ru": "Привет, USB работает.",
    "uk": "IT-компанія має USB-порт.",
    "sr": "Dobar dan, kako ste?",
    "vi": "Xin chào, tôi là người Việt Nam.",
}


@pytest.mark.parametrize("tag", GOOD)
def test_nothing_is_invented(tag: str) -> None:
    assert list(text_faults(GOOD[tag], tag)) == []


@pytest.mark.parametrize(
    ("text", "tag", "kind", "detail"),
    [
        ("", "pl", EMPTY_TEXT, "''"),
        ("…", "pl", EMPTY_TEXT, "…"),
        ("Привет всем", "pl", WRONG_SCRIPT, "Cyrillic in Polish"),
        ("dzień dobry", "ru", WRONG_SCRIPT, "Latin in Russian"),
        ("Kalimera sas", "el", WRONG_SCRIPT, "Latin in Greek"),
        ("konnichiwa", "ja", WRONG_SCRIPT, "Latin in Japanese"),
        ("<|en|> hello", "en", SPECIAL_TOKENS, "<|en|>"),
        ("dzi\u200beń", "pl", ODD_CHARACTERS, "U+200B"),
        ("dzie\ufffd", "pl", ODD_CHARACTERS, "U+FFFD"),
        ("a\ue000b", "pl", ODD_CHARACTERS, "U+E000"),
        ("one &amp; two", "en", ODD_CHARACTERS, "&amp;"),
        ("one <b>two</b>", "en", ODD_CHARACTERS, "<b>"),
        ("one\ttwo", "en", ODD_CHARACTERS, "U+0009"),
        ("dzi\u200deń", "pl", ODD_CHARACTERS, "U+200D"),
        ("one &#x27; two", "en", ODD_CHARACTERS, "&#x27;"),
        ("caf&Eacute; one", "en", ODD_CHARACTERS, "&Eacute;"),
        ("IT-кoмпания", "ru", ODD_CHARACTERS, "'кoмпания'"),
        ("привeт всем", "ru", ODD_CHARACTERS, "two alphabets"),
    ],
)
def test_each_fault_is_found_alone(text: str, tag: str, kind: object, detail: str) -> None:
    ((found, told),) = text_faults(text, tag)
    assert found is kind and detail in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HELLO THERE", "upper case, without end mark"),
        ("hello there", "lower case, without end mark"),
        ("Hello there.", "mixed case, with end mark"),
        ("He said “hello.”", "mixed case, with end mark"),
        ("今天。", "no case"),
    ],
)
def test_styles(text: str, expected: str) -> None:
    assert style(text) == expected
