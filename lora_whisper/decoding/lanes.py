"""Where the hypotheses of a batch live in the decoder, so that as little as possible is copied.

The cache has W lanes for each row of audio, all rows alike. A hypothesis that ends leaves its lane idle; only
when a good part of the audio is done, or no column is free, do the lanes of the rest close ranks, because
that copies the cache. Then others may come in, too.
"""

import torch
from torch import Tensor

from lora_whisper.model.cache import KVCache
from lora_whisper.model.routing import Routing

MOST_IDLE = 0.25
"""Share of the rows of audio that may be done before the others close ranks."""


class Lanes:
    """The lanes of a batch.

    Attributes:
        cache: keys and values, B rows of audio with W lanes each.
        routing: adapters of each row of audio.
    """

    def __init__(self, cache: KVCache, routing: Routing | None, device: torch.device) -> None:
        self.cache, self.routing = cache, routing
        self._live = torch.arange(
            cache.n_audio, device=device
        )  # lane of each hypothesis, in the order of the search
        self._all_live = True

    def live(self, hidden: Tensor) -> Tensor:
        """What the lanes (B·W, D) computed for the living hypotheses, (R, D)."""
        return hidden if self._all_live else hidden.index_select(0, self._live)

    def advance(self, rows: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """What each lane goes on with, after hypotheses went on, multiplied and ended.

        Args:
            rows: which of the living hypotheses each one continues, int64 (R',), in the order of the audio;
                None when all go on as they are.
            tokens: the next token of each, int64 (R',).

        Returns:
            The next token of each lane, int64 (B·W, 1), and whose past each continues, (B·W,); None for its
            own.
        """
        sources = None if rows is None else self._move(self._live.index_select(0, rows))
        if self._all_live:
            return tokens.unsqueeze(1), sources
        spread = tokens.new_zeros(self.cache.n_audio * self.cache.width)
        spread[self._live] = tokens
        return spread.unsqueeze(1), sources

    def admit(self, cache: KVCache, routing: Routing | None) -> tuple[Tensor, Tensor]:
        """Take in rows of audio with one hypothesis each; rows of one adapter become neighbours.

        Args:
            cache: theirs.
            routing: theirs.

        Returns:
            The new order of the audio, places among the rows of audio that live and the new ones behind them,
            int64 (B',); and that of the hypotheses, likewise, (R',).
        """
        n_new = cache.n_audio
        self._close_ranks()
        n_old, width = self.cache.n_audio, self.cache.width
        order = torch.arange(n_old + n_new, device=self._live.device)
        if self.routing is not None or routing is not None:
            ours = self.routing or Routing.bare(n_old, order.device)
            self.routing = ours.joined(routing or Routing.bare(n_new, order.device))
            order = self.routing.by_route()
            self.routing = self.routing.index_select(order)
        self.cache.admit(cache, order)
        place = order.argsort()
        first = torch.arange(n_old, n_old + n_new, device=order.device) * width
        lanes = torch.cat([self._live, first])
        lanes = place[lanes // width] * width + lanes % width
        hypotheses = lanes.argsort()
        self._live = lanes[hypotheses]
        self._all_live = len(self._live) == self.cache.n_audio * width
        return order, hypotheses

    def make_room(self) -> None:
        """Move all tokens to the front if no column is free, without audio that is done: it may be oldest."""
        if self.cache.length == self.cache.capacity:
            self._close_ranks()
            self.cache.forget_gaps()

    def _close_ranks(self) -> None:
        """Give up the lanes of audio that is done."""
        width = self.cache.width
        alive, audio = (self._live // width).unique_consecutive(return_inverse=True)
        if len(alive) < self.cache.n_audio:
            ranks = torch.arange(width, device=alive.device)
            self.cache.index_select((alive.unsqueeze(1) * width + ranks).flatten(), width)
            self.routing = None if self.routing is None else self.routing.index_select(alive)
            self._live = audio * width + self._live % width
            self._all_live = len(self._live) == self.cache.n_audio * width

    def _move(self, sources: Tensor) -> Tensor | None:
        """Put hypotheses into lanes of their own, given the lanes (R',) that they continue.

        Returns:
            The lanes whose past is still to be moved into each lane, (B·W,); None if nothing is.
        """
        cache = self.cache
        audio = sources // cache.width
        alive, counts = audio.unique_consecutive(return_counts=True)
        rank = torch.arange(len(sources), device=sources.device) - (
            counts.cumsum(0) - counts
        ).repeat_interleave(counts)
        width = max(cache.width, int(counts.max()))
        if width > cache.width or len(alive) < (1 - MOST_IDLE) * cache.n_audio:
            width = int(counts.max())
            place = torch.arange(len(alive), device=sources.device).repeat_interleave(counts)
            lanes = (alive * cache.width).repeat_interleave(
                width
            )  # idle lanes repeat any past of their audio
            self._live = place * width + rank
            lanes[self._live] = sources
            cache.index_select(lanes, width)
            if self.routing is not None and len(alive) < len(self.routing.adapter_ids):
                self.routing = self.routing.index_select(alive)
            moving = None
        else:
            self._live = audio * width + rank
            moving = torch.arange(cache.n_audio * width, device=sources.device) if width > 1 else None
            if moving is not None:
                moving[self._live] = sources
        self._all_live = len(self._live) == cache.n_audio * cache.width
        return moving
