"""The layers of a backbone with the adapters of many languages (Hu et al. 2021, arXiv 2106.09685).

    y = W₀x + Σₖ gₖ · (α/r) · Bₖ Aₖ x

W₀ is frozen. `updates` has the second term for any batch; a linear layer has quicker ways for the batches
that are usual.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_whisper.lora.parts import LowRank
from lora_whisper.lora.products import (
    Bundle,
    Factors,
    InferenceRun,
    LearningLayer,
    LearningRun,
    idle_pays,
    infer,
    infer_together,
    learn,
)
from lora_whisper.lora.updates import Adapted, constant
from lora_whisper.model.layers import KERNEL, Convolution, Linear
from lora_whisper.model.precision import linear, working_precision
from lora_whisper.model.routing import Groups, Route, Routing, Way
from lora_whisper.model.whisper import Whisper


@dataclass(frozen=True, eq=False)
class JointFactors:
    """The factors of several routes in a layer as one.

    Attributes:
        routes: which.
        ranks: of each route that adds something here, in order.
        factors: of all of them.
    """

    routes: frozenset[Route]
    ranks: tuple[tuple[Route, int], ...]
    factors: Factors


class LoRALinear(Adapted, Linear):
    """A frozen linear layer and the adapters that may be routed through it."""

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

    def plain(self, update: Tensor | None = None) -> Linear:
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
        key = (self, x.shape[1], working_precision(x))
        way = routing.ways.get(key)
        if way is None:
            way = routing.ways[key] = self._way(*key[1:], routing)
        return way(x)

    def _learn(self, x: Tensor, routing: Routing) -> Tensor:
        """The same with gradients for x and the rows' own adapters."""
        if not self.takes_part(routing):
            return linear(x, self.weight, self.bias)
        if not self._learns(routing):
            return self._added(x, routing)
        return learn(x, [LearningLayer(self.weight, self.bias, self._runs(routing))])[0]

    def side_by_side(
        self, layers: Sequence[Linear], x: Tensor, routing: Routing | None
    ) -> tuple[Tensor, ...]:
        """Outputs of several layers for the same x, this one the first of them."""
        if routing is None or not torch.is_grad_enabled():
            return super().side_by_side(layers, x, routing)
        alike = [layer for layer in layers if isinstance(layer, LoRALinear) and layer._learns(routing)]
        learning = [LearningLayer(one.weight, one.bias, one._runs(routing)) for one in alike]
        places = {tuple((run.start, run.stop) for run in one.runs) for one in learning}
        if len(learning) < len(layers) or len(places) > 1:
            return super().side_by_side(layers, x, routing)
        return learn(x, learning)

    def _learns(self, routing: Routing) -> bool:
        """Whether rows learn plain adapters here."""
        return self.takes_part(routing) and not self._gated(routing) and self._simple(routing)

    def _way(self, length: int, dtype: torch.dtype, routing: Routing) -> Way:
        """How batches (B, length, in) go through the layer, without gradients.

        It must not hold the routing, which keeps it.
        """
        if not self.takes_part(routing):
            return partial(linear, weight=self.weight, bias=self.bias)
        if self.weight.device.type != "cpu" and (joint := self._together(routing, length)) is not None:
            owned = routing.owned(joint.ranks)
            return infer_together(self.weight, self.bias, joint.factors, owned, dtype)
        runs = self._factors(routing)
        return infer(self.weight, self.bias, runs, length, dtype, lambda: self._grouped(routing))

    def _gated(self, routing: Routing) -> bool:
        return bool(self.gates) and any(slot in self.gates for slot in routing.slots)

    def _added(self, x: Tensor, routing: Routing) -> Tensor:
        """The layer and the update of any routing."""
        return linear(x, self.weight, self.bias) + self.update(x, routing)

    def _simple(self, routing: Routing) -> bool:
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
        return [
            InferenceRun(run.start, run.stop, kept[run.route], self._router(run.route))
            for run in routing.runs
        ]

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

    def _together(self, routing: Routing, length: int) -> JointFactors | None:
        """The factors of all routes of the batch as one, kept for it; None where that does not pay."""
        routes = {run.route for run in routing.runs if run.route}
        if len(routes) < 2 or any(self._by_position(route) for route in routes):
            return None
        kept = routing.memory.get((self, "together"))
        known = kept if isinstance(kept, JointFactors) else None
        if known is not None and routes <= known.routes and idle_pays(known.ranks, length, self.weight):
            return known
        for wanted in (routes | known.routes if known else routes, routes):  # those before may come again
            used = [(route, parts) for route in sorted(wanted) if (parts := self._parts(route))]
            ranks = tuple((route, sum(part.a.shape[0] for part, _ in parts)) for route, parts in used)
            if idle_pays(ranks, length, self.weight):
                factors = self._joined([one for _, parts in used for one in parts])
                made = JointFactors(frozenset(wanted), ranks, factors)
                routing.memory[(self, "together")] = made
                return made
        return None

    def _joined(self, parts: Sequence[tuple[LowRank, float]]) -> Factors:
        """The parts with their weights, one behind the other."""
        several = len(parts) > 1
        a: Tensor = torch.cat([part.a for part, _ in parts]) if several else parts[0][0].a
        b: Tensor = torch.cat([part.b for part, _ in parts], 1) if several else parts[0][0].b
        scales = [part.scale * weight for part, weight in parts]
        if len(set(scales)) > 1:
            ranks = [part.a.shape[0] for part, _ in parts]
            of_columns = (scale for scale, rank in zip(scales, ranks, strict=True) for _ in range(rank))
            b = b * constant(tuple(of_columns), torch.float32, b.device)
        elif scales[0] != 1:
            b = b * scales[0]
        return Factors(a.to(self.weight.dtype), b.to(self.weight.dtype))

    def _of_route(self, route: Route) -> Factors | None:
        """A and B of all adapters of a route, scaled, side by side; None if none has a part here."""
        parts = self._parts(route)
        return self._joined(parts) if parts else None

    def _parts(self, route: Route) -> list[tuple[LowRank, float]]:
        """What the adapters of a route have here, and its weights where they do not depend on the inputs."""
        return [
            (self.adapters[slot], weight)
            for (slot, _), weight in zip(route, self._constant_weights(route), strict=True)
            if slot in self.adapters
        ]

    def _constant_weights(self, route: Route) -> list[float]:
        """Weight of each adapter of a route here, as far as it does not depend on the inputs."""
        weights = [weight for _, weight in route]
        gate = self.gates.get(route[0][0]) if route else None
        if gate is None:
            return weights
        if self._by_position(route):
            return [1.0] * len(weights)
        return [weight * factor for weight, factor in zip(weights, gate.weight.tolist(), strict=False)]

    def _by_position(self, route: Route) -> bool:
        """Whether the weights of a route depend on the inputs here."""
        gate = self.gates.get(route[0][0]) if route else None
        return gate is not None and gate.by_position

    def _router(self, route: Route) -> Callable[[Tensor], Tensor] | None:
        """What weighs the adapters of a route at each position; None if that does not depend on it."""
        if not self._by_position(route):
            return None
        gate = self.gates[route[0][0]]
        ranks = [len(self.adapters[slot].a) if slot in self.adapters else 0 for slot, _ in route]
        device = gate.weight.device
        owners = torch.arange(len(route), device=device).repeat_interleave(torch.tensor(ranks, device=device))
        weights = torch.tensor([[[weight for _, weight in route]]], device=device)
        return lambda x: gate(x, weights).index_select(-1, owners)


class LoRAConvolution(Adapted, Convolution):
    """A frozen convolution and the adapters that may be routed through it.

    A is a convolution of the same kernel with R outputs, as in PEFT, held as a matrix (R, in · kernel); B is
    pointwise. There are two such layers in a model, so one way serves all batches.
    """

    @classmethod
    def from_convolution(cls, convolution: Convolution) -> "LoRAConvolution":
        """The same layer, same parameters, ready for adapters."""
        layer = convolution.alike(cls)
        layer.in_features = convolution.in_channels * KERNEL
        layer.out_features = convolution.out_channels
        layer.adapters, layer.gates = {}, {}
        return layer

    def plain(self, update: Tensor | None = None) -> Convolution:
        """A plain layer with an update (out, in · kernel) merged into the weight; without, the original."""
        convolution = self.alike(Convolution)
        if update is not None:
            merged = self.weight.float() + update.view_as(self.weight)
            convolution.weight = nn.Parameter(merged.to(self.weight.dtype), requires_grad=False)
        return convolution

    def forward(self, x: Tensor, routing: Routing | None = None) -> Tensor:
        """Outputs (B, out, T') of x (B, in, T), each row through its own adapters."""
        y = super().forward(x)
        if routing is None or not self.takes_part(routing):
            return y
        return y + self.update(self._patches(x), routing).transpose(1, 2)

    def _patches(self, x: Tensor) -> Tensor:
        """What each output is made of, (B, T', in · kernel)."""
        padded = F.pad(x, (KERNEL // 2, KERNEL // 2))
        return padded.unfold(2, KERNEL, int(self.stride[0])).transpose(1, 2).flatten(2)


def adaptable(model: Whisper) -> dict[str, LoRALinear | LoRAConvolution]:
    """Every layer that can carry an adapter by path, replaced in the model by one that takes them."""
    layers: dict[str, LoRALinear | LoRAConvolution] = {}
    for path, layer in list(model.named_modules()):
        if isinstance(layer, LoRALinear | LoRAConvolution):
            layers[path] = layer
        elif isinstance(layer, Linear):
            layers[path] = LoRALinear.from_linear(layer)
        elif isinstance(layer, Convolution):
            layers[path] = LoRAConvolution.from_convolution(layer)
        else:
            continue
        model.set_submodule(path, layers[path])
    return layers
