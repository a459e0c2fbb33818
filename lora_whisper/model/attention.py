"""Scaled dot-product attention, fast where PyTorch's own is not: on a CPU (docs/log.md).

In the encoder each row of the batch is taken by itself, as long as its audio is and not as the longest beside
it. In training in bf16 the fused kernel is slow backwards: few queries are written out; for many, the
gradients are computed for a few heads of a row at a time, whose scores fit into the cache of the processor.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MANY_QUERIES = 128
"""From so many queries on, rows are taken one by one."""
SCORES_AT_ONCE = 3 << 20
"""Of as many heads of a row as have so many; in bf16 they and their gradients take 12 MiB."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    own: bool = False,
) -> Tensor:
    """Attention output (B, H, L, D/H) of queries (B, H, L, D/H) over keys and values (B, H, S, D/H).

    Args:
        query: its rows are independent.
        key: of each position.
        value: of each position.
        mask: which positions count, bool, (B, 1, 1, S) with the first ones of each row, or (L, S).
        causal: position l sees only the first l + 1.
        own: the positions look at themselves, and nobody reads the outputs of those that do not count.
    """
    if key.stride(2) == 1 and not (causal or query.requires_grad):
        return _written_out(query, key, value, mask)
    on_cpu = query.device.type == "cpu"
    slow = on_cpu and query.dtype == torch.bfloat16 and query.requires_grad
    whole_rows = query.shape[2] >= MANY_QUERIES and not causal and (mask is None or mask.dim() == 4)
    if slow and whole_rows:
        rowwise: Any = _RowByRow  # torch leaves `apply` without types
        return rowwise.apply(query, key, value, _spans(query, key, mask, own))
    if on_cpu and whole_rows and own and mask is not None:
        return _row_by_row(query, key, value, _spans(query, key, mask, own))
    if not slow:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    return _written_out(query, key, value, mask)


def for_few_queries(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, S, D/H) to be read again and again, for a few queries each time.

    On a CPU in float32 written-out products over keys laid out as columns take a quarter less time than the
    fused kernel (docs/log.md); elsewhere they are left as they are.
    """
    if key.device.type != "cpu" or key.dtype != torch.float32:
        return key, value
    return key.mT.contiguous().mT, value.contiguous()


def _written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1) @ value


def _spans(query: Tensor, key: Tensor, mask: Tensor | None, own: bool) -> list[tuple[int, int]]:
    """How many queries and keys of each row count."""
    n_keys = [key.shape[2]] * len(key) if mask is None else mask.flatten(1).sum(1).tolist()
    return [(count if own else query.shape[2], count) for count in n_keys]


def _row_by_row(query: Tensor, key: Tensor, value: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """The fused kernel on what counts of each row; zeros elsewhere."""
    output = torch.zeros_like(query)
    for row, (n_queries, n_keys) in enumerate(spans):
        queries, keys = _first(row, n_queries), _first(row, n_keys)
        output[queries] = F.scaled_dot_product_attention(query[queries], key[keys], value[keys])
    return output


class _RowByRow(torch.autograd.Function):
    """The fused kernel forwards; backwards the scores of a few heads at a time, made anew."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, spans: list[tuple[int, int]]) -> Tensor:
        """The output (B, H, L, D/H); `spans` are how many queries and keys of each row count."""
        output = _row_by_row(query, key, value, spans)
        ctx.spans = spans
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, output = ctx.saved_tensors
        d_output, n_heads = grads[0], query.shape[1]
        scale = query.shape[-1] ** -0.5
        scaled = query * scale
        correction = (d_output.float() * output).sum(-1, keepdim=True).to(query.dtype)
        # one more column makes the product with the values subtract the correction
        corrected = torch.cat([d_output, -correction], -1)
        extended = torch.cat([value, torch.ones_like(value[..., :1])], -1)
        d_query, d_key, d_value = (torch.zeros_like(one) for one in (query, key, value))
        for row, (n_queries, n_keys) in enumerate(ctx.spans):
            step = max(1, SCORES_AT_ONCE // max(1, n_queries * n_keys))
            for first in range(0, n_heads, step):
                heads = slice(first, first + step)
                queries, keys = _first(row, n_queries, heads), _first(row, n_keys, heads)
                weights = (scaled[queries] @ key[keys].mT).softmax(-1)  # (1, heads, L, S)
                d_value[keys] = weights.mT @ d_output[queries]
                d_scores = (corrected[queries] @ extended[keys].mT).mul_(weights)
                d_query[queries] = (d_scores @ key[keys]).mul_(scale)
                d_key[keys] = d_scores.mT @ scaled[queries]
        return d_query, d_key, d_value, None


def _first(row: int, length: int, heads: slice = slice(None)) -> tuple[slice, slice, slice]:
    """The first positions of a row, in some of the heads."""
    return slice(row, row + 1), heads, slice(length)


def causality(n_new: int, keys: Tensor) -> tuple[Tensor | None, bool]:
    """Mask and causal flag by which `n_new` tokens see only themselves and their past among `keys`."""
    n_past = keys.shape[2] - n_new
    if n_new == 1:
        return None, False
    if n_past == 0:
        return None, True
    mask = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=keys.device)
    return mask.tril(n_past), False
