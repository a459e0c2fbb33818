"""Language tags."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from lora_whisper.errors import UnknownLanguage
from lora_whisper.languages import WHISPER_LANGUAGES, fallbacks, language, normalize_tag, whisper_code


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("pl", "pl"),
        ("pt_br", "pt-BR"),
        ("PT-br", "pt-BR"),
        ("zh_hans", "zh-Hans"),
        ("zh-hant-tw", "zh-Hant-TW"),
        (" it ", "it"),
        ("pol", "pl"),
        ("iw", "he"),
        ("jw", "jv"),
        ("es-419", "es-419"),
        ("ca-valencia", "ca-valencia"),
    ],
)
def test_normal_form(written, normal):
    assert normalize_tag(written) == normal
    assert normalize_tag(normal) == normal


@pytest.mark.parametrize(
    "tag", ["", "-", "en-", "e", "xx", "not a tag", "en_US.UTF-8", "pt-br-pt", "und", "mul", "zxx", "x-mine"]
)
def test_what_is_no_language_is_refused_in_one_line(tag):
    with pytest.raises(UnknownLanguage) as caught:
        normalize_tag(tag)
    assert repr(tag) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "meant"), [("polish", "pl"), ("polsih", "pl"), ("Welsh", "cy"), ("de_DE.UTF-8", "de")]
)
def test_a_close_tag_is_suggested(tag, meant):
    with pytest.raises(UnknownLanguage, match=rf"did you mean {meant}\?"):
        normalize_tag(tag)


def test_a_hopeless_tag_gets_examples():
    with pytest.raises(UnknownLanguage, match="such as pl, pt-BR or zh-Hans"):
        normalize_tag("???")


@pytest.mark.parametrize(
    ("tag", "chain"),
    [
        ("pl", ["pl"]),
        ("pt_BR", ["pt-BR", "pt"]),
        ("zh-Hant-TW", ["zh-Hant-TW", "zh-Hant", "zh"]),
        ("en-US-u-co-phonebk", ["en-US-u-co-phonebk", "en-US-u-co", "en-US", "en"]),
    ],
)
def test_fallbacks_follow_rfc_4647(tag, chain):
    assert fallbacks(tag) == chain


def test_facts_of_a_language():
    brazilian = language("pt_br")
    assert (brazilian.tag, brazilian.name, brazilian.parent) == ("pt-BR", "Portuguese (Brazil)", "pt")
    assert (brazilian.script, brazilian.unit) == ("Latn", "word")
    assert language("pt").parent is None


@pytest.mark.parametrize(
    ("tag", "script"),
    [("el", "Grek"), ("zh", "Hans"), ("zh-TW", "Hant"), ("ja", "Jpan"), ("sr-Latn", "Latn")],
)
def test_scripts(tag, script):
    assert language(tag).script == script


def test_units():
    characters = ["zh", "zh-Hant-TW", "cmn", "yue", "zh-yue", "ja", "ja-JP", "th", "lo", "my", "km"]
    assert {language(tag).unit for tag in characters} == {"character"}
    assert {language(tag).unit for tag in ["en", "ko", "vi", "hi", "ar", "cy"]} == {"word"}


def test_whisper_languages_are_those_of_openai():
    spec = importlib.util.find_spec("whisper")  # found, not imported: its dependencies are not needed
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "tokenizer.py").read_text(encoding="utf-8"))
    (table,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LANGUAGES"
    ]
    assert list(WHISPER_LANGUAGES) == list(table)
    assert [name.lower() for name in WHISPER_LANGUAGES.values()] == list(table.values())


def test_every_whisper_code_is_a_tag_and_comes_back():
    assert len(WHISPER_LANGUAGES) == 100
    for code in WHISPER_LANGUAGES:
        assert whisper_code(code) == code
        assert whisper_code(normalize_tag(code)) == code


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("pt-BR", "pt"),
        ("nb", "no"),
        ("nb-NO", "no"),
        ("nn", "nn"),
        ("jv", "jw"),
        ("fil-PH", "tl"),
        ("iw", "he"),
        ("cmn", "zh"),
        ("cmn-Hans", "zh"),
        ("zh-Hans", "zh"),
        ("zh-yue", "yue"),
        ("arb", "ar"),
        ("xh", None),
        ("kmr", None),
    ],
)
def test_whisper_code(tag, code):
    assert whisper_code(tag) == code


def test_import_is_light():
    heavy = {"torch", "numpy", "langcodes"}
    probe = f"import sys, lora_whisper.languages; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
