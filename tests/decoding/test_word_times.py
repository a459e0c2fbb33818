"""Times of words: the path on hand-made maps, words from tokens, `mini` on speech whose words are timed."""

from itertools import combinations

import numpy as np
import pytest
import torch
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.audio import features
from lora_whisper.data import espeak
from lora_whisper.decoding.word_times import (
    POSITION_S,
    Matrix,
    attention_maps,
    sharpened,
    split_words,
    token_starts,
    upper_heads,
    word_times,
)
from lora_whisper.model.checkpoint import load_backbone

TAGS = ("pl", "it", None)
CODES = ("pl", "it", "en")
TEXTS = ([65, 97, 98], [70, 71, 72, 73, 74, 75], [80])


def best_by_trying(map_: Matrix) -> float:
    """The most that any monotone path gathers: every way to let each row hold a stretch of positions."""
    n_rows, n_columns = map_.shape
    best = -np.inf
    for borders in combinations(range(1, n_columns), n_rows - 1):
        edges = [0, *borders, n_columns]
        best = max(best, sum(map_[row, edges[row] : edges[row + 1]].sum() for row in range(n_rows)))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_path_gathers_at_least_what_stretches_can(seed: int) -> None:
    map_ = np.random.default_rng(seed).normal(size=(4, 9))
    starts = [round(time / POSITION_S) for time in token_starts(map_)]
    assert starts[0] == 0 and starts == sorted(starts)
    edges = [*starts, 9]
    gathered = sum(map_[row, edges[row] : max(edges[row] + 1, edges[row + 1])].sum() for row in range(4))
    assert gathered >= best_by_trying(map_) - 4  # a path may also hold two rows at one position


def test_a_clear_diagonal_is_followed() -> None:
    map_ = np.zeros((4, 40))
    for row, (first, last) in enumerate(((0, 5), (5, 22), (22, 30), (30, 40))):
        map_[row, first:last] = 1
    assert token_starts(map_ - 0.5) == pytest.approx([0, 5 * POSITION_S, 22 * POSITION_S, 30 * POSITION_S])


def test_sharpening_takes_out_what_all_tokens_look_at() -> None:
    weights = np.full((3, 20), 0.01)
    weights[:, 7] = 0.9  # a position that everybody looks at
    weights[1, 10:16] += 0.2
    found = sharpened(weights)
    assert abs(found[:, 3]).max() < 1e-6 and found[1, 12] > 1 > found[0, 12]


def test_words_begin_with_spaces_and_keep_their_punctuation() -> None:
    backbone = toy_backbone()
    tokens = backbone.tokenizer.encode(" ala, ma kota (żółw).")
    words = split_words(backbone, tokens)
    assert [backbone.tokenizer.decode(word) for word in words] == [" ala,", " ma", " kota", " (żółw)."]
    assert [token for word in words for token in word] == tokens
    unspaced = backbone.tokenizer.encode("かな、か")
    assert [backbone.tokenizer.decode(word) for word in split_words(backbone, unspaced, False)] == [
        "か",
        "な、",
        "か",
    ]
    assert split_words(backbone, []) == [] and split_words(backbone, unspaced[:1]) == [tuple(unspaced[:1])]


def test_attention_sums_to_one_and_changes_nothing() -> None:
    backbone = toy_backbone()
    mel = torch.randn(3, 8, 120, generator=torch.Generator().manual_seed(0))
    n_positions = torch.tensor([60, 40, 20])
    maps, probabilities = attention_maps(backbone, mel, CODES, TEXTS, n_positions)
    for row, text in enumerate(TEXTS):
        assert set(maps[row]) == {(layer, head) for layer in range(2) for head in range(4)}
        for weights in maps[row].values():
            assert weights.shape == (len(text) + 1, int(n_positions[row]))
            np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    start = backbone.tokenizer.start_sequence("pl")
    scores = backbone.model(mel[:1], torch.tensor([[*start, *TEXTS[0]]]), n_positions[:1]).softmax(-1)
    expected = [float(scores[0, len(start) - 1 + i, token]) for i, token in enumerate(TEXTS[0])]
    assert probabilities[0] == pytest.approx(expected, rel=1e-3)


def test_a_mixed_batch_is_each_row_alone() -> None:
    bank = toy_bank(toy_backbone(), {"pl": 4, "it": 4})
    mel, n_positions = (
        torch.randn(3, 8, 120, generator=torch.Generator().manual_seed(0)),
        torch.tensor([60, 40, 20]),
    )
    for row, frames in enumerate((120, 80, 40)):
        mel[row, :, frames:] = 0
    texts = [[text[:2], text[2:]] for text in TEXTS]
    batch = word_times(bank.backbone, mel, CODES, texts, n_positions=n_positions, routing=bank.route(TAGS))
    for row, frames in enumerate((120, 80, 40)):
        alone = word_times(
            bank.backbone, mel[[row], :, :frames], [CODES[row]], [texts[row]], routing=bank.route([TAGS[row]])
        )[0]
        found, expected = ([one for piece in pieces for one in piece] for pieces in (alone, batch[row]))
        assert [(one.tokens, one.start_s, one.end_s) for one in found] == [
            (one.tokens, one.start_s, one.end_s) for one in expected
        ]
        assert [one.probability for one in found] == pytest.approx(
            [one.probability for one in expected], rel=1e-3
        )


def test_mini_knows_when_words_begin() -> None:
    backbone = load_backbone("mini")
    text = "zweiundzwanzig Minuten später im Dezember"
    samples, spoken = espeak.synthesise_words(text, "de")
    tokens = backbone.tokenizer.encode(f" {text}")
    ((words,),) = word_times(backbone, features(samples, 80, "dynamic")[None], ["de"], [[tokens]])
    assert [one.text for one in words] == text.split()
    errors = [abs(one.start_s - start_s) for one, (_, _, start_s) in zip(words, spoken, strict=True)]
    assert float(np.median(errors)) <= 0.12
    assert all(one.start_s <= one.end_s for one in words) and words[-1].end_s <= len(samples) / 16000 + 0.1


def test_without_known_heads_the_upper_layers_are_used() -> None:
    assert upper_heads(toy_backbone()) == ((1, 0), (1, 1), (1, 2), (1, 3))
