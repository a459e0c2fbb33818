"""Low-rank updates of runs of rows, against the formula."""

import pytest
import torch
from torch import Tensor, nn

from lora_whisper.lora.products import Factors, InferenceRun, LearningLayer, LearningRun, infer, learn

IN, OUT, RANK = 24, 16, 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(length: int) -> tuple[Tensor, Tensor, Tensor, list[Factors]]:
    factors = [Factors(numbers(RANK, IN, seed=i), numbers(OUT, RANK, seed=10 + i)) for i in range(2)]
    return numbers(5, length, IN, seed=1), numbers(OUT, IN, seed=2), numbers(OUT, seed=3), factors


@pytest.mark.parametrize("length", [1, 6, 40], ids=["factors", "some runs merged", "all merged"])
@pytest.mark.parametrize("biased", [True, False])
@torch.inference_mode()
def test_inference_is_the_formula_whether_or_not_weights_are_merged(length: int, biased: bool) -> None:
    x, weight, bias, (first, second) = batch(length)
    runs = [InferenceRun(0, 1, first), InferenceRun(1, 2, None), InferenceRun(2, 5, second)]
    found = infer(weight, bias if biased else None, runs, length, x.dtype)(x)
    expected = x @ weight.T + (bias if biased else 0)
    expected[:1] += x[:1] @ first.a.T @ first.b.T
    expected[2:] += x[2:] @ second.a.T @ second.b.T
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_an_untrained_update_changes_no_bit() -> None:
    for length in (1, 40):
        x, weight, bias, (first, _) = batch(length)
        fresh = Factors(first.a, torch.zeros(OUT, RANK))
        ways = [infer(weight, bias, [InferenceRun(0, 5, one)], length, x.dtype) for one in (None, fresh)]
        assert torch.equal(ways[0](x), ways[1](x))


def test_gradients_are_those_of_the_formula() -> None:
    x, weight, bias, factors = batch(4)
    x.requires_grad_()
    learned = [(nn.Parameter(one.a.clone()), nn.Parameter(one.b.clone())) for one in factors]
    places = [(0, 2, 0.5), (3, 5, 2.0)]
    runs = [LearningRun(*place[:2], *pair, place[2]) for place, pair in zip(places, learned, strict=True)]
    (found,) = learn(x, [LearningLayer(weight, bias, runs)])
    expected = x @ weight.T + bias
    for (start, stop, scale), (a, b) in zip(places, learned, strict=True):
        update = torch.zeros_like(expected)
        update[start:stop] = scale * (x[start:stop] @ a.T @ b.T)
        expected = expected + update
    torch.testing.assert_close(found, expected)
    wanted = [x, *(factor for pair in learned for factor in pair)]
    upstream = numbers(*found.shape, seed=9)
    for one, other in zip(
        torch.autograd.grad(found, wanted, upstream, retain_graph=True),
        torch.autograd.grad(expected, wanted, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_under_autocast_everything_is_bf16_but_the_gradients_of_parameters() -> None:
    x, weight, bias, factors = batch(4)
    a, b = (nn.Parameter(each.clone()) for each in (factors[0].a, factors[0].b))
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = learn(x, [LearningLayer(weight, bias, [LearningRun(0, 5, a, b, 1.0)])])
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert a.grad is not None and a.grad.dtype == torch.float32 and bool(a.grad.any())


def test_an_adapter_in_two_runs_learns_from_both() -> None:
    x, weight, _, factors = batch(2)
    a, b = (nn.Parameter(each.clone()) for each in (factors[0].a, factors[0].b))
    apart = [LearningRun(0, 1, a, b, 1.0), LearningRun(1, 5, a, b, 1.0)]
    together = [LearningRun(0, 5, a, b, 1.0)]
    grads = [
        torch.autograd.grad(learn(x, [LearningLayer(weight, None, runs)])[0].sum(), [a, b])
        for runs in (apart, together)
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("runs", [[(0, 5)], [(0, 2), (3, 5)]])
def test_layers_side_by_side_learn_as_each_alone(runs: list[tuple[int, int]]) -> None:
    x = numbers(5, 4, IN, seed=1).requires_grad_()
    layers = []
    for layer, (n_out, rank, bias) in enumerate([(16, 3, True), (8, 2, False), (16, 3, True)]):
        learning = [
            LearningRun(
                *place,
                nn.Parameter(numbers(rank, IN, seed=20 * layer + i)),
                nn.Parameter(numbers(n_out, rank, seed=20 * layer + 10 + i)),
                0.5 + layer,
            )
            for i, place in enumerate(runs)
        ]
        weight = numbers(n_out, IN, seed=50 + layer)
        layers.append(LearningLayer(weight, numbers(n_out, seed=60) if bias else None, learning))
    together = learn(x, layers)
    alone = [learn(x, [layer])[0] for layer in layers]
    wanted = [x, *(factor for layer in layers for run in layer.runs for factor in (run.a, run.b))]
    upstream = [numbers(*y.shape, seed=70 + i) for i, y in enumerate(alone)]
    for y, other in zip(together, alone, strict=True):
        torch.testing.assert_close(y, other)
    for one, other in zip(
        *(torch.autograd.grad(ys, wanted, upstream) for ys in (together, alone)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
