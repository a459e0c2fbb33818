"""The adapters of one backbone, by language."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_whisper.errors import AdapterError, LoraWhisperError, UnknownLanguage
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
from lora_whisper.lora.cache import AdapterCache, OnDemandAdapter, route_of
from lora_whisper.lora.layers import adaptable
from lora_whisper.lora.mixture import borrowed, flatten, fresh_gates, merged_model
from lora_whisper.lora.opening import attach, described_in, detach, fitting_info, made, token_for
from lora_whisper.lora.parts import Gate, LoRAConfig, LowRank
from lora_whisper.lora.storage import Description, describe_adapter, read_adapter, write_adapter
from lora_whisper.model.routing import Route, Routing
from lora_whisper.model.whisper import Whisper
from lora_whisper.version import __version__

if TYPE_CHECKING:
    from lora_whisper.model.checkpoint import Backbone

__all__ = ["Adapter", "AdapterBank", "AdapterInfo", "Expert", "Gating", "Source"]

MOST_NAMED = 20  # languages in an error

_slots = count()
"""Slots of adapters. None is ever used twice, whatever bank or backbone it is for."""


class AdapterBank:
    """Adapters over one frozen backbone.

    The backbone's linear layers are replaced in place by `LoRALinear`; its `state_dict()` and what it
    computes without a routing stay as they are. Adapters live where the backbone is when they come: move it
    to its device first. Several banks may share a backbone.

    Adapters that are added or loaded stay in memory. Those that are opened are read when they are first used
    (not to tell tags and `Adapter.info`), and given up, the least recently used first, when they exceed their
    memory. `route` may be called by several threads.

    Attributes:
        backbone: the frozen backbone.
        layers: path → every layer that can carry an adapter.
        cache: the opened adapters that are in memory.
    """

    def __init__(self, backbone: "Backbone", memory_bytes: int | None = None) -> None:
        """A bank without adapters; those that it will open may take up `memory_bytes`, None for no limit."""
        self.backbone = backbone
        self.layers = adaptable(backbone.model)
        self.cache = AdapterCache(self.layers, memory_bytes)
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
            token_language=token_for(self.backbone, tag, token_language, source.info if source else None),
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
            token_language=token_for(self.backbone, tag, token_language, adapters[0].info),
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
        token = token_for(self.backbone, tag, None, shared.info)
        info = replace(shared.info, language=tag, token_language=token)
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
        if isinstance(adapter, OnDemandAdapter):
            self.cache.forget(adapter)
        else:
            detach(self.layers, adapter)
        del self._adapters[adapter.tag]

    def put_back(self, adapter: Adapter) -> Adapter:
        """An adapter that was removed from this bank, in it again, with its parameters.

        Raises:
            AdapterError: its language has another adapter by now.
        """
        if isinstance(adapter, OnDemandAdapter) and not adapter.taken:
            return self._register(adapter)
        return self._install(adapter.info, adapter.config, adapter.parts, adapter.experts, adapter.gates)

    def route(self, languages: Sequence[str | None]) -> Routing | None:
        """Routing of each row of a batch to the adapter of its language or of the nearest parent.

        Args:
            languages: tag of each row; None for the bare backbone.

        Returns:
            None when no row uses an adapter.

        Raises:
            UnknownLanguage: there is no adapter for one of them.
            AdapterError: an opened adapter is read now, and is damaged or has changed.
        """
        adapters = [None if tag is None else self.find(tag) for tag in languages]
        lease = self.cache.lease(adapter for adapter in adapters if adapter)
        routes: list[Route] = [() if adapter is None else route_of(adapter) for adapter in adapters]
        routing = Routing.of(routes, self.backbone.model.device)
        if routing is None or lease is None:
            return routing
        return replace(routing, leases=(lease,) * len(languages))

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
        return self._load(describe_adapter(folder), language, token_language)

    def load_all(self, root: Path) -> list[Adapter]:
        """The adapters in the folders directly under `root`: all, or none if one cannot be loaded.

        Raises:
            AdapterError: there are none, or one of them cannot be loaded.
        """
        return self._all(root, self._load)

    def open(self, folder: Path) -> OnDemandAdapter:
        """The adapter in a folder that `save` wrote, by its JSON files; the rest is read when it is used.

        Then a fault of its tensors is the same error as for `load`, and so is a folder that has changed.

        Raises:
            AdapterError: a JSON file is missing or damaged, or the language has an adapter.
            BackboneMismatch: it was trained on another backbone.
        """
        return self._open(describe_adapter(folder))

    def open_all(self, root: Path) -> list[Adapter]:
        """As `open`, the adapters in the folders directly under `root`: all or none.

        Raises:
            AdapterError: there are none, or one of them cannot be opened.
        """
        return self._all(root, self._open)

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
            AdapterError: it is a mixture whose router decides at every position.
        """
        return merged_model(self.backbone.model, self.layers, self[tag])

    def _all(self, root: Path, take: Callable[[Description], Adapter]) -> list[Adapter]:
        taken: list[Adapter] = []
        try:
            taken.extend(map(take, described_in(root)))
        except LoraWhisperError:
            for adapter in reversed(taken):
                self.remove(adapter.tag)
            raise
        return sorted(taken, key=lambda adapter: adapter.tag)

    def _load(
        self, described: Description, language: str | None = None, token_language: str | None = None
    ) -> Adapter:
        info = fitting_info(self.backbone, described, language, token_language)
        experts = borrowed(self._adapters, info.experts, str(described.folder))
        stored = read_adapter(described, self.layers, self.backbone.model.device)
        return self._register(made(self.layers, next(_slots), stored, info, experts, described.folder))

    def _open(self, described: Description) -> OnDemandAdapter:
        info = fitting_info(self.backbone, described)
        experts = borrowed(self._adapters, info.experts, str(described.folder))
        adapter = OnDemandAdapter(next(_slots), described, info, experts, self.cache)
        self._register(adapter)
        return adapter

    def _install(
        self,
        info: AdapterInfo,
        config: LoRAConfig,
        parts: dict[str, LowRank],
        experts: tuple[Adapter, ...] = (),
        gates: dict[str, Gate] | None = None,
    ) -> Adapter:
        return self._register(Adapter(next(_slots), config, parts, info, experts, gates or {}))

    def _register(self, adapter: Adapter) -> Adapter:
        """The adapter, in the bank from now on; nothing here depends on how many there are."""
        if adapter.tag in self._adapters:
            raise AdapterError(f"there is an adapter for {adapter.tag} already; remove it first")
        if not isinstance(adapter, OnDemandAdapter):
            attach(self.layers, adapter)
        self._adapters[adapter.tag] = adapter
        return adapter

    def _unknown(self, tag: str) -> UnknownLanguage:
        names = ", ".join(self.tags[:MOST_NAMED]) + (", …" if len(self) > MOST_NAMED else "")
        return UnknownLanguage(f"no adapter for {tag!r}; there are {names or 'none yet'}")
