"""The low-rank adapter of a linear layer (Hu et al. 2021, arXiv 2106.09685), for many languages at once.

    y = W₀x + Σₖ gₖ · (α/r) · Bₖ Aₖ x

W₀ is frozen. Each adapter has its own A (R, in) and B (out, R), held as separate parameters, so that an
optimiser step for one language cannot touch another one.

A row may use several adapters: its own and experts that it borrows. Their weights gₖ come with the routing; a
`Gate` of the row's own adapter may change them in its layer, for the whole layer or for each position.
Experts are borrowed as they are: no gradient reaches them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_whisper.errors import UsageError
from lora_whisper.lora.products import Bundle, Factors, InferenceRun, LearningRun, infer, learn
from lora_whisper.model.precision import linear, working_precision
from lora_whisper.model.routing import Groups, Route, Routing, Way
from lora_whisper.model.whisper import Linear, Whisper

MODULES = ("q", "k", "v", "out", "fc1", "fc2")
"""Linear layers of a block that can carry an adapter: the paper's q, k, v and fc; its 13 M need `out` too."""


MOST_IDLE = 64
"""Products with adapters of other rows that a GPU takes into account, per row, to spare small kernels."""


@dataclass(frozen=True)
class LoRAConfig:
    """Shape of an adapter.

    Attributes:
        rank: R; 32 in the paper.
        alpha: the update is scaled by alpha / rank.
        modules: which of `MODULES` carry it, in encoder and decoder.
        dropout: of the input of A, in training.
    """

    rank: int = 32
    alpha: float = 32.0
    modules: tuple[str, ...] = MODULES
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"LoRA rank is {self.rank}; it must be at least 1")
        unknown = set(self.modules) - set(MODULES)
        if unknown or not self.modules:
            raise UsageError(f"LoRA modules {sorted(unknown)}: choose from {', '.join(MODULES)}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"LoRA dropout is {self.dropout}; it must lie in [0, 1)")

    @property
    def scale(self) -> float:
        """α/r."""
        return self.alpha / self.rank


@dataclass(eq=False)
class LowRank:
    """One adapter's part in one layer.

    Attributes:
        a: (R, in).
        b: (out, R); zero at the start, so that a fresh adapter is the backbone, bit for bit.
        scale: α/r.
        dropout: of the input of A, in training.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    dropout: float = 0.0

    @classmethod
    def fresh(cls, linear: Linear, config: LoRAConfig, generator: torch.Generator) -> "LowRank":
        """A untrained: A as `nn.Linear` starts (uniform, ±1/√in), B zero."""
        bound = linear.in_features**-0.5
        a = torch.empty(config.rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        b = torch.zeros(linear.out_features, config.rank)
        device = linear.weight.device
        return cls(nn.Parameter(a.to(device)), nn.Parameter(b.to(device)), config.scale, config.dropout)


@dataclass(eq=False)
class Gate:
    """The learned weights of a mixture's adapters in one layer.

    Attributes:
        weight: (K,), factors on the routing's weights; or (K, in), a router: the softmax over the adapters
            of weight · x + log g shares out the sum of the routing's weights g at each position.
    """

    weight: nn.Parameter

    def __call__(self, x: Tensor, gates: Tensor) -> Tensor:
        """Weights (B, 1 or L, K) for x (B, L, in), from those of the routing, (B, 1, K)."""
        missing = gates.shape[-1] - self.weight.shape[0]
        if self.weight.dim() == 1:
            return gates * F.pad(self.weight, (0, missing))
        scores = F.linear(x, F.pad(self.weight, (0, 0, 0, missing)).to(x.dtype)).float() + gates.log()
        return gates.sum(-1, keepdim=True) * scores.softmax(-1)


class LoRALinear(Linear):
    """A frozen linear layer and the adapters that may be routed through it.

    The adapters are plain references, not sub-modules: the model's `state_dict()` stays that of the backbone.

    Attributes:
        adapters: slot of the bank → this layer's part of the adapter. A slot that is missing here (an adapter
            that leaves this layer alone) contributes nothing.
        gates: slot of a mixture's own adapter → its learned weights here.
    """

    adapters: dict[int, LowRank]
    gates: dict[int, Gate]

    @classmethod
    def from_linear(cls, linear: Linear) -> "LoRALinear":
        """The same layer, same parameters, ready for adapters."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.in_features, layer.out_features = linear.in_features, linear.out_features
        layer.weight, layer.bias = linear.weight, linear.bias
        layer.training = linear.training  # or dropout would act in a model that is in eval mode
        layer.adapters, layer.gates = {}, {}
        return layer

    def to_linear(self, update: Tensor | None = None) -> Linear:
        """A plain layer with an update (out, in) merged into the weight in float32; without, the original."""
        linear = Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        linear.training = self.training
        if update is not None:
            merged = self.weight.float() + update
            linear.weight = nn.Parameter(merged.to(self.weight.dtype), requires_grad=False)
        return linear

    def forward(self, x: Tensor, routing: Routing | None = None) -> Tensor:
        """Outputs (B, L, out) of x (B, L, in), each row through its own adapters."""
        if routing is None:
            return linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            return self._learn(x, routing)
        if self._gated(routing):
            return self._added(x, routing)
        if x.is_cuda and x.shape[1] * (len(routing.slots) - 1) <= MOST_IDLE and self._takes_part(routing):
            return linear(x, self.weight, self.bias) + self._through_all(x, routing, self._stack(routing))
        key = (self, x.shape[1], working_precision(x))
        way = routing.ways.get(key)
        if way is None:
            way = routing.ways[key] = self._way(*key[1:], routing)
        return way(x)

    def _learn(self, x: Tensor, routing: Routing) -> Tensor:
        """The same with gradients for x and the rows' own adapters."""
        if not self._takes_part(routing):
            return linear(x, self.weight, self.bias)
        if self._gated(routing) or not self._plain(routing):
            return self._added(x, routing)
        return learn(x, self.weight, self.bias, self._runs(routing))

    def _way(self, length: int, dtype: torch.dtype, routing: Routing) -> Way:
        """How batches (B, length, in) go through the layer, without gradients.

        It must not hold the routing, which keeps it.
        """
        if not self._takes_part(routing):
            return partial(linear, weight=self.weight, bias=self.bias)
        runs = self._factors(routing)
        return infer(self.weight, self.bias, runs, length, dtype, lambda: self._grouped(routing))

    def _takes_part(self, routing: Routing) -> bool:
        return any(slot in self.adapters for slot in routing.slots)

    def _gated(self, routing: Routing) -> bool:
        return bool(self.gates) and any(slot in self.gates for slot in routing.slots)

    def _added(self, x: Tensor, routing: Routing) -> Tensor:
        """The layer and the update of any routing."""
        return linear(x, self.weight, self.bias) + self._mixed(x, routing)

    def _plain(self, routing: Routing) -> bool:
        """Whether each row learns at most one adapter here, and neither dropout nor the layer itself acts."""
        parts = [self.adapters[slot] for slot in routing.slots if slot in self.adapters]
        dropped = self.training and any(part.dropout for part in parts)
        return routing.adapter_ids.shape[1] == 1 and not dropped and not self.weight.requires_grad

    def _runs(self, routing: Routing) -> list[LearningRun]:
        """The runs of rows that learn an adapter here."""
        return [
            LearningRun(run.start, run.stop, part.a, part.b, part.scale * weight)
            for run in routing.runs
            for slot, weight in run.route
            if (part := self.adapters.get(slot)) is not None
        ]

    def _factors(self, routing: Routing) -> list[InferenceRun]:
        """All runs with what their routes add to the layer; the factors are kept for the batch."""
        kept: dict[Route, Factors | None] = routing.memory.setdefault(self, {})  # type: ignore[assignment]
        for run in routing.runs:
            if run.route not in kept:
                kept[run.route] = self._of_route(run.route)
        return [InferenceRun(run.start, run.stop, kept[run.route]) for run in routing.runs]

    def _grouped(self, routing: Routing) -> tuple[Bundle, Groups] | None:
        """The factors of all routes of the batch, which are kept for it, and its rows as groups of them."""
        factors: dict[Route, Factors | None] = routing.memory[self]  # type: ignore[assignment]
        order = tuple(route for route, one in factors.items() if one is not None)
        groups = routing.groups(order)
        if groups is None:
            return None
        key = (self, order)
        found = routing.memory.get(key)
        if not isinstance(found, Bundle):
            found = routing.memory[key] = Bundle.of([one for one in factors.values() if one is not None])
        return found, groups

    def _of_route(self, route: Route) -> "Factors | None":
        """A and B of all adapters of a route, scaled, side by side; None if none has a part here."""
        parts = [(self.adapters[slot], weight) for slot, weight in route if slot in self.adapters]
        if not parts:
            return None
        dtype = self.weight.dtype
        a = torch.cat([part.a for part, _ in parts]) if len(parts) > 1 else parts[0][0].a
        b = torch.cat([part.b * (part.scale * weight) for part, weight in parts], 1)
        return Factors(a.to(dtype), b.to(dtype))

    def _mixed(self, x: Tensor, routing: Routing) -> Tensor:
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

    def _through_all(self, x: Tensor, routing: Routing, stack: "Stack") -> Tensor:
        """Update (B, L, out) by two plain products with the A and the B of all adapters at once.

        Every row goes through every adapter, and those of others weigh nothing: few large kernels instead of
        many small ones, which a GPU wants.
        """
        rank = stack.a.shape[1]
        low = F.linear(x, stack.a_flat.to(x.dtype))
        weights = routing.by_slot.unsqueeze(1) * stack.scales
        weighted = low * weights.repeat_interleave(rank, -1).to(low.dtype)
        return F.linear(weighted, stack.b_flat.to(x.dtype))

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
    def of(cls, layer: LoRALinear, slots: Sequence[int]) -> "Stack":
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


def _padded(layer: LoRALinear, part: LowRank | None, rank: int) -> tuple[Tensor, Tensor]:
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


def adaptable(model: Whisper) -> dict[str, LoRALinear]:
    """Every linear layer of the model by path, replaced in place by one that takes adapters."""
    layers = {}
    for path, layer in list(model.named_modules()):
        if isinstance(layer, Linear):
            layers[path] = layer if isinstance(layer, LoRALinear) else LoRALinear.from_linear(layer)
            model.set_submodule(path, layers[path])
    return layers
