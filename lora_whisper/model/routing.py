"""Which adapters each row of a batch uses: the one value that travels with every forward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

NO_ADAPTER = -1
"""Slot of a row that uses the bare backbone inside a mixed batch."""


MOST_IN_COMPANY = 16
"""Adapters of which layers keep something from one batch to the next."""

Route = tuple[tuple[int, float], ...]
"""What one row uses: slots of the adapter bank with their weights. The first is the row's own adapter, the
others, if any, are experts that it borrows; a row without any uses the bare backbone."""


Way = Callable[[Tensor], Tensor]
"""How a batch goes through a layer: inputs (B, L, in) → outputs (B, L, out)."""


@dataclass(frozen=True)
class Run:
    """Rows `start` to `stop` of a batch, one behind the other, which use the same adapters alike."""

    start: int
    stop: int
    route: Route


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows of a batch by route, U routes with up to G rows each, for products of whole groups.

    Attributes:
        rows: rows of each route, filled up with any, int64 (U, G); None if the batch is just that as it is.
        places: of those that do not fill up, in `rows` flattened, int64 (n,).
    """

    rows: Tensor | None
    places: Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Row b of a batch uses adapters `adapter_ids[b]`, weighted by `gates[b]`.

    `None` in place of a Routing means the frozen backbone. K = 1 is one language per row, with different
    languages in one batch; K = 2 is a LoRA mixture of experts.

    Attributes:
        adapter_ids: slots of the adapter bank, int64 (B, K); `NO_ADAPTER` contributes nothing.
        gates: weights, float (B, K).
        known: slots that `adapter_ids` is made of, if they are known; others may be among them.
        memory: what layers keep for the batch, by themselves: only in inference, where adapters do not
            change while a batch is decoded. Rows that leave or multiply keep it.
        planned: groups that were asked for.
        columns: what `owned` was asked for.
        ways: through layers, kept as `memory` is, but for just these rows.
        leases: what must live as long as each row, one for each of them; empty for nothing.
        known_runs: the runs, if they are known.
        known_routes: the routes, if they are known: to read them, the device would have to be waited for.
    """

    adapter_ids: Tensor
    gates: Tensor
    known: tuple[int, ...] = ()
    memory: dict[object, object] = field(default_factory=dict, repr=False)
    planned: dict[tuple[Route, ...], Groups | None] = field(default_factory=dict, repr=False)
    columns: dict[tuple[tuple[Route, int], ...], Tensor] = field(default_factory=dict, repr=False)
    ways: dict[object, Way] = field(default_factory=dict, repr=False)
    leases: tuple[object, ...] = field(default=(), repr=False)
    known_runs: tuple[Run, ...] = field(default=(), repr=False)
    known_routes: tuple[Route, ...] = field(default=(), repr=False)

    @classmethod
    def one_per_row(cls, slots: Sequence[int], device: torch.device | str = "cpu") -> "Routing":
        """Routing of each row to a single adapter with weight one."""
        ids = torch.tensor(slots, dtype=torch.int64, device=device).unsqueeze(1)
        return cls(ids, (ids != NO_ADAPTER).to(torch.float32))

    @classmethod
    def bare(cls, n_rows: int, device: torch.device | str = "cpu") -> "Routing":
        """Routing of so many rows to no adapter, to stand beside rows that have some."""
        return cls.one_per_row([NO_ADAPTER] * n_rows, device)

    @classmethod
    def of(cls, routes: Sequence[Route], device: torch.device | str = "cpu") -> "Routing | None":
        """Routing of each row by its route; None when no row uses an adapter."""
        width = max(map(len, routes), default=0)
        if not width:
            return None
        full = [(*route, *[(NO_ADAPTER, 0.0)] * (width - len(route))) for route in routes]
        ids = torch.tensor([[slot for slot, _ in route] for route in full], dtype=torch.int64)
        gates = torch.tensor([[gate for _, gate in route] for route in full])
        made = cls(ids, gates)
        return cls(ids.to(device), gates.to(device), made.slots, known_routes=made.routes)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Distinct adapters in use, or more of them, ascending; without `NO_ADAPTER`."""
        return self.known or tuple(slot for slot in self.adapter_ids.unique().tolist() if slot != NO_ADAPTER)

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """What each row uses."""
        if self.known_routes:
            return self.known_routes
        pairs = zip(self.adapter_ids.tolist(), self.weights.tolist(), strict=True)
        return tuple(tuple(one for one in zip(*row, strict=True) if one[0] != NO_ADAPTER) for row in pairs)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The batch as runs of rows with the same route; few if rows are sorted by it."""
        if self.known_runs:
            return self.known_runs
        bounds = [b for b in range(1, len(self.routes)) if self.routes[b] != self.routes[b - 1]]
        edges = [0, *bounds, len(self.routes)]
        return tuple(Run(start, stop, self.routes[start]) for start, stop in pairwise(edges) if start < stop)

    @cached_property
    def weights(self) -> Tensor:
        """Gates with those of `NO_ADAPTER` set to zero, float (B, K)."""
        return self.gates * (self.adapter_ids != NO_ADAPTER)

    def owned(self, ranks: tuple[tuple[Route, int], ...]) -> Tensor:
        """Which columns are of a row's own route, 0 or 1, float (B, ΣR), if each route has R of them."""
        if ranks not in self.columns:
            owners = [route for route, rank in ranks for _ in range(rank)]
            rows = {route: [float(route == owner) for owner in owners] for route in set(self.routes)}
            table = torch.tensor([rows[route] for route in self.routes])
            self.columns[ranks] = table.to(self.adapter_ids.device)
        return self.columns[ranks]

    def groups(self, order: tuple[Route, ...]) -> Groups | None:
        """The rows by route, in this order of routes; None if filling them up would more than double them.

        Positions that became rows are left as they are: what they have of a route is long.
        """
        if self.known_runs:
            return None
        if order not in self.planned:
            self.planned[order] = self._groups(order)
        return self.planned[order]

    def _groups(self, order: tuple[Route, ...]) -> Groups | None:
        of_route = {route: [row for row, one in enumerate(self.routes) if one == route] for route in order}
        width = max(map(len, of_route.values()))
        n_rows = sum(map(len, of_route.values()))
        if len(order) * width > 2 * n_rows:
            return None
        flat = [row for rows in of_route.values() for row in rows + [0] * (width - len(rows))]
        places = [
            group * width + place
            for group, rows in enumerate(of_route.values())
            for place in range(len(rows))
        ]
        device = self.adapter_ids.device
        as_it_is = len(places) == len(flat) and flat == list(range(len(self.routes)))
        rows = None if as_it_is else torch.tensor(flat, device=device).view(len(order), width)
        return Groups(rows, torch.tensor(places, device=device))

    def repeat_interleave(self, repeats: int) -> "Routing":
        """Routing for beams: each row `repeats` times in succession."""
        ids, gates = (each.repeat_interleave(repeats, 0) for each in (self.adapter_ids, self.gates))
        leases = tuple(lease for lease in self.leases for _ in range(repeats))
        return Routing(ids, gates, self.slots, self.memory, leases=leases)

    def by_position(self, lengths: Sequence[int]) -> "Routing":
        """Routing of positions one behind the other, of which each row has so many, as rows of their own."""
        repeats = torch.tensor(lengths, device=self.adapter_ids.device)
        ids, gates = (each.repeat_interleave(repeats, 0) for each in (self.adapter_ids, self.gates))
        edges = [0, *accumulate(lengths)]
        runs = tuple(Run(edges[run.start], edges[run.stop], run.route) for run in self.runs)
        return Routing(ids, gates, self.slots, self.memory, known_runs=runs)

    def index_select(self, rows: Tensor) -> "Routing":
        """Routing of the rows that stay, int64 (B',): the same index as for the cache."""
        ids, gates = (each.index_select(0, rows) for each in (self.adapter_ids, self.gates))
        leases = tuple(self.leases[row] for row in rows.tolist()) if self.leases else ()
        return Routing(ids, gates, self.slots, self.memory, leases=leases)

    def by_route(self) -> Tensor:
        """An order of the rows in which those of one route are neighbours, int64 (B,)."""
        order = sorted(range(len(self.routes)), key=self.routes.__getitem__)
        return torch.tensor(order, device=self.adapter_ids.device)

    def joined(self, other: "Routing") -> "Routing":
        """Routing of the rows of both, these first; what layers keep stays if both share it."""
        width = max(self.adapter_ids.shape[1], other.adapter_ids.shape[1])
        ids, gates = (
            torch.cat([F.pad(part, (0, width - part.shape[1]), value=filler) for part in parts])
            for parts, filler in (
                ((self.adapter_ids, other.adapter_ids), NO_ADAPTER),
                ((self.gates, other.gates), 0.0),
            )
        )
        memory = self.memory if self.memory is other.memory else {}
        return Routing(ids, gates, memory=memory, leases=(*self._every_lease(), *other._every_lease()))

    def _every_lease(self) -> tuple[object, ...]:
        return self.leases or (None,) * len(self.adapter_ids)


class Company:
    """The adapters of batches that follow each other: what layers keep of them need not be made anew.

    They stay in memory as long as what is kept of them; when there are too many, others take their place.
    """

    def __init__(self) -> None:
        self._slots: frozenset[int] = frozenset()
        self._memory: dict[object, object] = {}

    def joined_by(self, routing: Routing) -> Routing:
        """The routing of the next batch with what is kept."""
        slots = self._slots | frozenset(routing.slots)
        if len(slots) > MOST_IN_COMPANY:
            slots, self._memory = frozenset(routing.slots), {}
        if slots != self._slots:
            self._memory["leases", slots] = routing.leases
        self._slots = slots
        return replace(routing, memory=self._memory)
