"""Frozen weights are converted once, learning ones each time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_whisper.model.precision import converted, linear, wide_linear, working_precision


def test_the_working_precision_is_that_of_autocast() -> None:
    x = torch.zeros(2)
    assert working_precision(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert working_precision(x) == torch.bfloat16


def test_a_frozen_weight_is_converted_once_and_again_after_a_change() -> None:
    weight = nn.Parameter(torch.ones(3, 3), requires_grad=False)
    first = converted(weight, torch.bfloat16)
    assert converted(weight, torch.bfloat16) is first and first.dtype == torch.bfloat16
    assert converted(weight, torch.float32) is weight
    weight.mul_(2)
    assert converted(weight, torch.bfloat16)[0, 0] == 2
    weight.data = torch.full((3, 3), 5.0)
    assert converted(weight, torch.bfloat16)[0, 0] == 5
    assert converted(copy.deepcopy(weight), torch.bfloat16)[0, 0] == 5


def test_what_inference_converted_can_be_learned_through() -> None:
    weight = nn.Parameter(torch.ones(3, 3), requires_grad=False)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        linear(torch.ones(1, 3), weight)
    x = torch.ones(1, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, weight)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and torch.equal(x.grad, torch.full((1, 3), 3.0))


def test_a_learning_weight_gets_its_gradient() -> None:
    weight, x = nn.Parameter(torch.ones(3, 3)), torch.ones(1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        linear(x, weight).sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 2), (0,), (4,), ()])
def test_many_outputs_are_those_of_a_plain_product(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(900, 8, generator=generator), torch.randn(*shape, 8, generator=generator)
    expected = F.linear(x, weight)
    with torch.inference_mode():
        torch.testing.assert_close(wide_linear(x, weight), expected)
    learning = weight.requires_grad_()
    wide_linear(x, learning).sum().backward()
    assert learning.grad is not None
