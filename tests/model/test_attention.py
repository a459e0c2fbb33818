"""Attention in training in bf16 on a CPU, against PyTorch's in float32."""

from collections.abc import Callable
from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.model.attention import (
    FEW_QUERIES,
    SCORES_AT_ONCE,
    _fused,
    _in_parts,
    _parts,
    attention,
    attention_within,
    causality,
    for_few_queries,
    in_columns,
)
from lora_whisper.model.cache import Heard

B, H, D = 3, 2, 16


def tensors(n_queries: int, n_keys: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n_queries)
    return [torch.randn(B, H, n, D, generator=generator).bfloat16() for n in (n_queries, n_keys, n_keys)]


def assert_same(found: Tensor, expected: Tensor, low: list[Tensor], high: list[Tensor]) -> None:
    """The outputs, and their gradients, in bf16 as in float32."""
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    for one, other in zip(
        torch.autograd.grad(found, low, upstream.to(found.dtype)),
        torch.autograd.grad(expected, high, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one.float(), other, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("n_queries", [5, 130])
@pytest.mark.parametrize("masked", [True, False])
def test_outputs_and_gradients_are_those_of_float32(n_queries: int, masked: bool) -> None:
    n_keys = 90
    mask = (torch.arange(n_keys) < torch.tensor([[90], [1], [40]]))[:, None, None] if masked else None
    low = [each.requires_grad_() for each in tensors(n_queries, n_keys)]
    high = [each.detach().float().requires_grad_() for each in low]
    found = attention(*low, mask, causal=False)
    expected = F.scaled_dot_product_attention(*high, attn_mask=mask)
    assert_same(found, expected, low, high)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(130, 1, 40), (57, 57, 57), (30, 30, 1, 55, 55), (171,)])
def test_stretches_look_at_themselves(dtype: torch.dtype, lengths: tuple[int, ...]) -> None:
    edges = [0, *accumulate(lengths)]
    stretches = [slice(*ends) for ends in pairwise(edges)]
    low = [each[:1].to(dtype).requires_grad_() for each in tensors(edges[-1], edges[-1])]
    high = [each.detach().float().requires_grad_() for each in low]
    owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    expected = F.scaled_dot_product_attention(*high, attn_mask=owners[:, None] == owners)
    assert_same(attention_within(*low, stretches), expected, low, high)


@torch.no_grad()
@pytest.mark.parametrize("way", [_in_parts, _fused])
def test_both_ways_forwards_look_at_the_own_stretch_only(way: Callable[..., Tensor]) -> None:
    low = [each[:1] for each in tensors(171, 171)]
    stretches = [slice(0, 130), slice(130, 131), slice(131, 171)]
    owners = torch.arange(3).repeat_interleave(torch.tensor([130, 1, 40]))
    expected = F.scaled_dot_product_attention(
        *(each.float() for each in low), attn_mask=owners[:, None] == owners
    )
    torch.testing.assert_close(way(*low, stretches).float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 6, 8, 12, 16, 20])
@pytest.mark.parametrize("n_positions", [32, 736, 1280, 1500])
def test_heads_are_taken_in_parts_that_fit_and_never_alone(n_heads: int, n_positions: int) -> None:
    parts = _parts(n_heads, n_positions)
    assert [head for part in parts for head in range(n_heads)[part]] == list(range(n_heads))
    sizes = [part.stop - part.start for part in parts]
    assert min(sizes) >= min(2, n_heads)
    assert max(sizes) <= max(3, SCORES_AT_ONCE // n_positions**2)


def test_causal_queries_do_not_see_what_follows() -> None:
    low = [each.requires_grad_() for each in tensors(130, 130)]
    expected = F.scaled_dot_product_attention(*(each.float() for each in low), is_causal=True)
    torch.testing.assert_close(attention(*low, None, causal=True).float(), expected, atol=0.02, rtol=0.02)


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
def test_keys_for_few_queries_give_the_same_and_stay_laid_out(masked: bool) -> None:
    query, key, value = (each.float() for each in tensors(5, 90))
    mask = (torch.arange(90) < torch.tensor([[90], [1], [40]]))[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    laid_out = for_few_queries(key, value)
    assert in_columns(laid_out[0]) and not in_columns(key) and torch.equal(laid_out[0], key)
    torch.testing.assert_close(attention(query, *laid_out, mask, causal=False), expected)
    keys, values = Heard([laid_out]).index_select(torch.tensor([2, 0]), B).keys_values[0]
    assert in_columns(keys)
    assert torch.equal(keys, key[[2, 0]]) and torch.equal(values, value[[2, 0]])


def test_keys_in_bf16_lie_together() -> None:
    _, key, value = (each.transpose(1, 2) for each in tensors(5, 90))
    for before, after in zip((key, value), for_few_queries(key, value), strict=True):
        assert after.is_contiguous() and torch.equal(before, after)


@torch.no_grad()
@pytest.mark.parametrize("n_queries", [1, 5, FEW_QUERIES + 1])
@pytest.mark.parametrize("masked", [True, False])
def test_few_queries_in_bf16_give_what_float32_does(n_queries: int, masked: bool) -> None:
    low = tensors(n_queries, 90)
    mask = (torch.arange(90) < torch.tensor([[90], [1], [40]]))[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(*(each.float() for each in low), attn_mask=mask)
    torch.testing.assert_close(attention(*low, mask, causal=False).float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(("n_new", "n_past"), [(1, 5), (3, 0), (3, 4)])
def test_new_tokens_see_the_past_and_themselves(n_new: int, n_past: int) -> None:
    keys = torch.zeros(B, H, n_past + n_new, D)
    mask, causal = causality(n_new, keys)
    seen = torch.ones(n_new, n_past + n_new).tril(n_past).bool()
    if causal:
        assert n_past == 0
    elif mask is None:
        assert seen.all()
    else:
        assert torch.equal(mask, seen)
