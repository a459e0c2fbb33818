import sys

import numpy as np
import pytest

from lora_whisper.data import espeak, extras
from lora_whisper.data.espeak import Voice, phonemes, synthesise
from lora_whisper.errors import MissingExtra, UnknownLanguage

TEXT = "Zażółć gęślą jaźń."


@pytest.mark.parametrize("variant", ["", "f2", "f3", "m3", "Andy", "klatt", "adam", "Henrique"])
def test_speech_does_not_depend_on_what_was_said_before(variant):
    voice = Voice(variant, speed_wpm=170, pitch=45)
    first = synthesise(TEXT, "pl", voice)
    synthesise("Something else, and a good deal longer.", "en", Voice("f4", speed_wpm=250, pitch=90))
    synthesise("x", "de", Voice("klatt3"))
    np.testing.assert_array_equal(synthesise(TEXT, "pl", voice), first)


def test_all_variants_repeat():
    for variant in espeak.variants():
        first, second = (synthesise("Dobry dzień.", "pl", Voice(variant)) for _ in range(2))
        assert np.array_equal(first, second), variant


def test_speech_is_audible_and_at_16_khz():
    audio = synthesise(TEXT, "pl")
    assert audio.dtype == np.float32 and audio.ndim == 1
    assert 0.8 < len(audio) / 16_000 < 3
    assert 0.05 < np.abs(audio).max() <= 1


def test_voice_changes_the_speech():
    slow, fast = (synthesise(TEXT, "pl", Voice(speed_wpm=speed)) for speed in (120, 240))
    assert len(slow) > 1.3 * len(fast)
    assert not np.array_equal(synthesise(TEXT, "pl", Voice("f2")), synthesise(TEXT, "pl", Voice("m3")))


def test_phonemes_of_several_clauses():
    assert phonemes(["Ala ma kota.", "Ala, ma, kota!"], "pl") == ["ˈala mˈa kˈɔta"] * 2


def test_chinese_is_read_in_hanzi_and_japanese_only_in_kana():
    assert phonemes(["中国和美国"], "zh") == ["ts.ˈonɡ5 kˈuoɜ χo-ɜmˈei2 kˈuoɜ"]
    kana, kanji = phonemes(["ドイツ", "日本"], "ja")
    assert "(" not in kana
    assert "(en)" in kanji


def test_languages_and_their_relatives():
    assert len(espeak.languages()) > 100
    assert espeak.speaks("pl") and espeak.speaks("pt-BR") and espeak.speaks("zh") and espeak.speaks("no")
    assert not espeak.speaks("so")
    assert not espeak.speaks("fo")  # has a voice, but no dictionary


def test_unknown_language_is_named():
    with pytest.raises(UnknownLanguage, match="so: espeak-ng has no voice"):
        synthesise("Hello", "so")


def test_missing_extra_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match=r"pip install lora-whisper\[demo\]"):
        extras.demo_module("espeakng_loader")


def test_words_are_timed_and_the_speech_stays_the_same():
    text = "one two, three"
    samples, words = espeak.synthesise_words(text, "en")
    assert np.array_equal(samples, espeak.synthesise(text, "en"))
    assert [text[first : first + size] for first, size, _ in words] == ["one", "two", "three"]
    starts = [start_s for *_, start_s in words]
    assert starts == sorted(starts) and 0 <= starts[0] < starts[-1] < len(samples) / 16000
