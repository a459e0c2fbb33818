"""What a layer with adapters adds for any batch: rows of many adapters, of mixtures, with learned gates.

    Σₖ gₖ · (α/r) · Bₖ Aₖ x

Each adapter has its own A (R, in) and B (out, R), held as separate parameters, so that an optimiser step for
one language cannot touch another one.

A row may use several adapters: its own and experts that it borrows. Their weights gₖ come with the routing; a
`Gate` of the row's own adapter may change them in its layer, for the whole layer or for each position.
Experts are borrowed as they are: no gradient reaches them.
"""

from functools import lru_cache

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
        columns = [(place, part.scale) for place, part in used for _ in range(part.a.shape[0])]
        places = constant(tuple(place for place, _ in columns), torch.int64, x.device)
        scales = constant(tuple(scale for _, scale in columns), torch.float32, x.device)
        weights = self._weights(x, route).index_select(-1, places) * scales
        low = self._drop(x, parts[0].dropout if parts[0] else 0.0) @ a.to(x.dtype).T
        return (low * weights.to(low.dtype)) @ b.to(x.dtype).T

    def _weights(self, x: Tensor, route: Route) -> Tensor:
        """Weight of each adapter of a route, (b or 1, 1 or L, K), after the gate of the first one, if any."""
        weights = constant(tuple(weight for _, weight in route), torch.float32, x.device)[None, None]
        gate = self.gates.get(route[0][0])
        return weights if gate is None else gate(x, weights)

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        """X with dropout, in training."""
        return F.dropout(x, rate) if self.training and rate else x


@lru_cache(maxsize=1 << 14)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers as a tensor (n,) that stays on the device: to bring them there again would make it wait."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
