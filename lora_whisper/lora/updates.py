"""What a layer with adapters adds for any batch: rows of many adapters, of mixtures, with learned gates.

    Σₖ gₖ · (α/r) · Bₖ Aₖ x

Each adapter has its own A (R, in) and B (out, R), held as separate parameters, so that an optimiser step for
one language cannot touch another one.

A row may use several adapters: its own and experts that it borrows. Their weights gₖ come with the routing; a
`Gate` of the row's own adapter may change them in its layer, for the whole layer or for each position.
Experts are borrowed as they are: no gradient reaches them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_whisper.lora.parts import Gate, LowRank
from lora_whisper.model.routing import Route, Routing


class Adapted(nn.Module):
    """A frozen layer and the adapters that may be routed through it.

    The adapters are plain references, not sub-modules: the model's `state_dict()` stays that of the backbone.

    Attributes:
        weight: frozen.
        in_features: length of what A is multiplied with.
        out_features: length of what B makes.
        adapters: slot of the bank → this layer's part of the adapter. A slot that is missing here (an adapter
            that leaves this layer alone) contributes nothing.
        gates: slot of a mixture's own adapter → its learned weights here.
    """

    weight: Tensor
    in_features: int
    out_features: int
    adapters: dict[int, LowRank]
    gates: dict[int, Gate]

    def takes_part(self, routing: Routing) -> bool:
        """Whether an adapter of the batch has a part here."""
        return any(slot in self.adapters for slot in routing.slots)

    def update(self, x: Tensor, routing: Routing) -> Tensor:
        """Update (B, L, out) of x (B, L, in) for any routing, one run of rows after the other."""
        return torch.cat([self._of_run(x[run.start : run.stop], run.route) for run in routing.runs])

    def _of_run(self, x: Tensor, route: Route) -> Tensor:
        """Update (b, L, out) of rows x (b, L, in) that all use the same adapters; the first one may learn."""
        parts = [self.adapters.get(slot) for slot, _ in route]
        used = [(place, part) for place, part in enumerate(parts) if part is not None]
        if not used:
            return x.new_zeros(*x.shape[:2], self.out_features)
        a = torch.cat([part.a if place == 0 else part.a.detach() for place, part in used])
        b = torch.cat([part.b if place == 0 else part.b.detach() for place, part in used], 1)
        ranks = torch.tensor([part.a.shape[0] for _, part in used], device=x.device)
        scales = torch.tensor([part.scale for _, part in used], device=x.device)
        weights = self._weights(x, route)[..., [place for place, _ in used]] * scales
        low = self._drop(x, parts[0].dropout if parts[0] else 0.0) @ a.to(x.dtype).T
        return (low * weights.repeat_interleave(ranks, -1).to(low.dtype)) @ b.to(x.dtype).T

    def _weights(self, x: Tensor, route: Route) -> Tensor:
        """Weight of each adapter of a route, (b or 1, 1 or L, K), after the gate of the first one, if any."""
        weights = torch.tensor([[[weight for _, weight in route]]], device=x.device)
        gate = self.gates.get(route[0][0])
        return weights if gate is None else gate(x, weights)

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        """X with dropout, in training."""
        return F.dropout(x, rate) if self.training and rate else x

    def _stack(self, routing: Routing) -> "Stack":
        """The parts of the routing's adapters here; in inference they are stacked once for a batch."""
        if torch.is_grad_enabled():
            return Stack.of(self, routing.slots)
        key = (self, "stack")
        found = routing.memory.get(key)
        if not isinstance(found, Stack):
            found = routing.memory[key] = Stack.of(self, routing.slots)
        return found


@dataclass(frozen=True, eq=False)
class Stack:
    """Several adapters' parts in one layer.

    Attributes:
        a: (U, R, in), filled with zeros up to the largest rank.
        b: (U, out, R).
        scales: (U,); 0 for an adapter without a part here.
    """

    a: Tensor
    b: Tensor
    scales: Tensor

    @classmethod
    def of(cls, layer: Adapted, slots: Sequence[int]) -> "Stack":
        """The parts of these adapters, at least one of which has a part in the layer."""
        parts = [layer.adapters.get(slot) for slot in slots]
        rank = max(part.a.shape[0] for part in parts if part is not None)
        pairs = [_padded(layer, part, rank) for part in parts]
        device = layer.weight.device
        return cls(
            torch.stack([a for a, _ in pairs]),
            torch.stack([b for _, b in pairs]),
            torch.tensor([part.scale if part else 0.0 for part in parts], device=device),
        )

    @cached_property
    def a_flat(self) -> Tensor:
        """All A below each other, (U·R, in)."""
        return self.a.flatten(0, 1)

    @cached_property
    def b_flat(self) -> Tensor:
        """All B beside each other, (out, U·R)."""
        return self.b.transpose(0, 1).flatten(1).contiguous()


def _padded(layer: Adapted, part: LowRank | None, rank: int) -> tuple[Tensor, Tensor]:
    """A (R, in) and B (out, R) of a part, filled with zeros up to `rank`."""
    if part is None:
        zeros = layer.weight.new_zeros
        return zeros(rank, layer.in_features), zeros(layer.out_features, rank)
    missing = rank - part.a.shape[0]
    return F.pad(part.a, (0, 0, 0, missing)), F.pad(part.b, (0, missing))
