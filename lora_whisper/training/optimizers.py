"""Optimisers by name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_whisper.errors import UsageError


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
            torch.optim.Muon(
                matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
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
