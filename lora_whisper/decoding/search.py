"""From one window of audio to tokens: the encoder once, then one token at a time for the whole batch.

How the next token is chosen is a `Search`. The loop in `decode` knows only its three methods, so that another
strategy is another small class: a beam search returns rows more than once, or in another order, from `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lora_whisper.errors import UsageError
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.routing import Routing


@dataclass(frozen=True)
class DecodingOptions:
    """How a window is decoded.

    Attributes:
        max_tokens: most tokens of a window, its end included; never more than half the decoder's context.
        suppress_tokens: text tokens that are never chosen, beside those that the backbone suppresses.
    """

    max_tokens: int | None = None
    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; it must be at least 1")


GREEDY = DecodingOptions()


@dataclass(frozen=True)
class Decoded:
    """What was heard in one window.

    Attributes:
        tokens: of the text, without start sequence and end.
        text: the tokens as text, stripped.
        avg_logprob: mean log-probability of the tokens and the end of text.
        no_speech_probability: of Whisper's `<|nospeech|>` at the start of the transcript.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_probability: float


@dataclass(frozen=True)
class Hypothesis:
    """Tokens without their end, and the log-probability of both together."""

    tokens: tuple[int, ...]
    logprob: float


class Search(Protocol):
    """Chooses tokens for the R rows that are still being decoded; at the first step these are the batch."""

    def step(self, logprobs: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows to go on with, int64 (R',), None for all of them, and the next token of each, (R',).

        Args:
            logprobs: of the next token, (R, V).
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

    def step(self, logprobs: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows to go on with, int64 (R',), None for all of them, and the next token of each, (R',)."""
        best, tokens = logprobs.max(dim=1)
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


def decode(
    backbone: Backbone,
    mel: Tensor,
    languages: Sequence[str],
    *,
    n_positions: Tensor | None = None,
    routing: Routing | None = None,
    options: DecodingOptions = GREEDY,
) -> list[Decoded]:
    """What was heard in each window of a batch; a row's result does not depend on the others.

    Args:
        backbone: on the device where the work is to be done.
        mel: log-mel frames, (B, M, T).
        languages: Whisper's language code of each row.
        n_positions: real encoder positions of each row, int64 (B,); None when every row fills the batch.
        routing: adapters of each row; None for the bare backbone.
        options: limits and suppressed tokens.

    Raises:
        UnknownLanguage: the backbone has no token for a language.
        UsageError: there is not one language per row.
    """
    if len(languages) != mel.shape[0]:
        raise UsageError(f"{len(languages)} languages for {mel.shape[0]} rows of audio: give one per row")
    if not languages:
        return []
    return _decode(backbone, mel, languages, n_positions, routing, options)


@torch.inference_mode()
def _decode(
    backbone: Backbone,
    mel: Tensor,
    languages: Sequence[str],
    n_positions: Tensor | None,
    routing: Routing | None,
    options: DecodingOptions,
) -> list[Decoded]:
    model, tokenizer = backbone.model, backbone.tokenizer
    device = model.device
    n_positions = None if n_positions is None else n_positions.to(device)
    prompt = torch.tensor([tokenizer.start_sequence(code) for code in languages], device=device)
    limit = max_new_tokens(options, model.dims.n_text_ctx, prompt.shape[1])
    masks = suppressed(backbone, options)

    audio = model.encode(mel.to(device, model.encoder.conv1.weight.dtype), n_positions, routing)
    cache = model.new_cache(audio, n_positions, routing, capacity=prompt.shape[1] + limit)
    hidden = model.decode(prompt, cache, routing)
    no_speech = model.logits(hidden[:, 0]).float().softmax(dim=1)[:, tokenizer.no_speech]

    search: Search = Greedy(len(languages), limit, tokenizer.eot, device)
    for step in range(limit):
        logits = model.logits(hidden[:, -1]).float()
        logits.masked_fill_(masks[min(step, 1)], -torch.inf)
        rows, tokens = search.step(logits.log_softmax(dim=1))
        if not len(tokens) or step == limit - 1:
            break
        if rows is not None:
            cache.index_select(rows)
            routing = None if routing is None else routing.index_select(rows)
        hidden = model.decode(tokens.unsqueeze(1), cache, routing)

    return [
        Decoded(
            one.tokens, tokenizer.decode(one.tokens).strip(), one.logprob / (len(one.tokens) + 1), probability
        )
        for one, probability in zip(search.results(), no_speech.tolist(), strict=True)
    ]


def max_new_tokens(options: DecodingOptions, n_text_ctx: int, n_prompt: int) -> int:
    """How many tokens may follow the start sequence: OpenAI's half of the context, or fewer."""
    limit = min(n_text_ctx // 2, n_text_ctx - n_prompt)
    return limit if options.max_tokens is None else min(limit, options.max_tokens)


def suppressed(backbone: Backbone, options: DecodingOptions) -> Tensor:
    """Tokens that may not be chosen, bool (2, V): as the first token, and as any later one.

    Every special token but the end of text is; in Whisper's vocabularies they all come after it.
    """
    mask = torch.zeros(2, backbone.model.dims.n_vocab, dtype=torch.bool)
    mask[:, backbone.tokenizer.eot + 1 :] = True
    mask[:, list(options.suppress_tokens)] = True
    mask[:, [token for token in backbone.suppress_tokens if token != backbone.tokenizer.eot]] = True
    mask[0, list(backbone.begin_suppress_tokens)] = True
    return mask.to(backbone.model.device)
