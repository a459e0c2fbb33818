"""A linear layer and low-rank updates of runs of its rows: one way for inference, one for training.

A run is a stretch of rows that use the same adapter. In inference, BAx costs R(in + out) products more per
position, while W₀ + BA costs R·in·out of them once: long runs are multiplied with the sum, short ones with
the factors, all adapters in one batched product where they have about as many rows. In training, the update
is added in place and its gradients are written out; the frozen weight has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_whisper.model.precision import converted, working_precision
from lora_whisper.model.routing import Groups, Route, Way

MERGE_WORTH, MERGE_WORTH_ROUNDED = 2, 8
"""How many of the products by factors a merged weight must spare for each of its numbers: it is added in
float32 even where all else is rounded and quicker (docs/log.md)."""

MOST_IDLE = 64
"""Adapters of other rows, per position, that are multiplied in vain without a second thought."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What a route adds to a layer's weight: b @ a, with all scales in b.

    Attributes:
        a: (R, in).
        b: (out, R).
    """

    a: Tensor
    b: Tensor


@dataclass(frozen=True, eq=False)
class InferenceRun:
    """Rows `start` to `stop` of a batch.

    Attributes:
        start: the first row.
        stop: the row behind the last one.
        factors: of their update; None for the layer alone.
        gate: weight of each of the R at each position, (b, 1 or L, R), for inputs (b, L, in), where it
            depends on them.
    """

    start: int
    stop: int
    factors: Factors | None
    gate: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class LearningRun:
    """Rows `start` to `stop`, which learn `a` (R, in) and `b` (out, R)."""

    start: int
    stop: int
    a: nn.Parameter
    b: nn.Parameter
    scale: float


@dataclass(frozen=True, eq=False)
class LearningLayer:
    """A frozen layer, weight (out, in) and bias (out,) or None, and its runs of rows that learn."""

    weight: Tensor
    bias: Tensor | None
    runs: Sequence[LearningRun]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Factors of several routes, laid out for batched products.

    Attributes:
        a: (U, in, R), filled with zeros up to the largest rank.
        b: (U, R, out).
    """

    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, factors: Sequence[Factors]) -> "Bundle":
        """At least one."""
        rank = max(one.a.shape[0] for one in factors)
        a = [F.pad(one.a, (0, 0, 0, rank - one.a.shape[0])).T for one in factors]
        b = [F.pad(one.b, (0, rank - one.b.shape[1])).T for one in factors]
        return cls(torch.stack(a).contiguous(), torch.stack(b).contiguous())

    def to(self, dtype: torch.dtype) -> "Bundle":
        """The same in another precision."""
        return Bundle(self.a.to(dtype), self.b.to(dtype))


def infer(
    weight: Tensor,
    bias: Tensor | None,
    runs: Sequence[InferenceRun],
    length: int,
    dtype: torch.dtype,
    grouped: Callable[[], tuple[Bundle, Groups] | None] = lambda: None,
) -> Way:
    """How a batch goes through a layer, without gradients: x (B, L, in) → (B, L, out).

    It is decided once, because a decoder does it for every token.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        runs: all rows of the batch.
        length: L.
        dtype: to work in.
        grouped: makes the factors of all runs and their rows as groups; None if they do not group well.
    """
    weight = converted(weight, dtype)
    bias = None if bias is None else converted(bias, dtype)
    work: Way
    if any(run.gate is not None for run in runs):
        work = partial(_gated_runs, weight, bias, [_in(run, dtype) for run in runs])
    elif any(_merging_pays(run, length, weight) for run in runs):
        work = partial(_merged_runs, weight, bias, runs)
    elif len(runs) > 1 and (several := grouped()) is not None:
        bundle, groups = several
        work = partial(_grouped_runs, weight, bias, bundle.to(dtype), groups)
    else:
        work = partial(_added_runs, weight, bias, [_in(run, dtype) for run in runs])
    return partial(_in_precision, dtype, work)


def infer_together(
    weight: Tensor, bias: Tensor | None, factors: Factors, owned: Tensor, dtype: torch.dtype
) -> Way:
    """The same for a GPU, which would rather compute in vain than start many small kernels.

    Every row goes through the factors of all routes; those that are not its own weigh nothing.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        factors: of all routes, as one.
        owned: which of them each row uses, 0 or 1, (B, R).
        dtype: to work in.
    """
    weight = converted(weight, dtype)
    bias = None if bias is None else converted(bias, dtype)
    a, b, owned = (one.to(dtype) for one in (factors.a, factors.b, owned))
    work = partial(_weighed, weight, bias, Factors(a, b), owned.unsqueeze(1))
    return partial(_in_precision, dtype, work)


def idle_pays(ranks: Sequence[tuple[Route, int]], length: int, weight: Tensor) -> bool:
    """Whether `infer_together` is quicker with routes of these ranks for rows of so many positions."""
    n_out, n_in = weight.shape
    few = length * (len(ranks) - 1) <= MOST_IDLE
    return len(ranks) > 1 and (few or sum(rank for _, rank in ranks) * (n_in + n_out) <= n_in * n_out)


def _in(run: InferenceRun, dtype: torch.dtype) -> InferenceRun:
    """The run with its factors in a precision."""
    one = run.factors
    return run if one is None else replace(run, factors=Factors(one.a.to(dtype), one.b.to(dtype)))


def _in_precision(dtype: torch.dtype, work: Way, x: Tensor) -> Tensor:
    """The work in a precision, whatever autocast says."""
    x, kind = x.to(dtype), x.device.type
    if not torch.is_autocast_enabled(kind):
        return work(x)
    with torch.autocast(kind, enabled=False):
        return work(x)


def _merged_runs(weight: Tensor, bias: Tensor | None, runs: Sequence[InferenceRun], x: Tensor) -> Tensor:
    """Each run by itself, long ones with the sum of the weight and their update."""
    y = x.new_empty(*x.shape[:2], weight.shape[0])
    for run in runs:
        _write(y[run.start : run.stop], x[run.start : run.stop], weight, bias, run)
    return y


def _grouped_runs(weight: Tensor, bias: Tensor | None, bundle: Bundle, groups: Groups, x: Tensor) -> Tensor:
    """The layer, and the updates of all runs in two batched products."""
    y = F.linear(x, weight, bias)
    _add_grouped(y, x, bundle, groups)
    return y


def _added_runs(weight: Tensor, bias: Tensor | None, runs: Sequence[InferenceRun], x: Tensor) -> Tensor:
    """The layer, and the update of each run in turn."""
    y = F.linear(x, weight, bias)
    for run in runs:
        if run.factors is not None:
            _add(y[run.start : run.stop], x[run.start : run.stop], run.factors)
    return y


def _weighed(weight: Tensor, bias: Tensor | None, factors: Factors, owned: Tensor, x: Tensor) -> Tensor:
    """The layer, and the updates of all rows in two products."""
    y = F.linear(x, weight, bias)
    low = F.linear(x, factors.a).mul_(owned)
    y.view(-1, y.shape[2]).addmm_(low.view(-1, low.shape[2]), factors.b.T)
    return y


def _gated_runs(weight: Tensor, bias: Tensor | None, runs: Sequence[InferenceRun], x: Tensor) -> Tensor:
    """The layer, and the update of each run in turn, weighed at each position."""
    y = F.linear(x, weight, bias)
    for run in runs:
        if run.factors is not None:
            part = x[run.start : run.stop]
            low = part @ run.factors.a.T
            weighted = low if run.gate is None else low * run.gate(part).to(low.dtype)
            y[run.start : run.stop] += weighted @ run.factors.b.T
    return y


def _add_grouped(y: Tensor, x: Tensor, bundle: Bundle, groups: Groups) -> None:
    """Add the updates of x (B, L, in) to y (B, L, out), in place."""
    a, b = bundle.a, bundle.b
    if groups.rows is None:
        y.view(len(a), -1, y.shape[2]).baddbmm_(torch.bmm(x.reshape(len(a), -1, x.shape[2]), a), b)
        return
    rows = groups.rows.flatten()
    gathered = x.index_select(0, rows).view(len(a), -1, x.shape[2])
    updates = torch.bmm(torch.bmm(gathered, a), b).view(len(rows), *y.shape[1:])
    y.index_add_(0, rows[groups.places], updates[groups.places])


def _write(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, run: InferenceRun) -> None:
    """Write the outputs of one run into y (b, L, out)."""
    merged = run.factors is not None and _merging_pays(run, x.shape[1], weight)
    used = _merged(weight, run.factors) if merged and run.factors is not None else weight
    flat = x.flatten(0, 1)
    if bias is None:
        torch.mm(flat, used.T, out=y.view(-1, y.shape[2]))
    else:
        torch.addmm(bias, flat, used.T, out=y.view(-1, y.shape[2]))
    if run.factors is not None and not merged:
        _add(y, x, run.factors)


def _add(y: Tensor, x: Tensor, factors: Factors) -> None:
    """Add the update of x (b, L, in) to y (b, L, out), in place."""
    a, b = (factor.to(x.dtype) for factor in (factors.a, factors.b))
    y.view(-1, y.shape[2]).addmm_(x.flatten(0, 1) @ a.T, b.T)


def _merging_pays(run: InferenceRun, length: int, weight: Tensor) -> bool:
    n_out, n_in = weight.shape
    worth = MERGE_WORTH if weight.dtype == torch.float32 else MERGE_WORTH_ROUNDED
    return run.factors is not None and (run.stop - run.start) * length * (n_in + n_out) > worth * n_in * n_out


def _merged(weight: Tensor, factors: Factors) -> Tensor:
    """The sum (out, in), added in float32 whatever the weight is kept in."""
    return torch.addmm(weight.float(), factors.b.float(), factors.a.float()).to(weight.dtype)


def learn(x: Tensor, layers: Sequence[LearningLayer]) -> tuple[Tensor, ...]:
    """Outputs (B, L, out) of each layer for the same x (B, L, in), with gradients for x and for the adapters.

    Layers that share their input, such as query, key and value, read it once for all their A and add up its
    gradient in one place.

    Args:
        x: the batch.
        layers: frozen, all with adapters in the same runs of rows; other rows pass through the layers alone.
    """
    dtype = working_precision(x)
    by_place = list(zip(*(layer.runs for layer in layers), strict=True))
    places = [(runs[0].start, runs[0].stop, [run.scale for run in runs]) for runs in by_place]
    factors = [factor.to(dtype) for runs in by_place for run in runs for factor in (run.a, run.b)]
    with torch.autocast(x.device.type, enabled=False):
        weights = [converted(layer.weight, dtype) for layer in layers]
        biases = [None if layer.bias is None else converted(layer.bias, dtype) for layer in layers]
        learned: Any = _Learned  # torch leaves `apply` without types
        return learned.apply(x.to(dtype), places, len(layers), *weights, *biases, *factors)


class _Learned(torch.autograd.Function):
    """y = W₀x + s·BAx on runs of rows, for several W₀ and the same x; all tensors have one precision."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, places: Sequence[tuple[int, int, Sequence[float]]], n_layers: int, *tensors: Any
    ) -> tuple[Tensor, ...]:
        """Outputs (B, L, out) of each layer.

        `tensors` are the weights of the layers, their biases, and for each run a and b of each layer in turn.
        """
        weights, biases = tensors[:n_layers], tensors[n_layers : 2 * n_layers]
        ys = tuple(F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        shared, kept = [], []
        for (start, stop, scales), factors in zip(places, _by_run(tensors, n_layers), strict=True):
            a = _below_each_other(factors[::2])
            lows = (x[start:stop].flatten(0, 1) @ a.T).split([one.shape[0] for one in factors[::2]], 1)
            for y, low, b, scale in zip(ys, lows, factors[1::2], scales, strict=True):
                y[start:stop].view(-1, y.shape[2]).addmm_(low, b.T, alpha=scale)
            shared.append(a)
            kept += [*factors[1::2], *lows]
        ctx.places, ctx.n_layers = places, n_layers
        ctx.save_for_backward(x, *weights, *shared, *kept)
        return ys

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of the factors."""
        n, n_runs = ctx.n_layers, len(ctx.places)
        x, *saved = ctx.saved_tensors
        weights, shared, kept = saved[:n], saved[n : n + n_runs], saved[n + n_runs :]
        dys = [grad.contiguous() for grad in grads]
        dx = _summed(dys, weights) if ctx.needs_input_grad[0] else None
        found: list[Tensor] = []
        for run, ((start, stop, scales), a) in enumerate(zip(ctx.places, shared, strict=True)):
            bs, lows = kept[2 * n * run : 2 * n * run + n], kept[2 * n * run + n : 2 * n * (run + 1)]
            dy_runs = [dy[start:stop].flatten(0, 1) for dy in dys]
            d_lows = [(dy @ b) * scale for dy, b, scale in zip(dy_runs, bs, scales, strict=True)]
            d_low = d_lows[0] if n == 1 else torch.cat(d_lows, 1)
            if dx is not None:
                dx[start:stop].view(-1, dx.shape[2]).addmm_(d_low, a)
            d_as = _thin(d_low, x[start:stop].flatten(0, 1)).split([low.shape[1] for low in lows])
            d_bs = [(_thin(low, dy) * scale).T for dy, low, scale in zip(dy_runs, lows, scales, strict=True)]
            found += [one for pair in zip(d_as, d_bs, strict=True) for one in pair]
        return dx, None, None, *[None] * (2 * n), *found


def _thin(low: Tensor, x: Tensor) -> Tensor:
    """The product lowᵀx of low (N, R) and x (N, D), R far below D: half as long with lowᵀ laid out anew."""
    return low.T.contiguous() @ x


def _by_run(tensors: Sequence[Any], n_layers: int) -> list[Sequence[Tensor]]:
    """The factors of each run: a and b of each layer in turn."""
    factors = tensors[2 * n_layers :]
    return [factors[first : first + 2 * n_layers] for first in range(0, len(factors), 2 * n_layers)]


def _below_each_other(factors: Sequence[Tensor]) -> Tensor:
    return factors[0] if len(factors) == 1 else torch.cat(list(factors))


def _summed(dys: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The gradient of what several layers share, from those of their outputs."""
    dx = dys[0] @ weights[0]
    for dy, weight in zip(dys[1:], weights[1:], strict=True):
        dx.view(-1, dx.shape[2]).addmm_(dy.flatten(0, 1), weight)
    return dx
