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
from lora_whisper.model.routing import Routing


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
        """Update (B, L, out) of any routing: A and B are gathered per row, for two batched products."""
        stack = self._stack(routing)
        rank = stack.a.shape[1]
        a_rows = _own_and_borrowed(stack.a.to(x.dtype), routing.positions).flatten(1, 2)  # (B, K·R, in)
        b_rows = _own_and_borrowed(stack.b.to(x.dtype), routing.positions)
        b_rows = b_rows.transpose(1, 2).flatten(2)  # (B, out, K·R)
        weights = self._weights(x, routing) * stack.scales[routing.positions].unsqueeze(1)
        low = torch.bmm(self._drop(x, stack.dropouts[routing.positions[:, 0]]), a_rows.transpose(1, 2))
        weighted = low * weights.repeat_interleave(rank, -1).to(low.dtype)
        return torch.bmm(weighted, b_rows.transpose(1, 2))

    def _stack(self, routing: Routing) -> "Stack":
        """The parts of the routing's adapters here; in inference they are stacked once for a batch."""
        if torch.is_grad_enabled():
            return Stack.of(self, routing.slots)
        key = (self, "stack")
        found = routing.memory.get(key)
        if not isinstance(found, Stack):
            found = routing.memory[key] = Stack.of(self, routing.slots)
        return found

    def _weights(self, x: Tensor, routing: Routing) -> Tensor:
        """Weight of each adapter of each row, (B, 1 or L, K), after the gate of the row, if any."""
        weights = routing.weights.unsqueeze(1)
        for owner in (slot for slot in routing.slots if slot in self.gates):
            mine = (routing.adapter_ids[:, 0] == owner)[:, None, None]
            weights = torch.where(mine, self.gates[owner](x, routing.weights.unsqueeze(1)), weights)
        return weights

    def _drop(self, x: Tensor, rates: Tensor) -> Tensor:
        """X (B, L, in) with each row dropped out at its own rate, (B,)."""
        if not self.training or not bool(rates.any()):
            return x
        keep = 1 - rates[:, None, None]
        return x * (torch.rand_like(x) < keep) / keep


@dataclass(frozen=True, eq=False)
class Stack:
    """Several adapters' parts in one layer.

    Attributes:
        a: (U, R, in), filled with zeros up to the largest rank.
        b: (U, out, R).
        scales: (U,); 0 for an adapter without a part here.
        dropouts: (U,).
    """

    a: Tensor
    b: Tensor
    scales: Tensor
    dropouts: Tensor

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
            torch.tensor([part.dropout if part else 0.0 for part in parts], device=device),
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


def _own_and_borrowed(parts: Tensor, positions: Tensor) -> Tensor:
    """The parts (U, …) at these positions (B, K), (B, K, …); only the first of each row can learn."""
    own = parts[positions[:, :1]]
    return own if positions.shape[1] == 1 else torch.cat([own, parts.detach()[positions[:, 1:]]], 1)
