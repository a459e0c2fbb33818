"""Ways to send each row through its own adapter, layer by layer, beside the one that ours chooses.

All give the same numbers. Which is fastest depends on the positions of a row and on how many rows share an
adapter; so ours chooses anew for each layer and batch (`lora_whisper.lora.products`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import decoding_dtype
from benchmarks.measure import Row, Setting, Variant, alternate, ratio_row, timed
from benchmarks.workload import LANGUAGES, TINY, backbone, bank_of
from lora_whisper.lora import products
from lora_whisper.lora.layers import LoRALinear
from lora_whisper.model.routing import Routing

OURS = "ours"
AT_ONCE_S = 0.05
"""How long a variant is repeated for one look at the clock."""


@dataclass(frozen=True)
class Case:
    """A batch that meets a layer.

    Attributes:
        name: what it is like.
        rows: in it.
        positions: of each row.
        languages: their number; neighbours share one.
    """

    name: str
    rows: int
    positions: int
    languages: int


CASES = (
    Case("a token of each of 64 rows in 8 languages", 64, 1, 8),
    Case("a token of each of 8 rows in 8 languages", 8, 1, 8),
    Case("12 s of each of 8 rows in 8 languages", 8, 600, 8),
    Case("12 s of each of 8 rows in one language", 8, 600, 1),
)


def gathered(layer: LoRALinear, x: Tensor, routing: Routing) -> Tensor:
    """A and B of each row in a batch of their own, two batched products."""
    return F.linear(x, layer.weight, layer.bias) + layer.update(x, routing)


def grouped(layer: LoRALinear, x: Tensor, routing: Routing) -> Tensor:
    """Rows by adapter, two batched products with as many matrices as there are adapters."""
    y = F.linear(x, layer.weight, layer.bias)
    layer._factors(routing)
    found = layer._grouped(routing)
    if found is None:
        raise RuntimeError("these rows do not group")
    products._add_grouped(y, x, *found)
    return y


def masked(layer: LoRALinear, x: Tensor, routing: Routing) -> Tensor:
    """Every row through all adapters side by side; those of others weigh nothing."""
    joint = layer._together(routing, length=1)
    if joint is None:
        return F.linear(x, layer.weight, layer.bias) + layer.update(x, routing)
    owned = routing.owned(joint.ranks).to(x.dtype)
    return products._weighed(layer.weight, layer.bias, joint.factors, owned.unsqueeze(1), x)


def merged(layer: LoRALinear, x: Tensor, routing: Routing) -> Tensor:
    """One product with W₀ + BA for each run of rows, added anew each time."""
    y = x.new_empty(*x.shape[:2], layer.out_features)
    for run in layer._factors(routing):
        weight = layer.weight if run.factors is None else products._merged(layer.weight, run.factors)
        y[run.start : run.stop] = F.linear(x[run.start : run.stop], weight, layer.bias)
    return y


METHODS: Mapping[str, Callable[[LoRALinear, Tensor, Routing], Tensor]] = {
    "gathered factors": gathered,
    "grouped rows": grouped,
    "all adapters, masked": masked,
    "merged for each run": merged,
}


def measure(setting: Setting) -> Iterator[Row]:
    """How much longer each way takes than ours, for each case and geometry."""
    for geometry in setting.chosen((TINY,), (TINY,)):
        for case in CASES:
            yield from _case(case, geometry, setting)


def _case(case: Case, geometry: str, setting: Setting) -> Iterator[Row]:
    dtype = decoding_dtype(setting.device)
    one = backbone(geometry, setting.folder, setting.device, dtype)
    bank = bank_of(one, LANGUAGES, dtype)
    block = one.model.encoder.blocks[0]
    layers = [block.attn.query, block.mlp.fc1, block.mlp.fc2]
    tags = [LANGUAGES[row * case.languages // case.rows] for row in range(case.rows)]
    routing = bank.route(tags)
    inputs = [
        torch.randn(case.rows, case.positions, layer.in_features, dtype=dtype, device=setting.device)
        for layer in layers
    ]

    @torch.inference_mode()
    def through(method: Callable[[LoRALinear, Tensor, Routing], Tensor]) -> None:
        for layer, x in zip(layers, inputs, strict=True):
            method(layer, x, routing)

    ways = {OURS: LoRALinear.forward, **METHODS}
    variants = [Variant(name, _repeated(partial(through, way))) for name, way in ways.items()]
    times = alternate(variants, setting.rounds(3))
    for name in METHODS:
        what = f"query and MLP, {geometry}, {case.name}, against {name}"
        yield ratio_row(what, times[name], times[OURS], None, notes=("ours chooses by itself",))


def _repeated(work: Callable[[], None]) -> Callable[[], float]:
    """Seconds of one repetition among as many as fill `AT_ONCE_S`."""
    once = timed(work)

    def run() -> float:
        times: list[float] = []
        while sum(times) < AT_ONCE_S:
            times.append(once())
        return sum(times) / len(times)

    return run
