"""How the next token is chosen: the most probable one, one drawn at random, or several kept side by side.

Rows of a batch are independent: what is chosen for one depends neither on the others nor on their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lora_whisper.decoding.most_probable import most_probable


@dataclass(frozen=True)
class Hypothesis:
    """Tokens without their end, and the log-probability of both together."""

    tokens: tuple[int, ...]
    logprob: float


class Search(Protocol):
    """Chooses tokens for the R rows that are still being decoded; at the first step these are the batch."""

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows to go on with, int64 (R',), None for all of them, and the next token of each, (R',).

        Args:
            scores: of the next token, (R, V), before the softmax; may be overwritten.
        """

    def results(self) -> list[Hypothesis]:
        """The best hypothesis of each row of the batch, finished or not."""


class Greedy:
    """Takes the most probable token; a row leaves with its end of text."""

    def __init__(self, n_rows: int, max_tokens: int, eot: int, device: torch.device) -> None:
        self._eot = eot
        self._step = 0
        self._rows = torch.arange(n_rows, device=device)  # of the batch, still being decoded
        self._tokens = torch.full((n_rows, max_tokens), eot, device=device)
        self._logprobs = torch.zeros(n_rows, device=device)

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows to go on with, int64 (R',), None for all of them, and the next token of each, (R',)."""
        best, tokens = (each.squeeze(1) for each in most_probable(scores, 1))
        self._tokens[self._rows, self._step] = tokens
        self._logprobs[self._rows] += best
        self._step += 1
        alive = (tokens != self._eot).nonzero().squeeze(1)
        if len(alive) == len(tokens):
            return None, tokens
        self._rows = self._rows[alive]
        return alive, tokens[alive]

    def results(self) -> list[Hypothesis]:
        """Tokens of each row of the batch up to its end of text."""
        lengths = (self._tokens != self._eot).sum(dim=1).tolist()
        rows = zip(self._tokens.tolist(), lengths, self._logprobs.tolist(), strict=True)
        return [Hypothesis(tuple(tokens[:n]), logprob) for tokens, n, logprob in rows]


@dataclass
class _Candidates:
    """What is known of one row of the batch: live hypotheses, in their order, and finished ones."""

    live: list[Hypothesis]
    finished: list[Hypothesis]

    def best(self, length_penalty: float | None) -> Hypothesis:
        """The highest ranking of the finished ones; of the live ones if none is."""
        return max(self.finished or self.live, key=lambda one: ranking(one, length_penalty))


class Beam:
    """Keeps the `beams` most probable hypotheses of each row until enough of them have ended.

    Args:
        n_rows: B.
        beams: how many are kept.
        eot: end of text.
        patience: a row is done with `beams` times this many finished hypotheses (Kasai et al. 2022).
        length_penalty: see `ranking`.
    """

    def __init__(
        self, n_rows: int, beams: int, eot: int, patience: float = 1.0, length_penalty: float | None = None
    ) -> None:
        self._beams, self._eot, self._length_penalty = beams, eot, length_penalty
        self._enough = max(1, round(beams * patience))
        self._all = [_Candidates([Hypothesis((), 0.0)], []) for _ in range(n_rows)]

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows to go on with, int64 (R',), and the next token of each, (R',)."""
        width = min(self._beams + 1, scores.shape[1])
        values, tokens = (each.tolist() for each in most_probable(scores, width))
        rows: list[int] = []
        chosen: list[int] = []
        first = 0
        for one in self._all:
            last = first + len(one.live)
            for row, token in self._advance(one, values[first:last], tokens[first:last]):
                rows.append(first + row)
                chosen.append(token)
            first = last
        return torch.tensor(rows, device=scores.device, dtype=torch.int64), torch.tensor(
            chosen, device=scores.device, dtype=torch.int64
        )

    def results(self) -> list[Hypothesis]:
        """The best hypothesis of each row of the batch."""
        return [one.best(self._length_penalty) for one in self._all]

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
        if len(one.finished) >= self._enough or not live:
            one.finished = one.finished or one.live
            kept, live = [], []
        one.live = live
        return kept


class Sampling:
    """Draws each token at random, several times for each row, and keeps the most probable outcome.

    Args:
        seeds: of each row of the batch: the same seed draws the same, whatever stands beside it.
        draws: how many outcomes of a row compete.
        temperature: above zero; the higher, the more random.
        eot: end of text.
        length_penalty: see `ranking`.
    """

    def __init__(
        self, seeds: Sequence[int], draws: int, temperature: float, eot: int, length_penalty: float | None
    ) -> None:
        self._temperature, self._eot, self._length_penalty = temperature, eot, length_penalty
        self._draws = draws
        self._random = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._all = [_Candidates([Hypothesis((), 0.0)] * draws, []) for _ in seeds]
        self._first = True

    def step(self, scores: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows to go on with, int64 (R',), and the next token of each, (R',)."""
        logprobs = scores.float().log_softmax(1)
        if self._first:
            logprobs = logprobs.repeat_interleave(self._draws, 0)
        noise = torch.cat([self._noise(i, logprobs.shape[1]) for i in range(len(self._all))])
        drawn = (logprobs / self._temperature + noise.to(logprobs.device)).argmax(1)  # Gumbel's trick
        values = logprobs.gather(1, drawn.unsqueeze(1)).squeeze(1).tolist()
        kept = self._extend(drawn.tolist(), values)
        rows = torch.tensor(kept, device=logprobs.device, dtype=torch.int64)
        tokens = drawn[rows]
        if self._first:
            rows = rows // self._draws
            self._first = False
        return rows, tokens

    def results(self) -> list[Hypothesis]:
        """The most probable outcome of each row of the batch."""
        return [
            max([*one.finished, *one.live], key=lambda each: ranking(each, self._length_penalty))
            for one in self._all
        ]

    def _noise(self, index: int, n_vocab: int) -> Tensor:
        """Gumbel noise for the live rows of one row of the batch, (n, V)."""
        shape = len(self._all[index].live), n_vocab
        uniform = torch.rand(shape, generator=self._random[index]).clamp_(1e-20, 1 - 1e-7)
        return -(-uniform.log()).log()

    def _extend(self, tokens: Sequence[int], values: Sequence[float]) -> list[int]:
        """Give each live hypothesis its token; the rows of those that go on."""
        kept: list[int] = []
        row = 0
        for one in self._all:
            live: list[Hypothesis] = []
            for hypothesis in one.live:
                token, logprob = tokens[row], hypothesis.logprob + values[row]
                if token == self._eot:
                    one.finished.append(Hypothesis(hypothesis.tokens, logprob))
                else:
                    live.append(Hypothesis((*hypothesis.tokens, token), logprob))
                    kept.append(row)
                row += 1
            one.live = live
        return kept


def ranking(one: Hypothesis, length_penalty: float | None) -> float:
    """By what hypotheses of different lengths are compared; higher is better.

    The log-probability by length; with a penalty α by ((5 + length) / 6)^α instead (Wu et al. 2016,
    arXiv 1609.08144).
    """
    length = max(1, len(one.tokens))
    divisor = length if length_penalty is None else ((5 + length) / 6) ** length_penalty
    return one.logprob / divisor
