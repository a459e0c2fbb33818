"""How the next token is chosen: the most probable one, one drawn at random, or several kept side by side.

Rows of a batch are independent: what is chosen for one depends neither on the others nor on their number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.decoding.most_probable import most_probable


@dataclass(frozen=True)
class Hypothesis:
    """Tokens without their end, and the log-probability of both together."""

    tokens: tuple[int, ...]
    logprob: float


class Search(Protocol):
    """Chooses tokens for the hypotheses that are being decoded, row by row of the audio.

    Rows come in groups, are numbered as they come, and leave when they are done.
    """

    def __len__(self) -> int:
        """Rows that are not done."""

    def admit(self, n_rows: int, order: Tensor) -> None:
        """So many rows begin, with one hypothesis each.

        Args:
            n_rows: how many.
            order: new order of all: places among the rows that are not done, followed by the new ones, int64.
        """

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """Hypotheses to go on with, int64 (R',), None for all of them, and the next token of each, (R',).

        Args:
            scores: of the next token, (R, V), before the softmax; may be overwritten.
        """

    def take(self) -> list[tuple[int, Hypothesis]]:
        """Number and best hypothesis of each row that is done and was not taken yet."""


class Greedy:
    """Takes the most probable token; a row leaves with its end of text, or at the limit.

    Args:
        max_tokens: the limit, the end of text included.
        eot: end of text.
        device: of the scores.
        late: hear of the end of a row one step later, and let it have one more token that does not count: so
            a GPU begins with the next step before anybody has to know how this one ended. None: on a GPU.
    """

    def __init__(self, max_tokens: int, eot: int, device: torch.device, late: bool | None = None) -> None:
        self._eot, self._limit = eot, max_tokens
        self._late = device.type == "cuda" if late is None else late
        self._n_rows = 0
        self._rows = torch.empty(0, dtype=torch.int64, device=device)  # their numbers
        self._said = self._rows  # how many tokens each has
        self._tokens = torch.empty(0, max_tokens + 1, dtype=torch.int64, device=device)
        self._logprobs = torch.empty(0, device=device)
        self._goes_on = torch.empty(0, dtype=torch.bool, device=device)
        self._told = _Told(self._goes_on)
        self._done: list[tuple[int, Hypothesis]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def admit(self, n_rows: int, order: Tensor) -> None:
        """See `Search`."""
        fresh = torch.arange(self._n_rows, self._n_rows + n_rows, device=order.device)
        self._n_rows += n_rows
        self._rows = torch.cat([self._rows, fresh])[order]
        self._said = F.pad(self._said, (0, n_rows))[order]
        self._tokens = F.pad(self._tokens, (0, 0, 0, n_rows), value=self._eot)[order]
        self._logprobs = F.pad(self._logprobs, (0, n_rows))[order]
        self._goes_on = F.pad(self._goes_on, (0, n_rows), value=True)[order]
        self._told = _Told(self._goes_on)

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """See `Search`."""
        best, tokens = (each.squeeze(1) for each in most_probable(scores, 1))
        self._tokens.scatter_(1, self._said.unsqueeze(1), tokens.unsqueeze(1))
        self._logprobs += best.where(self._goes_on, 0.0)
        self._said += self._goes_on
        told = self._told
        self._goes_on = self._goes_on & (tokens != self._eot) & (self._said < self._limit)
        self._told = _Told(self._goes_on)
        goes_on = (told if self._late else self._told).read()
        if all(goes_on):
            return None, tokens
        alive, gone = (
            torch.tensor([row for row, one in enumerate(goes_on) if one == wanted], device=tokens.device)
            for wanted in (True, False)
        )
        self._leave(gone.long())
        alive = alive.long()
        self._rows, self._said = self._rows[alive], self._said[alive]
        self._tokens, self._logprobs = self._tokens[alive], self._logprobs[alive]
        self._goes_on = self._goes_on[alive]
        self._told = _Told(self._goes_on)
        return alive, tokens[alive]

    def _leave(self, gone: Tensor) -> None:
        columns = (self._rows, self._tokens, self._said, self._logprobs)
        for number, tokens, said, logprob in zip(*(one[gone].tolist() for one in columns), strict=True):
            length = said - (tokens[said - 1] == self._eot)
            self._done.append((number, Hypothesis(tuple(tokens[:length]), logprob)))

    def take(self) -> list[tuple[int, Hypothesis]]:
        """See `Search`."""
        done, self._done = self._done, []
        return done


class _Told:
    """What a device tells of flags, (n,), when it comes to them: to ask does not stop it."""

    def __init__(self, flags: Tensor) -> None:
        self._flags, self._there = flags, None
        if flags.device.type == "cuda":
            self._flags = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
            self._flags.copy_(flags, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record(torch.cuda.current_stream(flags.device))  # another GPU may be the current one

    def read(self) -> list[bool]:
        """The flags."""
        if self._there is not None:
            self._there.synchronize()
        flags: list[bool] = self._flags.tolist()
        return flags


@dataclass
class _Candidates:
    """What is known of one row of the audio: live hypotheses, in their order, and finished ones."""

    number: int
    live: list[Hypothesis]
    finished: list[Hypothesis]

    def longest(self) -> int:
        """Tokens of the live hypotheses, all of which have equally many."""
        return len(self.live[0].tokens) if self.live else 0

    def best(self, length_penalty: float | None, among_all: bool = False) -> Hypothesis:
        """The highest ranking of the finished ones; of the live ones, too, if none is or if all count."""
        some = [*self.finished, *self.live] if among_all or not self.finished else self.finished
        return max(some, key=lambda one: ranking(one, length_penalty))


class _Several:
    """What is common to searches with several hypotheses a row."""

    def __init__(self, max_tokens: int, length_penalty: float | None) -> None:
        self._limit, self._length_penalty = max_tokens, length_penalty
        self._n_rows = 0
        self._rows: list[_Candidates] = []
        self._done: list[tuple[int, Hypothesis]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def _admit(self, fresh: list[_Candidates], order: Tensor) -> None:
        self._n_rows += len(fresh)
        every = [*self._rows, *fresh]
        self._rows = [every[place] for place in order.tolist()]

    def _part(self, done: Callable[[_Candidates], bool], among_all: bool) -> list[bool]:
        """Let rows go that are done or at the limit; for each row whether it stays."""
        stays = [bool(one.live) and one.longest() < self._limit and not done(one) for one in self._rows]
        for one, keep in zip(self._rows, stays, strict=True):
            if not keep:
                self._done.append((one.number, one.best(self._length_penalty, among_all)))
        self._rows = [one for one, keep in zip(self._rows, stays, strict=True) if keep]
        return stays

    def take(self) -> list[tuple[int, Hypothesis]]:
        """See `Search`."""
        done, self._done = self._done, []
        return done


class Beam(_Several):
    """Keeps the `beams` most probable hypotheses of each row until enough of them have ended.

    Args:
        beams: how many are kept.
        max_tokens: of a hypothesis, its end included.
        eot: end of text.
        patience: a row is done with `beams` times this many finished hypotheses (Kasai et al. 2022).
        length_penalty: see `ranking`.
    """

    def __init__(
        self,
        beams: int,
        max_tokens: int,
        eot: int,
        patience: float = 1.0,
        length_penalty: float | None = None,
    ) -> None:
        super().__init__(max_tokens, length_penalty)
        self._beams, self._eot = beams, eot
        self._enough = max(1, round(beams * patience))

    def admit(self, n_rows: int, order: Tensor) -> None:
        """See `Search`."""
        numbers = range(self._n_rows, self._n_rows + n_rows)
        self._admit([_Candidates(number, [Hypothesis((), 0.0)], []) for number in numbers], order)

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """See `Search`."""
        width = min(self._beams + 1, scores.shape[1])
        values, tokens = (each.tolist() for each in most_probable(scores, width))
        chosen: list[list[tuple[int, int]]] = []
        first = 0
        for one in self._rows:
            last = first + len(one.live)
            kept = self._advance(one, values[first:last], tokens[first:last])
            chosen.append([(first + row, token) for row, token in kept])
            first = last
        stays = self._part(lambda one: len(one.finished) >= self._enough, among_all=False)
        going = [pair for kept, keep in zip(chosen, stays, strict=True) if keep for pair in kept]
        rows, following = zip(*going, strict=True) if going else ((), ())
        return (
            torch.tensor(rows, device=scores.device, dtype=torch.int64),
            torch.tensor(following, device=scores.device, dtype=torch.int64),
        )

    def _advance(
        self, one: _Candidates, values: Sequence[Sequence[float]], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[int, int]]:
        """Extend the live hypotheses of a row; which of them go on, and with which token."""
        extended = [
            (one.live[row].logprob + value, row, token)
            for row in range(len(one.live))
            for value, token in zip(values[row], tokens[row], strict=True)
            if value > -torch.inf
        ]
        extended.sort(key=lambda item: -item[0])
        kept: list[tuple[int, int]] = []
        live: list[Hypothesis] = []
        for logprob, row, token in extended:
            if token == self._eot:
                one.finished.append(Hypothesis(one.live[row].tokens, logprob))
            else:
                kept.append((row, token))
                live.append(Hypothesis((*one.live[row].tokens, token), logprob))
            if len(kept) == self._beams:
                break
        if not live:
            one.finished = one.finished or one.live
        one.live = live
        return kept


class Sampling(_Several):
    """Draws each token at random, several times for each row, and keeps the most probable outcome.

    Args:
        seed: of each row: the same seed draws the same, whatever stands beside it.
        draws: how many outcomes of a row compete.
        temperature: above zero; the higher, the more random.
        max_tokens: of an outcome, its end included.
        eot: end of text.
        length_penalty: see `ranking`.
    """

    def __init__(
        self,
        seed: int,
        draws: int,
        temperature: float,
        max_tokens: int,
        eot: int,
        length_penalty: float | None,
    ) -> None:
        super().__init__(max_tokens, length_penalty)
        self._seed, self._draws, self._temperature, self._eot = seed, draws, temperature, eot
        self._random: dict[int, torch.Generator] = {}

    def admit(self, n_rows: int, order: Tensor) -> None:
        """See `Search`."""
        numbers = range(self._n_rows, self._n_rows + n_rows)
        self._random |= {number: torch.Generator().manual_seed(self._seed) for number in numbers}
        fresh = [_Candidates(number, [Hypothesis((), 0.0)] * self._draws, []) for number in numbers]
        self._admit(fresh, order)

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """See `Search`."""
        sources = self._sources().to(scores.device)
        logprobs = scores.float().log_softmax(1)[sources]
        noise = torch.cat([self._noise(one, logprobs.shape[1]) for one in self._rows])
        drawn = (logprobs / self._temperature + noise.to(logprobs.device)).argmax(1)  # Gumbel's trick
        values = logprobs.gather(1, drawn.unsqueeze(1)).squeeze(1).tolist()
        kept = torch.tensor(self._extend(drawn.tolist(), values), device=logprobs.device, dtype=torch.int64)
        return sources[kept], drawn[kept]

    def _sources(self) -> Tensor:
        """Which scores each hypothesis draws from, int64 (R,): those of a row that begins share one."""
        steps = [int(place == 0 or one.longest() > 0) for one in self._rows for place in range(len(one.live))]
        return torch.tensor(steps).cumsum(0) - 1

    def _noise(self, one: _Candidates, n_vocab: int) -> Tensor:
        """Gumbel noise for the live hypotheses of one row, (n, V)."""
        uniform = torch.rand((len(one.live), n_vocab), generator=self._random[one.number])
        return -(-uniform.clamp_(1e-20, 1 - 1e-7).log()).log()

    def _extend(self, tokens: Sequence[int], values: Sequence[float]) -> list[int]:
        """Give each live hypothesis its token; those that go on."""
        kept: list[list[int]] = []
        place = 0
        for one in self._rows:
            live: list[Hypothesis] = []
            kept.append([])
            for hypothesis in one.live:
                token, logprob = tokens[place], hypothesis.logprob + values[place]
                if token == self._eot:
                    one.finished.append(Hypothesis(hypothesis.tokens, logprob))
                else:
                    live.append(Hypothesis((*hypothesis.tokens, token), logprob))
                    kept[-1].append(place)
                place += 1
            one.live = live
        stays = self._part(lambda _: False, among_all=True)
        return [place for places, keep in zip(kept, stays, strict=True) if keep for place in places]


def ranking(one: Hypothesis, length_penalty: float | None) -> float:
    """By what hypotheses of different lengths are compared; higher is better.

    The log-probability by length; with a penalty α by ((5 + length) / 6)^α instead (Wu et al. 2016,
    arXiv 1609.08144).
    """
    length = max(1, len(one.tokens))
    divisor = length if length_penalty is None else ((5 + length) / 6) ** length_penalty
    return one.logprob / divisor
