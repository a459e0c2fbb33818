"""Adapters that are read when they are needed, and given up when others need their memory.

    opened: its JSON files are read → used: its tensors are read, checked and handed to the layers
        → the least recently used, and memory is short: taken from the layers → used again …

Three kinds are never given up: what a batch in flight uses, which the `Lease` of its rows in their routing
tells; what somebody has asked for its parameters, since they may be changed; and what never came from a
folder, which is not kept here at all. An adapter keeps its slot for good: no routing ever means another one.
"""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch

from lora_whisper.errors import AdapterError
from lora_whisper.lora.adapter import Adapter, AdapterInfo
from lora_whisper.lora.opening import attach, detach, made
from lora_whisper.lora.storage import Description, describe_adapter, read_adapter
from lora_whisper.lora.updates import Adapted
from lora_whisper.model.routing import Route

if TYPE_CHECKING:
    from lora_whisper.lora.parts import LowRank

_log = logging.getLogger(__name__)


class OnDemandAdapter(Adapter):
    """An adapter in a folder. What it is, is known; its tensors are read when a batch or somebody needs them.

    Whoever asks for its parameters, parts, gates or slot may train it or route to it by hand: from then on it
    stays in memory.

    Attributes:
        number: its slot, for those who see to it themselves that it is loaded.
        described: its folder, as it was when it was opened.
    """

    def __init__(
        self,
        number: int,
        described: Description,
        info: AdapterInfo,
        experts: tuple[Adapter, ...],
        cache: "AdapterCache",
    ) -> None:
        self.number, self.described = number, described
        self.config, self.info, self.experts = described.config, info, experts
        self._cache = cache

    def __repr__(self) -> str:
        return f"OnDemandAdapter({self.tag}, {self.described.folder})"

    @property
    def taken(self) -> bool:
        """Whether somebody has its parts, and may have changed them."""
        return "parts" in vars(self)

    def __getattr__(self, name: str) -> Any:
        """Its slot, parts or gates, at the first time that one of them is asked for."""
        if name not in ("slot", "parts", "gates"):
            raise AttributeError(name)
        loaded = self._cache.hold(self)
        self.slot, self.parts, self.gates = loaded.slot, loaded.parts, loaded.gates
        return getattr(loaded, name)

    @property
    def fingerprint(self) -> str:
        """That of its tensors if they are in memory, else the one that its folder records."""
        if self.taken:
            return super().fingerprint
        loaded = self._cache.loaded(self)
        return str(self.described.fingerprint) if loaded is None else loaded.fingerprint


def route_of(adapter: Adapter) -> Route:
    """What a row of its language uses; unlike `Adapter.route`, this keeps nothing in memory."""
    slots = [one.number if isinstance(one, OnDemandAdapter) else one.slot for one in with_experts(adapter)]
    weights = [adapter.info.own_weight, *(expert.weight for expert in adapter.info.experts)]
    return tuple(zip(slots, weights, strict=True))


def with_experts(adapter: Adapter) -> tuple[Adapter, ...]:
    """The adapter and those that it borrows."""
    return adapter, *adapter.experts


class Lease:
    """As long as this object lives, the adapters that it was given for stay in memory."""


@dataclass
class _Entry:
    """An adapter in memory.

    Attributes:
        adapter: with its tensors.
        n_bytes: of its tensors.
        held: it stays for good.
        leases: of batches that may be using it.
    """

    adapter: Adapter
    n_bytes: int
    held: bool = False
    leases: list[weakref.ref[Lease]] = field(default_factory=list)

    @property
    def leased(self) -> bool:
        return any(lease() is not None for lease in self.leases)

    def lend(self, lease: Lease) -> None:
        self.leases = [*(old for old in self.leases if old() is not None), weakref.ref(lease)]


class AdapterCache:
    """The adapters of a bank that came from folders on demand; may be used by several threads.

    Attributes:
        memory_bytes: what the tensors of these adapters may take up; None for no limit. A batch that needs
            more gets more, with one warning; the next one gives it back. One adapter that is being read comes
            on top.
    """

    def __init__(self, layers: Mapping[str, Adapted], memory_bytes: int | None = None) -> None:
        self.memory_bytes = memory_bytes
        self._layers = layers
        self._lock = threading.RLock()
        self._entries: OrderedDict[OnDemandAdapter, _Entry] = OrderedDict()  # least recently used first
        self._leaving: dict[OnDemandAdapter, _Entry] = {}  # forgotten, but a batch may still be using them
        self._n_bytes = 0
        self._warned = False

    @property
    def tags(self) -> tuple[str, ...]:
        """Languages of the adapters in memory, the least recently used first."""
        with self._lock:
            return tuple(adapter.tag for adapter in self._entries)

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensors in memory."""
        return self._n_bytes

    def loaded(self, adapter: OnDemandAdapter) -> Adapter | None:
        """The adapter with its tensors, if they are in memory."""
        entry = self._entries.get(adapter)
        return None if entry is None else entry.adapter

    def lease(self, adapters: Iterable[Adapter]) -> Lease | None:
        """What keeps these adapters and those that they borrow in memory; None if none of them is on demand.

        Raises:
            AdapterError: one is damaged, or has changed since it was opened.
        """
        every = (one for adapter in adapters for one in with_experts(adapter))
        wanted = list(dict.fromkeys(one for one in every if isinstance(one, OnDemandAdapter)))
        if not wanted:
            return None
        lease = Lease()
        with self._lock:
            for adapter in wanted:  # before anything is given up for others
                if adapter in self._entries:
                    self._entries[adapter].lend(lease)
            for adapter in wanted:
                self._entry(adapter).lend(lease)
            self._give_up()
        return lease

    def hold(self, adapter: OnDemandAdapter) -> Adapter:
        """The adapter with its tensors, which stay in memory from now on, like those that it borrows.

        Raises:
            AdapterError: one is damaged, or has changed since it was opened.
        """
        with self._lock:
            for one in with_experts(adapter):
                if isinstance(one, OnDemandAdapter):
                    self._entry(one).held = True
            return self._entries[adapter].adapter

    def forget(self, adapter: OnDemandAdapter) -> None:
        """Take it from memory as soon as no batch uses it."""
        with self._lock:
            entry = self._entries.pop(adapter, None)
            if entry is not None:
                self._leaving[adapter] = entry
                self._give_up()

    def read(self, adapter: OnDemandAdapter, thorough: bool = False) -> Adapter:
        """The adapter as it is in its folder now, which must be as it was when it was opened.

        Args:
            adapter: whose tensors are read; they are not kept here.
            thorough: compute the fingerprint even where the checksum is right.

        Raises:
            AdapterError: it is damaged, or has changed since it was opened.
        """
        known, folder = adapter.described, adapter.described.folder
        now = describe_adapter(folder)
        if now.fingerprint != known.fingerprint:
            raise AdapterError(
                f"{folder}: has changed since it was opened (fingerprint {str(now.fingerprint)[:12]}, not "
                f"{str(known.fingerprint)[:12]}); open the adapters again"
            )
        now = replace(now, checksum=known.checksum or now.checksum)
        device = next(iter(self._layers.values())).weight.device
        with torch.inference_mode(False):  # or it could never be trained
            stored = read_adapter(now, self._layers, device, thorough)
            found = made(self._layers, adapter.number, stored, adapter.info, adapter.experts, folder)
        adapter.described = replace(known, checksum=stored.checksum)  # the next time is quick in any case
        return found

    def _entry(self, adapter: OnDemandAdapter) -> _Entry:
        """The adapter in memory, read if it is not there, as the most recently used one."""
        entry = self._entries.get(adapter) or self._leaving.pop(adapter, None) or self._loaded(adapter)
        self._entries[adapter] = entry
        self._entries.move_to_end(adapter)
        self._give_up(spare=entry)
        return entry

    def _loaded(self, adapter: OnDemandAdapter) -> _Entry:
        """The adapter, handed to the layers."""
        found = self.read(adapter)
        _mark(self._layers, found, None)
        attach(self._layers, found)
        adapter.config = found.config
        entry = _Entry(found, sum(one.numel() * one.element_size() for one in found.parameters()))
        self._n_bytes += entry.n_bytes
        return entry

    def _give_up(self, spare: _Entry | None = None) -> None:
        """Take from the layers what was forgotten, and the least recently used until the rest fits."""
        for adapter in [one for one, entry in self._leaving.items() if not entry.leased]:
            self._drop(self._leaving.pop(adapter))
        if self.memory_bytes is None or self._n_bytes <= self.memory_bytes:
            return
        for adapter, entry in list(self._entries.items()):
            if not (entry is spare or entry.held or entry.leased):
                del self._entries[adapter]
                self._drop(entry)
                _mark(self._layers, entry.adapter, _Evicted(adapter.tag))
            if self._n_bytes <= self.memory_bytes:
                return
        self._warn_once(self.memory_bytes)

    def _drop(self, entry: _Entry) -> None:
        detach(self._layers, entry.adapter)
        self._n_bytes -= entry.n_bytes

    def _warn_once(self, budget: int) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "warning: adapters in use take up %.3f GB, more than the %.3f GB that they may; "
                "give them more memory (--adapter-memory), or let a batch be smaller",
                self._n_bytes / 1e9,
                budget / 1e9,
            )


class _Evicted:
    """Stands in the first layer where an evicted adapter was: a routing that outlived its lease fails there.

    Without it the layer would take the adapter for one that leaves it alone, and nobody would notice.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by copy and pickle
            raise AttributeError(name)
        raise AdapterError(
            f"{vars(self)['_tag']} was evicted while a routing still names it; keep the routing's leases, or "
            "route again"
        )


def _mark(layers: Mapping[str, Adapted], adapter: Adapter, mark: Any) -> None:
    """Set the mark in the first layer of an adapter; None takes it away."""
    path = next(iter((*adapter.parts, *adapter.gates)), None)
    if path is not None:
        layers[path].adapters.pop(adapter.slot, None)
        if mark is not None:
            layers[path].adapters[adapter.slot] = cast("LowRank", mark)
