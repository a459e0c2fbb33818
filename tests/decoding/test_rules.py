"""Rules on hand-made histories: which tokens are still possible."""

import pytest
import torch
from toy_whisper import toy_backbone, toy_tokenizer

from lora_whisper.decoding.rules import NOT_YET, suppression, timestamp_pairs
from lora_whisper.decoding.search import DecodingOptions, decode

TOKENIZER = toy_tokenizer()
T0 = TOKENIZER.timestamp_begin
TEXT = set(range(TOKENIZER.eot)) - set(toy_backbone().suppress_tokens)
END = {TOKENIZER.eot}


def times(start: int, end: int = 1501) -> set[int]:
    return set(range(T0 + start, T0 + end))


def possible(*said: int, scores: torch.Tensor | None = None) -> set[int]:
    scores = torch.zeros(1, TOKENIZER.n_vocab) if scores is None else scores
    history = torch.tensor([said], dtype=torch.int64)
    fresh = None if said else torch.tensor([0])
    suppression(toy_backbone(), (), timestamps=True)(scores, history, fresh)
    if said:  # text as probable as all times together, or the rule of the mass would hide the others
        scores[:, : TOKENIZER.eot + 1] += 20
    timestamp_pairs(TOKENIZER, 1.0)(scores, history, fresh)
    return set(scores[0].isfinite().nonzero().squeeze(1).tolist())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((), times(0, 51)),  # a time, at most 1 s
        ((T0,), TEXT | END),  # after the first time, text
        ((T0, 70), TEXT | END | times(1)),
        ((T0, 70, T0 + 100), END | times(100)),  # a segment ended: the next begins, or all ends
        ((T0, 70, T0 + 100, T0 + 100), TEXT | END),
        ((T0, 70, T0 + 100, T0 + 120, 71), TEXT | END | times(121)),
    ],
)
def test_times_come_in_pairs_and_never_go_back(said: tuple[int, ...], expected: set[int]) -> None:
    assert possible(*said) == expected


def test_rows_have_their_own_histories() -> None:
    scores = torch.zeros(2, TOKENIZER.n_vocab)
    scores[:, : TOKENIZER.eot + 1] += 20
    timestamp_pairs(TOKENIZER, 1.0)(scores, torch.tensor([[T0, 70], [T0 + 5, T0 + 9]]), None)
    assert scores[0, T0 + 1].isfinite() and not scores[0, T0].isfinite()
    assert scores[1, 5].isfinite() and not scores[1, T0:].isfinite().any()


def test_times_win_where_they_are_more_probable_together() -> None:
    scores = torch.zeros(1, TOKENIZER.n_vocab)  # 1,500 times of one each against 1 for any text
    timestamp_pairs(TOKENIZER, 1.0)(scores, torch.tensor([[T0, 70]]), None)
    assert not scores[0, :T0].isfinite().any() and scores[0, T0 + 1 :].isfinite().all()


def test_decoded_times_are_pairs_that_rise() -> None:
    backbone = toy_backbone()
    mel = torch.randn(6, 8, 120, generator=torch.Generator().manual_seed(1))
    for one in decode(backbone, mel, ["pl"] * 6, options=DecodingOptions(timestamps=True)):
        found = [token for token in one.tokens if TOKENIZER.is_timestamp(token)]
        assert TOKENIZER.is_timestamp(one.tokens[0]) and found == sorted(found)
        assert not any(TOKENIZER.is_timestamp(token) for token in backbone.tokenizer.encode(one.text))


def test_a_row_that_came_later_begins_with_a_time() -> None:
    histories = [(T0, 70, T0 + 100), (T0 + 3,), ()]
    expected = [possible(*said) for said in histories]
    said = torch.tensor([[NOT_YET] * (3 - len(one)) + list(one) for one in histories])
    scores, fresh = torch.zeros(3, TOKENIZER.n_vocab), torch.tensor([2])
    suppression(toy_backbone(), (), timestamps=True)(scores, said, fresh)
    scores[:2, : TOKENIZER.eot + 1] += 20
    timestamp_pairs(TOKENIZER, 1.0)(scores, said, fresh)
    assert [set(row.isfinite().nonzero().squeeze(1).tolist()) for row in scores] == expected
