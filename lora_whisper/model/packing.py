"""Rows of unlike lengths one behind the other, without padding: each position costs time, on a CPU.

Where products are compiled for each shape, each run of rows is filled up to one of few sizes by positions
that nobody hears.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from lora_whisper.model.attention import Stretch
from lora_whisper.model.routing import Routing
from lora_whisper.model.shapes import compiled, rounded_up


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the positions of a batch (B, S, D) lie among N in a row.

    Attributes:
        stretches: positions that belong together: those of a row, or a filler.
        routing: of the N positions.
        n_packed: N.
        real: which of the B · S positions there are, int64; None for all.
        places: where they lie, int64; None where no filler is among them.
    """

    stretches: list[Stretch]
    routing: Routing | None
    n_packed: int
    real: Tensor | None
    places: Tensor | None

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None, routing: Routing | None) -> "Packing":
        """That of x (B, S, D) with these real positions, bool (B, 1, 1, S), and this routing of its rows."""
        n_rows, size = x.shape[:2]
        lengths = [size] * n_rows if mask is None else mask.flatten(1).sum(1).tolist()
        filled = _filled_up(lengths, routing) if compiled(x) else lengths
        edges = [0, *accumulate(filled)]
        rows = [slice(start, start + length) for start, length in zip(edges[:-1], lengths, strict=True)]
        fillers = [slice(row.stop, stop) for row, stop in zip(rows, edges[1:], strict=True)]
        together = [one for pair in zip(rows, fillers, strict=True) for one in pair if one.start < one.stop]
        real = None if mask is None else mask.flatten().nonzero().squeeze(1)
        places = None
        if filled != lengths:
            places = torch.cat([torch.arange(row.start, row.stop) for row in rows])
        by_position = None if routing is None else routing.by_position(filled)
        return cls(together, by_position, edges[-1], real, places)

    def pack(self, x: Tensor) -> Tensor:
        """The positions (N, 1, D) of x (B, S, D), as rows of their own."""
        packed = x.flatten(0, 1)
        if self.real is not None:
            packed = packed.index_select(0, self.real)
        if self.places is not None:
            empty = packed.new_zeros(self.n_packed, packed.shape[1])
            packed = empty.index_copy(0, self.places, packed)
        return packed.unsqueeze(1)

    def unpack(self, packed: Tensor, shape: torch.Size) -> Tensor:
        """A batch of this shape, (B, S, D), zero where no real position is, from packed ones (N, 1, D)."""
        found = packed.squeeze(1)
        if self.places is not None:
            found = found.index_select(0, self.places)
        if self.real is not None:
            found = found.new_zeros(shape[0] * shape[1], shape[2]).index_copy(0, self.real, found)
        return found.view(shape)


def _filled_up(lengths: Sequence[int], routing: Routing | None) -> list[int]:
    """Lengths of rows, the last row of each run with as much more as makes the run one of few sizes."""
    filled = list(lengths)
    bounds = [0, len(lengths)] if routing is None else [0, *(run.stop for run in routing.runs)]
    for start, stop in pairwise(bounds):
        n_positions = sum(lengths[start:stop])
        filled[stop - 1] += rounded_up(n_positions) - n_positions
    return filled
