"""The most probable of 51,865 tokens: what greedy and beam search want of a batch's scores.

`log_softmax` and `topk` go through all scores (R, V) again and again. Here the scores of a few rows stay in
the cache of the processor until they are done with, and only blocks with a high maximum are sorted.
"""

import torch
from torch import Tensor

CACHED_BYTES = 2 << 20
"""Of scores in float32 that a CPU works on at once."""
BLOCK = 64
"""Tokens of a block."""


def most_probable(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities, float32, and tokens, int64, of the `count` most probable ones, (R, count) each.

    Args:
        scores: (R, V), before the softmax, in any precision; may be overwritten.
        count: at most V.
    """
    n_rows, n_vocab = scores.shape
    size = n_rows if scores.device.type != "cpu" else max(1, CACHED_BYTES // (4 * n_vocab))
    parts = [_of_rows(part.float(), count) for part in scores.split(size)]
    return torch.cat([values for values, _ in parts]), torch.cat([tokens for _, tokens in parts])


def _of_rows(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    best, tokens = scores.max(1, keepdim=True) if count == 1 else _topk(scores, count)
    highest = best[:, :1].clamp_min(torch.finfo(scores.dtype).min)  # a row without any token stays at -inf
    total = scores.sub_(highest).exp_().sum(1, keepdim=True)
    return best - highest - total.log(), tokens


def _topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of scores (R, V), in order: they lie in the blocks with the highest maxima."""
    n_blocks = scores.shape[1] // BLOCK
    if n_blocks < 4 * count:
        return scores.topk(count, 1)
    whole = n_blocks * BLOCK
    blocks = scores[:, :whole].unflatten(1, (n_blocks, BLOCK))
    chosen = blocks.amax(2).topk(count, 1).indices  # (R, count)
    inside = torch.arange(BLOCK, device=scores.device)
    tokens = (chosen.unsqueeze(2) * BLOCK + inside).flatten(1)
    rest = torch.arange(whole, scores.shape[1], device=scores.device).expand(len(scores), -1)
    tokens = torch.cat([tokens, rest], 1)
    best, place = scores.gather(1, tokens).topk(count, 1)
    return best, tokens.gather(1, place)
