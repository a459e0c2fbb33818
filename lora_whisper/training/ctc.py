"""Connectionist temporal classification (Graves et al. 2006) whose kernels depend on shapes alone.

PyTorch's loss waits for the lengths of the rows to come back from a GPU, so that a step with it cannot be
recorded. Here forward and backward variables come from one recursion, over rows and reversed rows.
"""

from typing import Any

import torch
from torch import Tensor

NEVER = float("-inf")


def ctc_loss(
    log_probs: Tensor, targets: Tensor, n_positions: Tensor, n_targets: Tensor, blank: int
) -> Tensor:
    """Loss of each row in nats, (B,): 0 for a row too short for its targets, as with `zero_infinity`.

    Args:
        log_probs: of each symbol at each position, float32 (B, T, V).
        targets: symbols, int64 (B, L), any after the last one.
        n_positions: real positions of each row, int64 (B,).
        n_targets: real targets of each row, int64 (B,).
        blank: the symbol between.
    """
    found: Any = _CTCLoss  # torch leaves `apply` without types
    return found.apply(log_probs, targets, n_positions, n_targets, blank)


class _CTCLoss(torch.autograd.Function):
    """Loss and gradient at once."""

    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, targets: Tensor, n_positions: Tensor, n_targets: Tensor, blank: int
    ) -> Tensor:
        """The losses (B,)."""
        n_rows, n_steps, _ = log_probs.shape
        symbols = torch.full((n_rows, 2 * targets.shape[1] + 1), blank, device=targets.device)
        symbols[:, 1::2] = targets
        last = 2 * n_targets[:, None] - torch.arange(symbols.shape[1], device=targets.device)
        symbols = symbols.where(last >= 0, blank)
        times = n_positions[:, None] - 1 - torch.arange(n_steps, device=targets.device)
        heard = log_probs.gather(2, symbols[:, None].expand(-1, n_steps, -1))
        heard = heard.masked_fill(last[:, None] < 0, NEVER)

        def reversed_(values: Tensor) -> Tensor:
            """Values (B, T, S) of each row from its last position and state back to its first."""
            by_time = values.gather(1, times.clamp(min=0)[:, :, None].expand_as(values))
            return by_time.gather(2, last.clamp(min=0)[:, None].expand_as(values))

        backwards = symbols.gather(1, last.clamp(min=0)).where(last >= 0, blank)
        there_and_back = torch.cat([heard, reversed_(heard).masked_fill(last[:, None] < 0, NEVER)])
        sums = _path_sums(there_and_back.transpose(0, 1), torch.cat([symbols, backwards]), blank)
        forward, backward = sums.transpose(0, 1).chunk(2)

        row, end = torch.arange(n_rows, device=targets.device), n_positions - 1
        in_blank = forward[row, end, 2 * n_targets]
        in_symbol = forward[row, end, (2 * n_targets - 1).clamp(min=0)].where(n_targets > 0, NEVER)
        total = torch.logaddexp(in_blank, in_symbol)
        possible = total > NEVER
        shares = (forward + reversed_(backward) - heard - total[:, None, None]).exp()
        real = (times >= 0)[:, :, None] & (last >= 0)[:, None] & (heard > NEVER) & possible[:, None, None]
        grad = torch.zeros_like(log_probs)
        grad.scatter_add_(2, symbols[:, None].expand_as(shares), -shares.where(real, 0.0))
        ctx.save_for_backward(grad)
        return -total.where(possible, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the log-probabilities."""
        (grad,) = ctx.saved_tensors
        return grad * grads[0][:, None, None], None, None, None, None


def _path_sums(heard: Tensor, symbols: Tensor, blank: int) -> Tensor:
    """Log of the summed probability of all ways to each state at each step, (T, B, S).

    Args:
        heard: log-probability of each state at each step, (T, B, S).
        symbols: of each state, (B, S): between two different ones the blank may be left out.
        blank: the symbol between.
    """
    n_steps, n_rows, n_states = heard.shape
    skip = torch.full((n_rows, n_states), NEVER, device=heard.device)
    skip[:, 2:].masked_fill_((symbols[:, 2:] != blank) & (symbols[:, 2:] != symbols[:, :-2]), 0.0)
    sums = torch.full((n_steps, n_rows, n_states + 2), NEVER, device=heard.device)  # two states before all
    sums[0, :, 2:4] = heard[0, :, :2]
    for before, now, emitted in zip(sums[:-1], sums[1:], heard[1:], strict=True):
        stayed_or_next = torch.logaddexp(before[:, 2:], before[:, 1:-1])
        torch.add(torch.logaddexp(stayed_or_next, before[:, :-2] + skip), emitted, out=now[:, 2:])
    return sums[:, :, 2:]
