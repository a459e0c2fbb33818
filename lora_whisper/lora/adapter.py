"""One language's adapter: its parts in all layers of the backbone, and what is known of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lora_whisper.errors import AdapterError
from lora_whisper.lora.layers import LoRAConfig, LoRALinear, LowRank

_KINDS = {"query": "q", "key": "k", "value": "v"}


@dataclass(frozen=True)
class Source:
    """An adapter that another one was made from."""

    language: str
    fingerprint: str


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


@dataclass(eq=False)
class Adapter:
    """One language's adapter.

    Attributes:
        slot: its number in a `Routing`.
        config: its shape.
        parts: path of the layer → its part there, in the order of the model.
        info: what it is and where it comes from; replaced as training finds out more.
    """

    slot: int
    config: LoRAConfig
    parts: dict[str, LowRank]
    info: AdapterInfo

    @property
    def tag(self) -> str:
        """BCP-47 tag of its language."""
        return self.info.language

    def parameters(self) -> list[nn.Parameter]:
        """Its own parameters, no other adapter's."""
        return [parameter for part in self.parts.values() for parameter in (part.a, part.b)]

    @property
    def n_parameters(self) -> int:
        """How many numbers it holds."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, sharing memory: `encoder.blocks.0.attn.query.a` (R, in), `….b` (out, R)."""
        pairs = ((path, part) for path, part in self.parts.items())
        return {f"{path}.{leaf}": getattr(part, leaf).detach() for path, part in pairs for leaf in ("a", "b")}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of shape, names and values."""
        return tensors_fingerprint(self.config, self.tensors())


def module_kind(path: str) -> str:
    """Which of `MODULES` the layer at `path` is: "q" for `encoder.blocks.0.attn.query`."""
    leaf = path.rpartition(".")[2]
    return _KINDS.get(leaf, leaf)


def tensors_fingerprint(config: LoRAConfig, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of an adapter: its shape, its scale, the names and float32 values of its tensors."""
    digest = hashlib.sha256(f"{config.rank} {float(config.alpha)!r}".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def fresh_parts(layers: Mapping[str, LoRALinear], config: LoRAConfig, seed: int) -> dict[str, LowRank]:
    """Parts of an untrained adapter; each layer draws from a stream of its own."""
    parts = {}
    for path, layer in layers.items():
        if module_kind(path) in config.modules:
            digest = hashlib.sha256(f"{seed} {path}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
            parts[path] = LowRank.fresh(layer, config, generator)
    return parts


def parts_from(
    layers: Mapping[str, LoRALinear], config: LoRAConfig, tensors: Mapping[str, Tensor], where: str
) -> dict[str, LowRank]:
    """Parts made of copies of these tensors.

    Raises:
        AdapterError: one is missing, has another shape, or is not finite.
    """
    named = {name.rpartition(".")[0] for name in tensors}
    parts = {}
    for path, layer in layers.items():
        if path in named:
            a = _checked(tensors, f"{path}.a", (config.rank, layer.in_features), where)
            b = _checked(tensors, f"{path}.b", (layer.out_features, config.rank), where)
            device = layer.weight.device
            a, b = a.to(device, copy=True), b.to(device, copy=True)
            parts[path] = LowRank(nn.Parameter(a), nn.Parameter(b), config.scale, config.dropout)
    return parts


def _checked(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, int], where: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tuple(tensor.shape) != shape:
        found = "missing" if tensor is None else str(tuple(tensor.shape))
        raise AdapterError(f"{where}: {name} is {found}, not {shape}; was it made for another backbone?")
    if not bool(tensor.isfinite().all()):
        raise AdapterError(f"{where}: {name} holds values that are not finite; train it again")
    return tensor
