"""What the decoder keeps for a batch: keys and values of the audio, and of the tokens so far."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lora_whisper.model.attention import for_few_queries, in_columns


@dataclass(frozen=True, eq=False)
class Heard:
    """Keys and values of rows of audio that are about equally long, for every block of the decoder.

    Attributes:
        keys_values: per decoder layer, keys and values, each (b, H, S, D/H).
        mask: which positions are real, bool (b, 1, 1, S); None when all are.
        rows: which rows of the batch they are, int64 (b,); None for all of them, in order.
    """

    keys_values: list[tuple[Tensor, Tensor]]
    mask: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return self.keys_values[0][0].shape[0]

    def index_select(self, audio: Tensor, n_audio: int) -> "Heard":
        """What stays when only the rows `audio`, int64 (B',), of `n_audio` go on."""
        if self.rows is None:
            return self._selected(audio, None)
        place = torch.full((n_audio,), -1, device=audio.device)
        place[audio] = torch.arange(len(audio), device=audio.device)
        rows = place[self.rows]
        kept = (rows >= 0).nonzero().squeeze(1)
        if len(kept) == len(rows):
            return replace(self, rows=rows)
        return self._selected(kept, rows[kept])

    def for_many_steps(self) -> "Heard":
        """The same, laid out for a decoder that reads it for one token after the other."""
        return replace(self, keys_values=[for_few_queries(*pair) for pair in self.keys_values])

    def placed(self, places: Tensor) -> "Heard":
        """The same rows at other places in the batch, int64, one for each of the rows that there were."""
        return replace(self, rows=places if self.rows is None else places[self.rows])

    def _selected(self, index: Tensor, rows: Tensor | None) -> "Heard":
        pairs = [(_rows(keys, index), _rows(values, index)) for keys, values in self.keys_values]
        return Heard(pairs, None if self.mask is None else self.mask.index_select(0, index), rows)


def _rows(heads: Tensor, index: Tensor) -> Tensor:
    """These rows of keys or values (b, H, S, D/H), laid out as they were."""
    if in_columns(heads):
        return heads.mT.index_select(0, index).mT
    return heads.index_select(0, index)


class KVCache:
    """Keys and values that the decoder has computed for a batch: of the audio, and of the tokens so far.

    Each row of audio may have several rows of tokens, its hypotheses, one behind the other: they read the
    same audio, which is neither copied nor read again for each of them.

    Attributes:
        heard: the audio, in groups of rows of similar length, so that short rows are not padded to long ones.
        n_audio: rows of audio, B.
        width: rows of tokens for each row of audio, W.
        length: tokens so far, those included that a row which came later does not have.
        starts: where the tokens of each row of audio begin, int64 (B,); None where all begin at 0.
        attention: if a list, each block appends how much its newest tokens look at each encoder position,
            (B, H, L, S); only for audio in one group.
        buffers: keys and values of the tokens in each block, (B·W, capacity, H, D/H), of which `length`
            columns are filled; another list as soon as they lie elsewhere.
    """

    def __init__(self, heard: Sequence[Heard], capacity: int = 0) -> None:
        self.heard = [part.for_many_steps() for part in heard] if capacity else list(heard)
        self.n_audio = sum(map(len, heard))
        self.capacity = capacity
        self.width = 1
        self.length = 0
        self.starts: Tensor | None = None
        self.attention: list[Tensor] | None = None
        self.buffers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, (B·W, H, L, D/H), after adding those of the newest tokens.

        With capacity 0 nothing is kept: the caller hands over the whole sequence at once (training).
        """
        if not self.capacity:
            return key, value
        if layer == len(self.buffers):
            shape = (key.shape[0], self.capacity, key.shape[1], key.shape[3])
            self.buffers.append((key.new_empty(shape), value.new_empty(shape)))
        keys, values = self.buffers[layer]
        end = self.length + key.shape[2]
        keys[:, self.length : end] = key.transpose(1, 2)
        values[:, self.length : end] = value.transpose(1, 2)
        return keys[:, :end].transpose(1, 2), values[:, :end].transpose(1, 2)

    def index_select(self, rows: Tensor, width: int = 1) -> None:
        """Keep only these rows of tokens, int64 (B'·W'), W' = `width` of each row of audio that stays."""
        audio = rows[::width] // self.width
        if not torch.equal(audio, torch.arange(self.n_audio, device=audio.device)):
            parts = (part.index_select(audio, self.n_audio) for part in self.heard)
            self.heard, self.n_audio = [part for part in parts if len(part)], len(audio)
            self.starts = None if self.starts is None else self.starts.index_select(0, audio)
        self.reorder(rows)
        self.width = width

    def reorder(self, rows: Tensor) -> None:
        """Give each row of tokens the past of another one of the same audio, int64 (B·W,)."""
        self.buffers = [(self._kept(k, rows), self._kept(v, rows)) for k, v in self.buffers]

    def _kept(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """These rows of a buffer (B·W, capacity, H, D/H); only what is filled is copied, and once."""
        kept = tokens.new_empty(len(rows), *tokens.shape[1:])
        torch.index_select(tokens[:, : self.length], 0, rows, out=kept[:, : self.length])
        return kept

    @property
    def n_positions(self) -> int:
        """Positions of audio, padding included."""
        return sum(len(part) * part.keys_values[0][0].shape[2] for part in self.heard)

    def positions(self, n_new: int) -> Tensor | slice:
        """Where the newest tokens stand in their own sequences: a slice, or int64 (B·W, L)."""
        if self.starts is None:
            return slice(self.length, self.length + n_new)
        columns = torch.arange(self.length, self.length + n_new, device=self.starts.device)
        return columns - self.starts.repeat_interleave(self.width).unsqueeze(1)

    def own_tokens(self, n_new: int) -> Tensor | None:
        """Which columns hold tokens of a row's own, bool (B·W, 1, 1, L); None for all."""
        if self.starts is None:
            return None
        columns = torch.arange(self.length + n_new, device=self.starts.device)
        return (columns >= self.starts.repeat_interleave(self.width).unsqueeze(1))[:, None, None]

    def admit(self, other: "KVCache", order: Tensor) -> None:
        """Take in the rows of another cache, which has fewer tokens or as many, and put all in a new order.

        Args:
            other: has one row of tokens for each row of audio, which becomes the first of its `width` ones.
            order: int64 (B,), places in the rows of audio that are here, followed by the others.
        """
        place = order.argsort()
        here, there = place[: self.n_audio], place[self.n_audio :]
        behind = self.length - other.length
        if behind or self.starts is not None:
            starts = order.new_zeros(self.n_audio) if self.starts is None else self.starts
            self.starts = torch.cat([starts, starts.new_full((other.n_audio,), behind)])[order]
        self.heard = [part.placed(here) for part in self.heard] + [part.placed(there) for part in other.heard]
        self.n_audio = len(order)
        lanes = (here.unsqueeze(1) * self.width + torch.arange(self.width, device=order.device)).flatten()

        def joined(ours: Tensor, theirs: Tensor) -> Tensor:
            both = ours.new_empty(self.n_audio * self.width, *ours.shape[1:])
            if self.starts is not None:
                both[:, : self.length] = 0  # what is masked must be finite all the same
            both[lanes, : self.length] = ours[:, : self.length]
            both[there * self.width, behind : self.length] = theirs[:, : other.length]
            return both

        self.buffers = [
            (joined(keys, new_keys), joined(values, new_values))
            for (keys, values), (new_keys, new_values) in zip(self.buffers, other.buffers, strict=True)
        ]

    def forget_gaps(self) -> None:
        """Move all tokens to the front as far as the row that came first allows."""
        if self.starts is None:
            return
        gap = int(self.starts.min())
        for pair in self.buffers:
            for buffer in pair:
                buffer[:, : self.length - gap] = buffer[:, gap : self.length].clone()
        self.length -= gap
        self.starts = self.starts - gap
