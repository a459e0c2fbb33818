"""Scaled dot-product attention, fast where PyTorch's own is not: in training in bf16 on a CPU.

There the fused kernel is fast forwards and slow backwards (docs/log.md). Few queries are written out; for
many, as in the encoder, the gradients are computed row by row of the batch: the scores of one row fit into
the cache of the processor, and they end where its audio ends.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MANY_QUERIES = 128
"""From so many queries on the gradients are computed row by row."""


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention output (B, H, L, D/H) of queries (B, H, L, D/H) over keys and values (B, H, S, D/H).

    Args:
        query: its rows are independent.
        key: of each position.
        value: of each position.
        mask: which positions count, bool, (B, 1, 1, S) with the first ones of each row, or (L, S).
        causal: position l sees only the first l + 1.
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
    if not slow:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    if query.shape[2] >= MANY_QUERIES and not causal and (mask is None or mask.dim() == 4):
        lengths = [key.shape[2]] * len(key) if mask is None else mask.flatten(1).sum(1).tolist()
        rowwise: Any = _RowByRow  # torch leaves `apply` without types
        return rowwise.apply(query, key, value, mask, lengths)
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value


class _RowByRow(torch.autograd.Function):
    """The fused kernel forwards; backwards the scores of one row of the batch at a time, made anew."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, lengths: list[int]
    ) -> Tensor:
        """The output (B, H, L, D/H)."""
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        ctx.lengths = lengths
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, output = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        correction = (grads[0].float() * output).sum(-1, keepdim=True).to(query.dtype)
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for row, length in enumerate(ctx.lengths):
            q, d_out = query[row] * scale, grads[0][row]
            k, v = key[row, :, :length], value[row, :, :length]
            weights = (q @ k.transpose(1, 2)).softmax(-1)  # (H, L, S)
            d_value[row, :, :length] = weights.transpose(1, 2) @ d_out
            d_scores = (d_out @ v.transpose(1, 2)).sub_(correction[row]).mul_(weights)
            d_query[row] = (d_scores @ k).mul_(scale)
            d_key[row, :, :length] = d_scores.transpose(1, 2) @ q
        return d_query, d_key, d_value, None, None


def causality(n_new: int, keys: Tensor) -> tuple[Tensor | None, bool]:
    """Mask and causal flag by which `n_new` tokens see only themselves and their past among `keys`."""
    n_past = keys.shape[2] - n_new
    if n_new == 1:
        return None, False
    if n_past == 0:
        return None, True
    mask = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=keys.device)
    return mask.tril(n_past), False
