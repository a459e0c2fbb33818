import numpy as np

from lora_whisper.data.texts import split_of
from lora_whisper.data.words import sentence, words


def test_words_of_splits_are_disjoint_and_plain():
    train, test = words("pl", "train"), words("pl", "test")
    assert len(train) > 5000 and not set(train) & set(test)
    assert all(split_of(word) == "train" and word.isalpha() for word in train[:500])


def test_sentences_repeat_have_capital_and_stop_and_are_short():
    first, second = (sentence("pl", "train", np.random.default_rng(4)) for _ in range(2))
    assert first == second
    for seed in range(50):
        text = sentence("pl", "train", np.random.default_rng(seed))
        assert text[0].isupper() and text.endswith(".") and len(text) <= 90
