import re
from itertools import combinations

import numpy as np
import pytest

from lora_whisper.data.domains import find_domain
from lora_whisper.data.entries import entries
from lora_whisper.data.espeak import phonemes
from lora_whisper.data.numerals import cardinal, day_of_month, kana_date
from lora_whisper.data.texts import SPLITS, TextSource, split_of
from lora_whisper.errors import UnknownLanguage, UsageError

LANGUAGES = ["pl", "zh", "ja", "cy"]


def source(language, split="train", domain="general"):
    return TextSource(language, split, find_domain(domain).kinds)


def some_texts(language, split="train", domain="general", count=300):
    rng = np.random.default_rng(7)
    texts = source(language, split, domain)
    return [texts.text(rng) for _ in range(count)]


@pytest.mark.parametrize("domain", ["general", "field"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_share_no_entries_and_no_texts(language, domain):
    for one, other in combinations(SPLITS, 2):
        assert not source(language, one, domain).entries & source(language, other, domain).entries
        written, others = ({t.written for t in some_texts(language, s, domain)} for s in (one, other))
        assert not written & others


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_say_only_entries_of_their_own_split(language):
    for split in SPLITS:
        for text in some_texts(language, split):
            assert all(split_of(entry) == split for entry in text.entries)
            assert all(entry.casefold()[1:] in text.written.casefold() for entry in text.entries)


@pytest.mark.parametrize("language", LANGUAGES)
def test_domains_share_no_entries(language):
    assert not source(language).entries & source(language, domain="field").entries


@pytest.mark.parametrize("language", [*LANGUAGES, "da", "el", "fr", "ru", "ko"])
@pytest.mark.parametrize("domain", ["general", "field"])
def test_texts_are_written_as_they_are_read(language, domain):
    texts = [text.written for text in some_texts(language, domain=domain)]
    assert not [text for text in texts if re.search(r"[\d()\[\]/&%#:;°]|  |[A-Z]{2}", text)]
    assert not [
        (text, read) for text, read in zip(texts, phonemes(texts, language), strict=True) if "(" in read
    ]


@pytest.mark.parametrize(("language", "pattern"), [("ja", r"[぀-ヿ、。 ]+"), ("zh", r"[一-鿿〇、。]+")])
def test_scripts_that_espeak_can_read(language, pattern):
    assert all(re.fullmatch(pattern, text.written) for text in some_texts(language))


def test_there_are_many_different_texts_and_entries():
    assert len({text.written for text in some_texts("pl", count=2000)}) > 1700
    assert len(source("pl").entries) > 2000
    assert len(source("pl", "test").entries) > 200
    assert len(source("pl", "train", "field").entries) > 1500


def test_sentence_case_and_full_stop():
    for text in some_texts("da"):
        assert text.written[0] == text.written[0].upper() and text.written.endswith(".")


def test_acronyms_and_brackets_are_left_out():
    assert "Niemcy" in entries("pl", "territory")
    assert not [entry for entry in entries("pl", "currency") if "ZEA" in entry or "(" in entry]


def test_letters_that_would_be_spelled_out_are_left_out():
    assert "Giờ Volgograd" not in entries("vi", "zone")


@pytest.mark.parametrize(
    ("language", "number", "words"),
    [
        ("el", 1999, "χίλια εννιακόσια ενενήντα εννέα"),
        ("el", 4100, "τέσσερις χιλιάδες εκατό"),
        ("el", 0, "μηδέν"),
        ("el", 16, "δεκαέξι"),
        ("zh", 12, "十二"),
        ("zh", 105, "一百零五"),
        ("zh", 4020, "四千零二十"),
        ("zh", 0, "零"),
        ("ja", 8683, "はっせんろっぴゃくはちじゅうさん"),
        ("ja", 1001, "せんいち"),
        ("pl", 22, "dwadzieścia dwa"),
        ("hr", 5, None),
    ],
)
def test_cardinals(language, number, words):
    assert cardinal(language, number) == words


def test_japanese_dates():
    assert kana_date(4, 20) == "しがつはつか"
    assert kana_date(9, 1) == "くがつついたち"
    assert day_of_month("en", 3, ordinal=True) == "third"


def test_unknown_split_names_the_three():
    with pytest.raises(UsageError, match=r"'valid' is no split.*train, dev, test"):
        source("pl", "valid")


def test_language_without_texts():
    with pytest.raises(UnknownLanguage, match="lfn: CLDR has no texts"):
        source("lfn")
    with pytest.raises(UnknownLanguage, match="shn: too few texts"):
        source("shn")
