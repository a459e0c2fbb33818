import pytest
import torch

from lora_whisper.decoding import most_probable as module
from lora_whisper.decoding.most_probable import most_probable


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("n_vocab", [40, 1000, 5003])
def test_they_are_those_of_log_softmax_and_topk(
    count: int, n_vocab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHED_BYTES", 3 * 4 * n_vocab)  # three rows at once
    scores = 3 * torch.randn(7, n_vocab, generator=torch.Generator().manual_seed(n_vocab))
    scores[:, n_vocab // 2 : n_vocab // 2 + 9] = -torch.inf
    values, tokens = scores.log_softmax(1).topk(count, 1)
    found = most_probable(scores.clone(), count)
    torch.testing.assert_close(found[0], values)
    assert torch.equal(found[1], tokens)


def test_probable_tokens_at_the_very_end_are_found() -> None:
    scores = torch.zeros(2, 1000)
    scores[0, 999], scores[0, 998], scores[1, 0] = 3, 2, 1  # 1000 = 15 blocks of 64 and a rest
    assert most_probable(scores, 2)[1][0].tolist() == [999, 998]


def test_low_precision_is_no_matter_for_the_probabilities() -> None:
    scores = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = scores.float().log_softmax(1).max(1).values
    torch.testing.assert_close(most_probable(scores, 1)[0].squeeze(1), expected)


def test_where_only_a_few_tokens_may_be_said_the_others_are_impossible() -> None:
    scores = torch.full((1, 1000), -torch.inf)
    scores[0, 5], scores[0, 700] = 1.0, 2.0
    values, tokens = most_probable(scores, 3)
    assert tokens[0, :2].tolist() == [700, 5] and values[0, 2] == -torch.inf
    assert values[0, :2].exp().sum() == pytest.approx(1)
