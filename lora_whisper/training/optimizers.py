"""Optimisers by name."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lora_whisper.errors import UsageError
from lora_whisper.model.precision import native_bf16

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Of Muon: its author's choices, and those of `torch.optim.Muon`."""


def new_optimizer(
    name: str, parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices of the blocks and AdamW for all else."""
    if name == "adamw":
        return torch.optim.AdamW(parameters.values(), learning_rate, weight_decay=weight_decay, fused=True)
    matrices = [p for key, p in parameters.items() if ".blocks." in key and p.dim() == 2]
    chosen = set(map(id, matrices))
    others = [p for p in parameters.values() if id(p) not in chosen]
    return MuonAdamW(matrices, others, learning_rate, weight_decay)


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan 2024) with the step size of AdamW (Liu et al. 2025, arXiv 2502.16982), and AdamW.

    Args:
        matrices: hidden weights, (out, in): updates are made orthogonal.
        others: embeddings, convolutions, norms and biases.
        learning_rate: of both.
        weight_decay: of both.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self._parts: list[torch.optim.Optimizer] = []
        super().__init__([{"params": matrices}, {"params": others}], {"lr": learning_rate})
        self._parts = [
            _Muon(matrices, learning_rate, weight_decay),
            torch.optim.AdamW(others, lr=learning_rate, weight_decay=weight_decay, fused=True),
        ]
        for part in self._parts:
            part.state = self.state  # one state to save and restore

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update all parameters.

        Raises:
            UsageError: there is a closure, which Muon cannot use.
        """
        if closure is not None:
            raise UsageError("Muon takes no closure; compute the gradients before the step")
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups[0]["lr"] = group["lr"]
            part.step()
        return None


class _Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with adjust_lr_fn="match_rms_adamw" (tested), all matrices of a shape at once.

    One by one, products of a small model's matrices are too small to keep a processor busy.
    """

    def __init__(self, matrices: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})
        self._by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            self._by_shape.setdefault(matrix.shape, []).append(matrix)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update the matrices that have a gradient."""
        (group,) = self.param_groups
        for shape, matrices in self._by_shape.items():
            learning: list[Tensor] = [one for one in matrices if one.grad is not None]
            if not learning:
                continue
            updates = orthogonal(torch.stack(self._momenta(learning)))
            torch._foreach_mul_(learning, 1 - group["lr"] * group["weight_decay"])
            rate = group["lr"] * 0.2 * max(shape) ** 0.5
            torch._foreach_add_(learning, updates.float().unbind(), alpha=-rate)

    def _momenta(self, matrices: list[Tensor]) -> tuple[Tensor, ...]:
        """The gradient of each, moved towards the running mean of all so far (Nesterov)."""
        grads = [cast("Tensor", one.grad) for one in matrices]
        for matrix, grad in zip(matrices, grads, strict=True):
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(grad)
        means = [self.state[one]["momentum_buffer"] for one in matrices]
        torch._foreach_lerp_(means, grads, 1 - MOMENTUM)
        return torch._foreach_lerp(grads, means, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, out, in) with singular values near 1, by five Newton-Schulz steps (Jordan 2024).

    In bf16, as its author does it, where the hardware has that.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16() if native_bf16(matrices.device) else matrices
    x = x.mT.contiguous() if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
