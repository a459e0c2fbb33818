"""The adapters of one backbone, by language."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_whisper.errors import AdapterError, BackboneMismatch, UnknownLanguage
from lora_whisper.languages import fallbacks, normalize_tag, whisper_code
from lora_whisper.lora.adapter import Adapter, AdapterInfo, Source, fresh_parts, parts_from
from lora_whisper.lora.layers import LoRAConfig, LoRALinear, LowRank
from lora_whisper.lora.storage import adapter_folders, read_adapter, write_adapter
from lora_whisper.model.routing import NO_ADAPTER, Routing
from lora_whisper.model.whisper import Linear, Whisper
from lora_whisper.version import __version__

if TYPE_CHECKING:
    from lora_whisper.model.checkpoint import Backbone

__all__ = ["Adapter", "AdapterBank", "AdapterInfo", "Source"]


class AdapterBank:
    """Adapters over one frozen backbone.

    The backbone's linear layers are replaced in place by `LoRALinear`; its `state_dict()` and what it
    computes without a routing stay as they are. Adapters live where the backbone is when they come: move it
    to its device first. Several banks may share a backbone.

    Attributes:
        backbone: the frozen backbone.
        layers: path → every layer that can carry an adapter.
    """

    def __init__(self, backbone: "Backbone") -> None:
        self.backbone = backbone
        self.layers = _adaptable(backbone.model)
        self._adapters: dict[str, Adapter] = {}

    @property
    def tags(self) -> tuple[str, ...]:
        """Languages that have an adapter, in the order they came."""
        return tuple(self._adapters)

    def __contains__(self, tag: str) -> bool:
        return normalize_tag(tag) in self._adapters

    def __iter__(self) -> Iterator[Adapter]:
        return iter(self._adapters.values())

    def __len__(self) -> int:
        return len(self._adapters)

    def __getitem__(self, tag: str) -> Adapter:
        """The adapter of exactly this language.

        Raises:
            UnknownLanguage: there is none.
        """
        try:
            return self._adapters[normalize_tag(tag)]
        except KeyError:
            raise self._unknown(tag) from None

    def find(self, tag: str) -> Adapter:
        """The adapter of this language or of its nearest parent: `pt` serves `pt-BR` (RFC 4647 look-up).

        Raises:
            UnknownLanguage: there is none.
        """
        for candidate in fallbacks(tag):
            if candidate in self._adapters:
                return self._adapters[candidate]
        raise self._unknown(tag)

    def has_token(self, tag: str) -> bool:
        """Whether the backbone has a language token for this language itself."""
        return whisper_code(tag) in self.backbone.tokenizer.languages

    def add(
        self,
        tag: str,
        config: LoRAConfig | None = None,
        *,
        seed: int = 0,
        start: str | None = None,
        token_language: str | None = None,
    ) -> Adapter:
        """A new adapter, which leaves the backbone as it is, or a copy of another one to start from.

        Args:
            tag: its language.
            config: its shape; None for that of `start`, or the default.
            seed: of the random half; the same seed gives the same adapter, whatever the language.
            start: language of the adapter to copy.
            token_language: Whisper code of the token for it; None for its own, else that of `start`.

        Raises:
            AdapterError: the language has an adapter, or `config` does not fit `start`.
            UnknownLanguage: no such tag, no adapter `start`, or no token for the language.
        """
        tag = normalize_tag(tag)
        source = self[start] if start is not None else None
        config = config or (source.config if source else LoRAConfig())
        info = AdapterInfo(
            language=tag,
            token_language=self._token_language(tag, token_language, source),
            backbone=self.backbone.name,
            backbone_fingerprint=self.backbone.fingerprint,
            audio_context=source.info.audio_context if source else self.backbone.audio_context,
            seed=seed,
            package_version=__version__,
            start=Source(source.tag, source.fingerprint) if source else None,
        )
        if source is None:
            return self._install(info, config, fresh_parts(self.layers, config, seed))
        if replace(config, dropout=source.config.dropout) != source.config:
            raise AdapterError(f"{tag} cannot start from {source.tag}: {config} differs from {source.config}")
        return self._install(
            info, config, parts_from(self.layers, config, source.tensors(), f"adapter {source.tag}")
        )

    def remove(self, tag: str) -> None:
        """Forget the adapter of exactly this language.

        Raises:
            UnknownLanguage: there is none.
        """
        adapter = self[tag]
        for path in adapter.parts:
            del self.layers[path].adapters[adapter.slot]
        del self._adapters[adapter.tag]

    def route(self, languages: Sequence[str | None]) -> Routing | None:
        """Routing of each row of a batch to the adapter of its language or of the nearest parent.

        Args:
            languages: tag of each row; None for the bare backbone.

        Returns:
            None when no row uses an adapter.

        Raises:
            UnknownLanguage: there is no adapter for one of them.
        """
        slots = [NO_ADAPTER if tag is None else self.find(tag).slot for tag in languages]
        if all(slot == NO_ADAPTER for slot in slots):
            return None
        return Routing.one_per_row(slots, self.backbone.model.device)

    def save(self, tag: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
        """The adapter folder, written whole or not at all; PEFT reads it.

        Raises:
            UnknownLanguage: there is no adapter for it.
            OutputError: `folder` cannot be written or holds something else.
        """
        adapter = self[tag]
        return write_adapter(folder, adapter.config, adapter.info, adapter.tensors(), self.layers, dtype)

    def load(self, folder: Path, language: str | None = None, token_language: str | None = None) -> Adapter:
        """The adapter in a folder that `save` or PEFT wrote.

        Args:
            folder: the adapter folder.
            language: tag to hold it under; None for what the folder records (PEFT's record none).
            token_language: as for `add`; None for what the folder records.

        Raises:
            AdapterError: it is incomplete, damaged or does not fit, or the language has an adapter.
            BackboneMismatch: it was trained on another backbone.
        """
        stored = read_adapter(folder, self.layers)
        info = self._loaded_info(folder, stored.info, language, token_language)
        parts = parts_from(self.layers, stored.config, stored.tensors, str(folder))
        return self._install(info, stored.config, parts)

    def load_all(self, root: Path) -> list[Adapter]:
        """The adapters in the folders directly under `root`.

        Raises:
            AdapterError: there are none, or one of them cannot be loaded.
        """
        folders = adapter_folders(root)
        if not folders:
            raise AdapterError(f"{root}: no adapters there; expected folders such as {root / 'pl'}")
        return [self.load(folder) for folder in folders]

    def tensors(self, tag: str) -> dict[str, Tensor]:
        """A copy of the adapter's tensors, for `restore`."""
        return {name: tensor.clone() for name, tensor in self[tag].tensors().items()}

    def restore(self, tag: str, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the adapter's values in place; its parameters stay the same objects.

        Raises:
            AdapterError: names or shapes are not those of the adapter.
        """
        adapter = self[tag]
        current = adapter.tensors()
        if {k: v.shape for k, v in current.items()} != {k: v.shape for k, v in tensors.items()}:
            raise AdapterError(f"tensors to restore do not fit adapter {adapter.tag} ({adapter.config})")
        for name, tensor in current.items():
            tensor.copy_(tensors[name])

    def merge(self, tag: str) -> Whisper:
        """A plain Whisper of its own, with the adapter merged into the weights in float32.

        Raises:
            UnknownLanguage: there is no adapter for it.
        """
        slot = self[tag].slot
        shared = {id(layer.adapters): layer.adapters for layer in self.layers.values()}  # not copied along
        merged = copy.deepcopy(self.backbone.model, shared)
        for path in self.layers:
            layer = merged.get_submodule(path)
            if isinstance(layer, LoRALinear):
                merged.set_submodule(path, layer.to_linear(slot))
        return merged

    def _install(self, info: AdapterInfo, config: LoRAConfig, parts: dict[str, LowRank]) -> Adapter:
        if info.language in self._adapters:
            raise AdapterError(f"there is an adapter for {info.language} already; remove it first")
        slot = 1 + max((slot for layer in self.layers.values() for slot in layer.adapters), default=-1)
        adapter = Adapter(slot, config, parts, info)
        for path, part in parts.items():
            self.layers[path].adapters[slot] = part
        self._adapters[info.language] = adapter
        return adapter

    def _loaded_info(
        self, folder: Path, info: AdapterInfo | None, language: str | None, token_language: str | None
    ) -> AdapterInfo:
        """The info of a folder, completed; for PEFT's folders what can be known."""
        backbone = self.backbone
        if info is not None:
            if info.backbone_fingerprint != backbone.fingerprint:
                raise BackboneMismatch(
                    f"{folder}: trained on {info.backbone} (weights {info.backbone_fingerprint}), but "
                    f"{backbone.name} (weights {backbone.fingerprint}) is loaded; load the former instead"
                )
            tag = normalize_tag(language or info.language)
            token = self._token_language(tag, token_language or info.token_language, None)
            return replace(info, language=tag, token_language=token)
        if language is None:
            raise AdapterError(f"{folder}: records no language; say which one it is for")
        return AdapterInfo(
            language=normalize_tag(language),
            token_language=self._token_language(normalize_tag(language), token_language, None),
            backbone=backbone.name,
            backbone_fingerprint=backbone.fingerprint,
            audio_context="full",  # whoever trains with transformers trains on 30 s
            seed=0,
            package_version="peft",
        )

    def _token_language(self, tag: str, wanted: str | None, source: Adapter | None) -> str:
        inherited = source.info.token_language if source else None
        for code in [wanted] if wanted else [whisper_code(tag), inherited]:
            if code is not None and code in self.backbone.tokenizer.languages:
                return code
        raise UnknownLanguage(
            f"{wanted or tag}: {self.backbone.name} has no token for it; "
            "choose the token of a similar language (token_language)"
        )

    def _unknown(self, tag: str) -> UnknownLanguage:
        there = f"there are {', '.join(self.tags)}" if self.tags else "there are none yet"
        return UnknownLanguage(f"no adapter for {tag!r}; {there}")


def _adaptable(model: Whisper) -> dict[str, LoRALinear]:
    """Every linear layer of the model by path, replaced in place by one that takes adapters."""
    layers = {}
    for path, layer in list(model.named_modules()):
        if isinstance(layer, Linear):
            layers[path] = layer if isinstance(layer, LoRALinear) else LoRALinear.from_linear(layer)
            model.set_submodule(path, layers[path])
    return layers
