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
from lora_whisper.model.routing import Groups, Way


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
    """Rows `start` to `stop` and their update; None for the layer alone."""

    start: int
    stop: int
    factors: Factors | None


@dataclass(frozen=True, eq=False)
class LearningRun:
    """Rows `start` to `stop`, which learn `a` (R, in) and `b` (out, R)."""

    start: int
    stop: int
    a: nn.Parameter
    b: nn.Parameter
    scale: float


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
    if any(_merging_pays(run, length, weight) for run in runs):
        work = partial(_merged_runs, weight, bias, runs)
    elif len(runs) > 1 and (several := grouped()) is not None:
        bundle, groups = several
        work = partial(_grouped_runs, weight, bias, bundle.to(dtype), groups)
    else:
        work = partial(_added_runs, weight, bias, [_in(run, dtype) for run in runs])
    return partial(_in_precision, dtype, work)


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
    return run.factors is not None and (run.stop - run.start) * length * (n_in + n_out) > n_in * n_out


def _merged(weight: Tensor, factors: Factors) -> Tensor:
    """The sum (out, in), added in float32 whatever the weight is kept in."""
    return torch.addmm(weight.float(), factors.b.float(), factors.a.float()).to(weight.dtype)


def learn(x: Tensor, weight: Tensor, bias: Tensor | None, runs: Sequence[LearningRun]) -> Tensor:
    """Outputs (B, L, out) of x (B, L, in), with gradients for x and for the adapters of the runs.

    Args:
        x: the batch.
        weight: (out, in), frozen.
        bias: (out,), frozen, or None.
        runs: rows that learn; the others pass through the layer alone.
    """
    factors = [factor for run in runs for factor in (run.a, run.b)]
    places = [(run.start, run.stop, run.scale) for run in runs]
    dtype = working_precision(x)
    with torch.autocast(x.device.type, enabled=False):
        used = converted(weight, dtype), None if bias is None else converted(bias, dtype)
        learned: Any = _Learned  # torch leaves `apply` without types
        return learned.apply(x.to(dtype), *used, places, *(factor.to(dtype) for factor in factors))


class _Learned(torch.autograd.Function):
    """y = W₀x + s·BAx on runs of rows; all tensors have one precision."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        places: Sequence[tuple[int, int, float]],
        *factors: Tensor,
    ) -> Tensor:
        """Outputs (B, L, out); `factors` are a and b of each run in turn."""
        y = F.linear(x, weight, bias)
        lows = []
        for (start, stop, scale), a, b in zip(places, factors[::2], factors[1::2], strict=True):
            lows.append(x[start:stop].flatten(0, 1) @ a.T)
            y[start:stop].view(-1, y.shape[2]).addmm_(lows[-1], b.T, alpha=scale)
        ctx.places = places
        ctx.save_for_backward(x, weight, *factors, *lows)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of the factors."""
        x, weight, *others = ctx.saved_tensors
        n_factors = 2 * len(ctx.places)
        factors, lows = others[:n_factors], others[n_factors:]
        dy = grads[0].contiguous()
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        found: list[Tensor] = []
        for (start, stop, scale), a, b, low in zip(
            ctx.places, factors[::2], factors[1::2], lows, strict=True
        ):
            dy_run = dy[start:stop].flatten(0, 1)
            d_low = (dy_run @ b) * scale
            if dx is not None:
                dx[start:stop].view(-1, dx.shape[2]).addmm_(d_low, a)
            found += [d_low.T @ x[start:stop].flatten(0, 1), (dy_run.T @ low) * scale]
        return dx, None, None, None, *found
