"""Which adapters each row of a batch uses: the one value that travels with every forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NO_ADAPTER = -1
"""Slot of a row that uses the bare backbone inside a mixed batch."""


Route = tuple[tuple[int, float], ...]
"""What one row uses: slots of the adapter bank with their weights. The first is the row's own adapter, the
others, if any, are experts that it borrows; a row without any uses the bare backbone."""


@dataclass(frozen=True, eq=False)
class Routing:
    """Row b of a batch uses adapters `adapter_ids[b]`, weighted by `gates[b]`.

    `None` in place of a Routing means the frozen backbone. K = 1 is one language per row, with different
    languages in one batch; K = 2 is a LoRA mixture of experts.

    Attributes:
        adapter_ids: slots of the adapter bank, int64 (B, K); `NO_ADAPTER` contributes nothing.
        gates: weights, float (B, K).
    """

    adapter_ids: Tensor
    gates: Tensor

    @classmethod
    def one_per_row(cls, slots: Sequence[int], device: torch.device | str = "cpu") -> "Routing":
        """Routing of each row to a single adapter with weight one."""
        ids = torch.tensor(slots, dtype=torch.int64, device=device).unsqueeze(1)
        return cls(ids, (ids != NO_ADAPTER).to(torch.float32))

    @classmethod
    def of(cls, routes: Sequence[Route], device: torch.device | str = "cpu") -> "Routing | None":
        """Routing of each row by its route; None when no row uses an adapter."""
        width = max(map(len, routes), default=0)
        if not width:
            return None
        full = [(*route, *[(NO_ADAPTER, 0.0)] * (width - len(route))) for route in routes]
        ids = torch.tensor([[slot for slot, _ in route] for route in full], dtype=torch.int64, device=device)
        gates = torch.tensor([[gate for _, gate in route] for route in full], device=device)
        return cls(ids, gates)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Distinct adapters in use, ascending; without `NO_ADAPTER`."""
        return tuple(slot for slot in self.adapter_ids.unique().tolist() if slot != NO_ADAPTER)

    @cached_property
    def only_slot(self) -> int | None:
        """The adapter that every row uses alone with weight one, if there is such an adapter."""
        alone = self.adapter_ids.shape[1] == 1 and len(self.slots) == 1
        return self.slots[0] if alone and bool((self.weights == 1).all()) else None

    @cached_property
    def positions(self) -> Tensor:
        """Index into `slots` of each entry of `adapter_ids`, int64 (B, K); `NO_ADAPTER` maps to 0."""
        slots = torch.tensor(self.slots, dtype=torch.int64, device=self.adapter_ids.device)
        return torch.searchsorted(slots, self.adapter_ids)  # NO_ADAPTER is below every slot

    @cached_property
    def weights(self) -> Tensor:
        """Gates with those of `NO_ADAPTER` set to zero, float (B, K)."""
        return self.gates * (self.adapter_ids != NO_ADAPTER)

    def repeat_interleave(self, repeats: int) -> "Routing":
        """Routing for beams: each row `repeats` times in succession."""
        return Routing(
            self.adapter_ids.repeat_interleave(repeats, 0), self.gates.repeat_interleave(repeats, 0)
        )

    def index_select(self, rows: Tensor) -> "Routing":
        """Routing of the rows that stay, int64 (B',): the same index as for the cache."""
        return Routing(self.adapter_ids.index_select(0, rows), self.gates.index_select(0, rows))
