"""Scaled dot-product attention, fast where PyTorch's own is not: on a CPU (docs/log.md).

The encoder's rows lie one behind the other there, without padding, and each is taken by itself. In bf16 the
fused kernel is slow for few queries and backwards, and altogether where the processor has no tiles (AMX): a
decoder's are written out, an encoder's for a few heads of a row at a time, whose scores fit into the cache.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby, pairwise
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.model.shapes import rounded_up

SCORES_AT_ONCE = 3 << 20
"""Of as many heads of a row as have so many; in bf16 they and their gradients take 12 MiB, more in rows so
long that fewer than `FEWEST_HEADS` would fit."""

FEWEST_HEADS = 2
"""At once: PyTorch copies the transposed scores of a single head before it multiplies them (docs/log.md)."""

FEW_QUERIES = 16
"""For which the fused kernel multiplies one head after the other in bf16, each product for microseconds."""

WINDOW_STEP = 32
"""Stretches are seen, in training, in windows of multiples of so many positions: few shapes."""

Stretch = slice
"""Positions of one row."""


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention output (B, H, L, D/H) of queries (B, H, L, D/H) over keys and values (B, H, S, D/H).

    Args:
        query: its rows are independent.
        key: of each position.
        value: of each position.
        mask: which positions count, bool, (B, 1, 1, S) with the first ones of each row, or (L, S).
        causal: position l sees only the first l + 1.
    """
    if (in_columns(key) or _few(query)) and not (causal or query.requires_grad):
        return _written_out(query, key, value, mask)
    if not _slow_backwards(query):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    return _written_out(query, key, value, mask)


def attention_within(query: Tensor, key: Tensor, value: Tensor, stretches: Sequence[Stretch]) -> Tensor:
    """Attention output (1, H, N, D/H) of positions which look at those of their own stretch.

    Args:
        query: (1, H, N, D/H), as keys and values are.
        key: of each position.
        value: of each position.
        stretches: one behind the other, all positions together.
    """
    if _slow_backwards(query):
        within: Any = _Within  # torch leaves `apply` without types
        return within.apply(query, key, value, stretches)
    return _forwards(query, key, value, stretches)


def _rounded(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def _few(query: Tensor) -> bool:
    return _rounded(query) and query.shape[2] <= FEW_QUERIES


def _slow_backwards(query: Tensor) -> bool:
    return _rounded(query) and query.requires_grad


@cache
def _has_tiles() -> bool:
    return torch.cpu._is_amx_tile_supported()


def for_few_queries(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, S, D/H) to be read again and again, for a few queries each time.

    On a CPU what a head reads lies together, and products are written out; in float32 keys are laid out as
    columns, over which these take a quarter less time than the fused kernel (docs/log.md).
    """
    if key.device.type != "cpu":
        return key, value
    if key.dtype != torch.float32:
        return key.contiguous(), value.contiguous()
    return key.mT.contiguous().mT, value.contiguous()


def in_columns(keys: Tensor) -> bool:
    """Whether keys (B, H, S, D/H) are laid out as `for_few_queries` does it in float32."""
    return keys.stride(2) == 1


def _written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1) @ value


def _fused(query: Tensor, key: Tensor, value: Tensor, stretches: Sequence[Stretch]) -> Tensor:
    """The fused kernel, for stretches of one length that follow each other at once: (n, H, length, D/H)."""
    lengths = (own.stop - own.start for own in stretches)
    alike = [(length, len(list(run))) for length, run in groupby(lengths)]
    # split, not sliced: the gradient of a slice is as large as the whole, once for each slice
    parts = (one.split([length * n for length, n in alike], dim=2) for one in (query, key, value))
    mixed = []
    for (length, n), *heads in zip(alike, *parts, strict=True):
        rows = (one.unflatten(2, (n, length)).squeeze(0).transpose(0, 1) for one in heads)
        mixed.append(F.scaled_dot_product_attention(*rows).transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed).unsqueeze(0).transpose(1, 2)


def _in_parts(query: Tensor, key: Tensor, value: Tensor, stretches: Sequence[Stretch]) -> Tensor:
    """Written out, stretch by stretch and a few heads at a time."""
    n_rows, n_heads, n_positions, width = query.shape
    output = query.new_empty(n_rows, n_positions, n_heads, width).transpose(1, 2)
    scaled = query * width**-0.5
    for own in stretches:
        window, inside = _window(own, n_positions)
        for heads in _parts(n_heads, window.stop - window.start):
            seen = slice(None), heads, window
            weights = _weights_within(scaled[seen], key[seen], inside)
            output[:, heads, own] = (weights @ value[seen])[:, :, inside]
    return output


def _forwards(query: Tensor, key: Tensor, value: Tensor, stretches: Sequence[Stretch]) -> Tensor:
    way = _in_parts if _rounded(query) and not _has_tiles() else _fused
    return way(query, key, value, stretches)


class _Within(torch.autograd.Function):
    """Backwards the scores of a few heads at a time, made anew."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, stretches: Sequence[Stretch]) -> Tensor:
        """The output (1, H, N, D/H)."""
        output = _forwards(query, key, value, stretches)
        ctx.stretches = stretches
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
        d_query, d_key, d_value = (torch.empty_like(one) for one in (query, key, value))
        for own in ctx.stretches:
            window, inside = _window(own, query.shape[2])
            for heads in _parts(n_heads, window.stop - window.start):
                seen, kept = (slice(None), heads, window), (slice(None), heads, own)
                weights = _weights_within(scaled[seen], key[seen], inside)  # (1, heads, n, n)
                d_value[kept] = (weights.mT @ d_output[seen])[:, :, inside]
                d_scores = (corrected[seen] @ extended[seen].mT).mul_(weights)
                d_query[kept] = (d_scores @ key[seen])[:, :, inside].mul_(scale)
                d_key[kept] = (d_scores.mT @ scaled[seen])[:, :, inside]
        return d_query, d_key, d_value, None


def _parts(n_heads: int, n_positions: int) -> list[slice]:
    """Heads that are taken at once, in parts of about the same size, none of a single head among several."""
    most = max(1, SCORES_AT_ONCE // n_positions**2)
    n_parts = max(1, min(ceil(n_heads / most), n_heads // FEWEST_HEADS))
    return [slice(*edges) for edges in pairwise(n_heads * part // n_parts for part in range(n_parts + 1))]


def _window(own: Stretch, n_positions: int) -> tuple[Stretch, Stretch]:
    """A stretch and as many neighbours as its size is rounded up by, and where in it the stretch lies."""
    length = own.stop - own.start
    size = min(rounded_up(length, WINDOW_STEP), n_positions)
    start = min(own.start, n_positions - size)
    return slice(start, start + size), slice(own.start - start, own.stop - start)


def _weights_within(scaled: Tensor, key: Tensor, inside: Stretch) -> Tensor:
    """How much each position inside looks at each other, (1, H, n, n); zero where one is outside."""
    scores = scaled @ key.mT
    outside = slice(0, inside.start), slice(inside.stop, None)
    for part in outside:
        scores[..., part] = -torch.inf
    weights = scores.softmax(-1)
    for part in outside:
        weights[..., part, :] = 0
    return weights


def causality(n_new: int, keys: Tensor) -> tuple[Tensor | None, bool]:
    """Mask and causal flag by which `n_new` tokens see only themselves and their past among `keys`."""
    n_past = keys.shape[2] - n_new
    if n_new == 1:
        return None, False
    if n_past == 0:
        return None, True
    mask = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=keys.device)
    return mask.tril(n_past), False
