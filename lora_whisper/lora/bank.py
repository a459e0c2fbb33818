"""The adapters of one backbone, by language."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_whisper.errors import AdapterError, BackboneMismatch, LoraWhisperError, UnknownLanguage
from lora_whisper.languages import fallbacks, normalize_tag, whisper_code
from lora_whisper.lora.adapter import (
    Adapter,
    AdapterInfo,
    Expert,
    Gating,
    Source,
    fresh_parts,
    parts_from,
)
from lora_whisper.lora.layers import Gate, LoRAConfig, LoRALinear, LowRank, adaptable
from lora_whisper.lora.mixture import borrowed, flatten, fresh_gates, gates_from, updates_of
from lora_whisper.lora.storage import StoredAdapter, adapter_folders, read_adapter, write_adapter
from lora_whisper.model.routing import Route, Routing
from lora_whisper.model.whisper import Whisper
from lora_whisper.version import __version__

if TYPE_CHECKING:
    from lora_whisper.model.checkpoint import Backbone

__all__ = ["Adapter", "AdapterBank", "AdapterInfo", "Expert", "Gating", "Source"]


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
        self.layers = adaptable(backbone.model)
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
            AdapterError: the language has an adapter, or `start` is a mixture or does not fit `config`.
            UnknownLanguage: no such tag, no adapter `start`, or no token for the language.
        """
        tag = normalize_tag(tag)
        source = self[start] if start is not None else None
        if source and source.experts:
            raise AdapterError(f"{tag} cannot start from {source.tag}, a mixture; flatten that first")
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

    def add_mixture(
        self,
        tag: str,
        experts: Sequence[Expert],
        config: LoRAConfig | None = None,
        *,
        gating: Gating = "fixed",
        seed: int = 0,
        token_language: str | None = None,
    ) -> Adapter:
        """A new adapter that borrows others: a LoRA mixture of experts.

        Args:
            tag: its language.
            experts: which adapters of this bank, with their weights.
            config: shape of its own low-rank part; None for a mixture of the experts alone.
            gating: who weighs them; see `Gating`.
            seed: of the random half of its own part.
            token_language: as for `add`; by default its own, else that of the first expert.

        Raises:
            AdapterError: the language has an adapter, or an expert is missing or not the one that is meant.
            UnknownLanguage: no such tag, or no token for the language.
        """
        tag = normalize_tag(tag)
        adapters = borrowed(self._adapters, experts, tag)
        if not adapters:
            raise AdapterError(f"{tag}: a mixture needs at least one expert")
        shape = config or replace(adapters[0].config, dropout=0.0)
        parts = fresh_parts(self.layers, shape, seed) if config else {}
        info = AdapterInfo(
            language=tag,
            token_language=self._token_language(tag, token_language, adapters[0]),
            backbone=self.backbone.name,
            backbone_fingerprint=self.backbone.fingerprint,
            audio_context=adapters[0].info.audio_context,
            seed=seed,
            package_version=__version__,
            experts=tuple(experts),
            gating=gating,
            own_weight=1.0 if config else 0.0,
        )
        return self._install(info, shape, parts, adapters, fresh_gates(self.layers, adapters, parts, gating))

    def add_flattened(self, tag: str, mixture: Adapter, rank: int | None = None) -> tuple[Adapter, float]:
        """A mixture of this bank as a plain adapter under another tag, and what its reduction to `rank` lost.

        Raises:
            AdapterError: the tag has an adapter, or the mixture has a router for each position.
        """
        flat = flatten(mixture, rank)
        info = replace(
            mixture.info,
            language=normalize_tag(tag),
            experts=(),
            gating="fixed",
            own_weight=1.0,
            start=Source(mixture.tag, mixture.fingerprint),
        )
        parts = parts_from(self.layers, flat.config, flat.tensors, f"adapter {mixture.tag}")
        return self._install(info, flat.config, parts), flat.error

    def add_shared(self, tag: str, source: str) -> Adapter:
        """Another language served by the parameters of `source` themselves: what trains one trains both.

        Raises:
            AdapterError: the language has an adapter, or `source` is a mixture.
            UnknownLanguage: no such tag, no adapter `source`, or no token for the language.
        """
        shared = self[source]
        if shared.experts:
            raise AdapterError(f"{tag} cannot share {shared.tag}, a mixture; flatten that first")
        tag = normalize_tag(tag)
        info = replace(shared.info, language=tag, token_language=self._token_language(tag, None, shared))
        return self._install(info, shared.config, shared.parts)

    def remove(self, tag: str) -> None:
        """Forget the adapter of exactly this language.

        Raises:
            UnknownLanguage: there is none.
            AdapterError: a mixture borrows it.
        """
        adapter = self[tag]
        borrowers = [one.tag for one in self if any(expert is adapter for expert in one.experts)]
        if borrowers:
            raise AdapterError(f"{adapter.tag} is an expert of {', '.join(borrowers)}; remove that first")
        for path in adapter.gates:
            del self.layers[path].gates[adapter.slot]
        for path in adapter.parts:
            del self.layers[path].adapters[adapter.slot]
        del self._adapters[adapter.tag]

    def put_back(self, adapter: Adapter) -> Adapter:
        """An adapter that was removed from this bank, in it again, with its parameters.

        Raises:
            AdapterError: its language has another adapter by now.
        """
        return self._install(adapter.info, adapter.config, adapter.parts, adapter.experts, adapter.gates)

    def route(self, languages: Sequence[str | None]) -> Routing | None:
        """Routing of each row of a batch to the adapter of its language or of the nearest parent.

        Args:
            languages: tag of each row; None for the bare backbone.

        Returns:
            None when no row uses an adapter.

        Raises:
            UnknownLanguage: there is no adapter for one of them.
        """
        routes: list[Route] = [() if tag is None else self.find(tag).route for tag in languages]
        return Routing.of(routes, self.backbone.model.device)

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
        return self._load(folder, read_adapter(folder, self.layers), language, token_language)

    def load_all(self, root: Path) -> list[Adapter]:
        """The adapters in the folders directly under `root`: all, or none if one cannot be loaded.

        Raises:
            AdapterError: there are none, or one of them cannot be loaded.
        """
        folders = adapter_folders(root)
        if not folders:
            raise AdapterError(f"{root}: no adapters there; expected folders such as {root / 'pl'}")
        stored = [(folder, read_adapter(folder, self.layers)) for folder in folders]
        stored.sort(key=lambda pair: bool(pair[1].info and pair[1].info.experts))  # mixtures last
        loaded: list[Adapter] = []
        try:
            for folder, one in stored:
                loaded.append(self._load(folder, one, None, None))
        except LoraWhisperError:
            for adapter in reversed(loaded):
                self.remove(adapter.tag)
            raise
        return sorted(loaded, key=lambda adapter: adapter.tag)

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
        adapter = self[tag]
        updates = updates_of(adapter)
        shared = {id(held): held for layer in self.layers.values() for held in (layer.adapters, layer.gates)}
        merged = copy.deepcopy(self.backbone.model, shared)
        for path in self.layers:
            layer = merged.get_submodule(path)
            if isinstance(layer, LoRALinear):
                merged.set_submodule(path, layer.to_linear(updates.get(path)))
        return merged

    def _load(
        self, folder: Path, stored: StoredAdapter, language: str | None, token_language: str | None
    ) -> Adapter:
        info = self._loaded_info(folder, stored.info, language, token_language)
        experts = borrowed(self._adapters, info.experts, str(folder))
        parts = parts_from(self.layers, stored.config, stored.tensors, str(folder))
        gates = gates_from(self.layers, stored.tensors, 1 + len(experts), str(folder)) if experts else {}
        return self._install(info, stored.config, parts, experts, gates)

    def _install(
        self,
        info: AdapterInfo,
        config: LoRAConfig,
        parts: dict[str, LowRank],
        experts: tuple[Adapter, ...] = (),
        gates: dict[str, Gate] | None = None,
    ) -> Adapter:
        if info.language in self._adapters:
            raise AdapterError(f"there is an adapter for {info.language} already; remove it first")
        slots = (slot for layer in self.layers.values() for slot in (*layer.adapters, *layer.gates))
        taken = max(slots, default=-1)  # by any bank over this backbone
        slot = 1 + max(taken, max((one.slot for one in self), default=-1))
        adapter = Adapter(slot, config, parts, info, experts, gates or {})
        for path, part in parts.items():
            self.layers[path].adapters[slot] = part
        for path, gate in adapter.gates.items():
            self.layers[path].gates[slot] = gate
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
