"""A batch in progress: rows that are done leave, and others come in.

    windows → encoder → rows of the decoder → scores → rules (what may be said) → strategy (what is chosen)
            → rows that go on → scores …

Neither the rules nor the strategy know the model, and the loop knows neither of them by name.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from lora_whisper.decoding.lanes import Lanes
from lora_whisper.decoding.rules import NOT_YET, Rule
from lora_whisper.decoding.strategies import Hypothesis, Search
from lora_whisper.model.cache import Heard, KVCache
from lora_whisper.model.replay import Decoder
from lora_whisper.model.routing import Routing
from lora_whisper.model.whisper import Whisper

GAP = 32
"""Columns of the cache beyond those that one row needs: so many steps pass before all rows are moved to the
front, when rows that came later go on while the first ones are gone."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of audio that are encoded together.

    Attributes:
        numbers: what the caller calls them, one for each.
        mel: log-mel frames, (B, M, T).
        start: tokens that the decoder starts with, int64 (B, L); L is the same in all windows of a batch.
        n_positions: real encoder positions of each row, int64 (B,); None when every row fills the batch.
        routing: adapters of each row; None for the bare backbone.
    """

    numbers: Sequence[int]
    mel: Tensor
    start: Tensor
    n_positions: Tensor | None = None
    routing: Routing | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def size(self) -> int:
        """Encoder positions, padding included."""
        return len(self) * self.mel.shape[2] // 2


@dataclass(frozen=True)
class Found:
    """What was found in the window of this number: the best hypothesis, and how probable silence was."""

    number: int
    hypothesis: Hypothesis
    no_speech: float


@dataclass(frozen=True)
class Room:
    """What a batch has room for: rows, and encoder positions of all of them together."""

    rows: int
    positions: int


class RunningBatch:
    """Rows of audio that are decoded side by side, at whatever token each of them is.

    Args:
        model: on the device where the work is to be done.
        search: chooses tokens.
        rules: take tokens out of the scores.
        limit: most tokens of a row.
        sot: start of the transcript, in the start of each row.
        no_speech: the token for silence.
    """

    def __init__(
        self, model: Whisper, search: Search, rules: Sequence[Rule], limit: int, sot: int, no_speech: int
    ) -> None:
        self._model, self._search, self._rules, self._limit = model, search, rules, limit
        self._sot, self._no_speech = sot, no_speech
        self._decoder = Decoder.fastest(model)
        self._lanes: Lanes | None = None
        self._known: list[tuple[int, float]] = []  # number and probability of silence of each row ever here
        self._hidden = torch.empty(0)
        self._said = torch.empty(0, 0, dtype=torch.int64)
        self._fresh: Tensor | None = None

    def __len__(self) -> int:
        """Rows that are not done."""
        return len(self._search)

    def has_room(self, windows: Sequence[Windows], room: Room) -> bool:
        """Whether these may come in, or at least their first ones into an empty batch."""
        if not len(self) and len(windows) == 1:
            return True
        positions = self._lanes.cache.n_positions if self._lanes else 0
        n_rows = len(self) + sum(map(len, windows))
        return n_rows <= room.rows and positions + sum(one.size for one in windows) <= room.positions

    @torch.inference_mode()
    def admit(self, windows: Sequence[Windows]) -> None:
        """Encode windows and let them in."""
        model, n_new = self._model, sum(map(len, windows))
        start, numbers, heard, routing = _together(model, windows)
        cache = KVCache(heard, capacity=start.shape[1] + self._limit + GAP)
        hidden = model.decode(start, cache, routing)
        at_sot = int((start[0] == self._sot).nonzero()[-1])
        silence = model.logits(hidden[:, at_sot]).float().softmax(1)[:, self._no_speech]
        self._known += zip(numbers, silence.tolist(), strict=True)

        order = hypotheses = torch.arange(n_new, device=model.device)
        coming = torch.ones_like(order, dtype=torch.bool)
        if self._lanes is None:
            self._lanes = Lanes(cache, routing, model.device)
            self._hidden, self._said, self._fresh = hidden[:, -1], start[:, :0], coming
        else:
            order, hypotheses = self._lanes.admit(cache, routing)
            waiting = self._said.new_full((n_new, self._said.shape[1]), NOT_YET)
            here = coming.new_zeros(len(self._said)) if self._fresh is None else self._fresh
            self._hidden = torch.cat([self._hidden, hidden[:, -1]])[hypotheses]
            self._said = torch.cat([self._said, waiting])[hypotheses]
            self._fresh = torch.cat([here, coming])[hypotheses]
        self._search.admit(n_new, order)

    @torch.inference_mode()
    def step(self) -> list[Found]:
        """One more token for every row; those that are done."""
        scores = self._model.logits(self._hidden)
        fresh = None if self._fresh is None else self._fresh.nonzero().squeeze(1)
        for rule in self._rules:
            rule(scores, self._said, fresh)
        rows, tokens = self._search.step(scores)
        self._fresh = None
        if len(tokens) and self._lanes:
            said = self._said if rows is None else self._said.index_select(0, rows)
            self._said = torch.cat([said, tokens.unsqueeze(1)], 1)[:, -self._limit :]
            self._lanes.make_room()
            following, sources = self._lanes.advance(rows, tokens)
            hidden = self._decoder.next(following, self._lanes.cache, self._lanes.routing, sources)
            self._hidden = self._lanes.live(hidden)
        else:
            self._lanes = None
            self._decoder.forget()
        done = self._search.take()
        return [Found(self._known[row][0], one, self._known[row][1]) for row, one in done]


def decode_windows(batch: RunningBatch, windows: Iterable[Windows], room: Room) -> Iterator[Found]:
    """What was found in each window, as soon as it is; windows are made when there is room for them."""
    rest = iter(windows)
    waiting = next(rest, None)
    while waiting is not None or len(batch):
        coming: list[Windows] = []
        while waiting is not None and batch.has_room([*coming, waiting], room):
            coming.append(waiting)
            waiting = next(rest, None)
        if coming:
            batch.admit(coming)
        yield from batch.step()


def _together(
    model: Whisper, windows: Sequence[Windows]
) -> tuple[Tensor, list[int], list[Heard], Routing | None]:
    """Start tokens, numbers, encoded audio and routing of all rows; those of one adapter are neighbours."""
    device = model.device
    numbers = [number for one in windows for number in one.numbers]
    order = torch.arange(len(numbers), device=device)
    routing = None
    if any(one.routing is not None for one in windows):
        parts = (one.routing or Routing.bare(len(one), device) for one in windows)
        routing = reduce(Routing.joined, parts)
        order = routing.by_route()
        routing = routing.index_select(order)
    heard = [_heard(model, one) for one in windows]
    if len(windows) > 1 or routing is not None:
        places = order.argsort().split([len(one) for one in windows])
        heard = [one.placed(where) for one, where in zip(heard, places, strict=True)]
    start = torch.cat([one.start for one in windows])[order]
    return start, [numbers[row] for row in order.tolist()], heard, routing


def _heard(model: Whisper, one: Windows) -> Heard:
    """What the decoder needs of the audio of some windows."""
    n_positions = None if one.n_positions is None else one.n_positions.to(model.device)
    audio = model.encode(one.mel.to(model.device), n_positions, one.routing)
    return model.heard(audio, n_positions, one.routing)
