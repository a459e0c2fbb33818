"""One language's adapter: its parts in all layers of the backbone, and what is known of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lora_whisper.errors import AdapterError
from lora_whisper.lora.parts import Gate, LoRAConfig, LowRank
from lora_whisper.lora.updates import Adapted
from lora_whisper.model.routing import Route

_KINDS = {"query": "q", "key": "k", "value": "v"}


@dataclass(frozen=True)
class Source:
    """An adapter that another one was made from."""

    language: str
    fingerprint: str


@dataclass(frozen=True)
class Expert:
    """An adapter that a mixture borrows, and its weight."""

    language: str
    fingerprint: str
    weight: float


Gating = Literal["fixed", "layer", "token"]
"""Who weighs the adapters of a mixture: similarity once and for all, a factor learned in each layer, or a
router learned in each layer that decides anew at every position."""


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is and where it comes from.

    Attributes:
        language: BCP-47 tag of what it was trained for.
        token_language: Whisper code whose token stands for it in the start sequence; a proxy where Whisper
            has none for the language itself.
        backbone: name of the backbone.
        backbone_fingerprint: of the backbone's weights.
        audio_context: "full" (30 s) or "dynamic"; decode as it was trained.
        seed: of the start and of the training.
        package_version: of the program that made it.
        data_fingerprint: of the training manifest.
        normalizer: text normaliser behind the scores.
        scores: such as {"dev_cer": 0.12}.
        start: the adapter it was warm-started from.
        experts: the adapters that it borrows; empty for an ordinary adapter.
        gating: who weighs the experts.
        own_weight: weight of its own low-rank part beside the experts; 0 if it has none.
        backbone_bits: in how many the backbone's weights were kept while it was trained, if in few.
    """

    language: str
    token_language: str
    backbone: str
    backbone_fingerprint: str
    audio_context: str
    seed: int
    package_version: str
    data_fingerprint: str | None = None
    normalizer: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    start: Source | None = None
    experts: tuple[Expert, ...] = ()
    gating: Gating = "fixed"
    own_weight: float = 1.0
    backbone_bits: int | None = None


@dataclass(eq=False)
class Adapter:
    """One language's adapter.

    Attributes:
        slot: its number in a `Routing`.
        config: its shape.
        parts: path of the layer → its part there, in the order of the model.
        info: what it is and where it comes from; replaced as training finds out more.
        experts: the adapters that it borrows, in the order of `info.experts`.
        gates: path of the layer → learned weights there, of a mixture that learns them.
    """

    slot: int
    config: LoRAConfig
    parts: dict[str, LowRank]
    info: AdapterInfo
    experts: tuple["Adapter", ...] = ()
    gates: dict[str, Gate] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """BCP-47 tag of its language."""
        return self.info.language

    def parameters(self) -> list[nn.Parameter]:
        """Its own parameters, no other adapter's."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Its own parameters: `encoder.blocks.0.attn.query.a` (R, in), `….b` (out, R), `….gate` (K, …)."""
        found = {
            f"{path}.{leaf}": getattr(part, leaf) for path, part in self.parts.items() for leaf in ("a", "b")
        }
        return found | {f"{path}.gate": gate.weight for path, gate in self.gates.items()}

    @property
    def route(self) -> Route:
        """What a row of its language uses: itself, and the experts that it borrows."""
        borrowed = zip(self.experts, self.info.experts, strict=True)
        return ((self.slot, self.info.own_weight), *((one.slot, info.weight) for one, info in borrowed))

    @property
    def n_parameters(self) -> int:
        """How many numbers it holds."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the names of its parameters, sharing memory."""
        return {name: parameter.detach() for name, parameter in self.named_parameters().items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of shape, names and values, and of what it borrows."""
        return tensors_fingerprint(self.config, self.tensors(), self.info.experts)


def module_kind(path: str) -> str:
    """Which of `MODULES` the layer at `path` is: "q" for `encoder.blocks.0.attn.query`."""
    leaf = path.rpartition(".")[2]
    return _KINDS.get(leaf, leaf)


def tensors_fingerprint(
    config: LoRAConfig, tensors: Mapping[str, Tensor], experts: Sequence[Expert] = ()
) -> str:
    """SHA-256 of an adapter: its shape, its scale, names and float32 values of its tensors, its experts."""
    digest = hashlib.sha256(f"{config.rank} {float(config.alpha)!r}".encode())
    for expert in experts:
        digest.update(f"{expert.fingerprint} {expert.weight!r}".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def fresh_parts(layers: Mapping[str, Adapted], config: LoRAConfig, seed: int) -> dict[str, LowRank]:
    """Parts of an untrained adapter; each layer draws from a stream of its own."""
    parts = {}
    for path, layer in layers.items():
        if module_kind(path) in config.modules:
            digest = hashlib.sha256(f"{seed} {path}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
            part = LowRank.fresh(layer.in_features, layer.out_features, config, generator)
            parts[path] = part.to(layer.weight.device)
    return parts


def parts_from(
    layers: Mapping[str, Adapted],
    config: LoRAConfig,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    copy: bool = True,
) -> dict[str, LowRank]:
    """Parts made of copies of these tensors; or of the tensors themselves, if whoever read them checked them.

    Raises:
        AdapterError: one is missing, has another shape, or (of what is copied) is not finite.
    """
    named = {name.rpartition(".")[0] for name in tensors if not name.endswith(".gate")}
    if copy:
        check_finite(tensors, where)
    parts = {}
    for path, layer in layers.items():
        if path in named:
            a = _shaped(tensors, f"{path}.a", (config.rank, layer.in_features), where)
            b = _shaped(tensors, f"{path}.b", (layer.out_features, config.rank), where)
            device = layer.weight.device
            a, b = a.to(device, copy=copy), b.to(device, copy=copy)
            parts[path] = LowRank(nn.Parameter(a), nn.Parameter(b), config.scale, config.dropout)
    return parts


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Nothing, if all values are finite.

    Raises:
        AdapterError: some are not.
    """
    name = next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)
    if name is not None:
        raise AdapterError(f"{where}: {name} holds values that are not finite; train it again")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; a finite sum has finite terms, and costs less than a look at each."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _shaped(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, int], where: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tuple(tensor.shape) != shape:
        found = "missing" if tensor is None else str(tuple(tensor.shape))
        raise AdapterError(f"{where}: {name} is {found}, not {shape}; was it made for another backbone?")
    return tensor
