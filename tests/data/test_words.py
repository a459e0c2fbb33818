import re

import numpy as np
import pytest

from lora_whisper.data.domains import find_domain
from lora_whisper.data.texts import TextSource
from lora_whisper.data.words import held_out_words, listing, sentence, words


def test_words_are_plain_and_the_most_frequent_come_first():
    few, many = words("pl", 2000), words("pl", 20_000)
    assert len(many) > 15_000 and many[: len(few)] == few
    assert all(word.isalpha() for word in many)


@pytest.mark.parametrize("utterance", [sentence, listing])
def test_utterances_repeat_have_capital_and_stop_and_are_short(utterance):
    first, second = (utterance("pl", np.random.default_rng(4)) for _ in range(2))
    assert first == second
    for seed in range(50):
        text = utterance("pl", np.random.default_rng(seed))
        assert text[0].isupper() and text.endswith(".") and len(text) <= 120


@pytest.mark.parametrize("split", ["dev", "test"])
def test_held_out_texts_are_made_of_held_out_words_only(split):
    source = TextSource("en", split, find_domain("general").kinds)
    for seed in range(200):
        text = source.text(np.random.default_rng(seed)).written.casefold()
        said = re.findall(r"\w+", text)
        assert held_out_words("en").issuperset(said)


def test_an_utterance_has_a_word_that_no_held_out_text_has(monkeypatch):
    monkeypatch.setattr("lora_whisper.data.words.words", lambda *_: ("oman", "cyprus", "and", "table"))
    assert held_out_words("en").issuperset(("oman", "cyprus", "and"))
    for seed in range(50):
        assert "table" in sentence("en", np.random.default_rng(seed)).casefold()
