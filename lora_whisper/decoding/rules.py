"""What may be said next: rules that take tokens out of the scores, given what has been said.

A rule is a pure function of the scores (R, V), changed in place, of the tokens so far (R, L), which end in
the last column and have `NOT_YET` in front of their beginning, and of the rows that have said nothing, int64
(n,), None if there are none.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.tokenizer import N_TIMESTAMPS, Tokenizer

Rule = Callable[[Tensor, Tensor, Tensor | None], None]
NOT_YET = -1
"""Stands before the first token of a row that is shorter than others."""
LONG_STRETCH = 16
"""Tokens in a row that are taken out at once."""


def suppression(backbone: Backbone, tokens: Sequence[int], timestamps: bool) -> Rule:
    """Special tokens but the end and, if wanted, timestamps are out, and so are `tokens`.

    What the backbone suppresses is out too: some tokens always, others as the first one only.
    """
    tokenizer = backbone.tokenizer
    always = torch.zeros(backbone.model.dims.n_vocab, dtype=torch.bool)
    always[tokenizer.eot + 1 :] = True  # in Whisper's vocabularies all of them come after it
    if timestamps:
        always[tokenizer.timestamp_begin : tokenizer.timestamp_begin + N_TIMESTAMPS] = False
    always[list(tokens)] = True
    always[[token for token in backbone.suppress_tokens if token != tokenizer.eot]] = True
    first = torch.zeros_like(always)
    first[list(backbone.begin_suppress_tokens)] = True
    fill_always, fill_first = (_filling(mask.to(backbone.model.device)) for mask in (always, first & ~always))

    def rule(scores: Tensor, _: Tensor, fresh: Tensor | None) -> None:
        fill_always(scores)
        if fresh is not None:
            firsts = scores[fresh]
            fill_first(firsts)
            scores[fresh] = firsts

    return rule


def _filling(out: Tensor) -> Callable[[Tensor], None]:
    """What takes tokens, bool (V,), out of scores (R, V): long stretches at once, the others one by one.

    A mask would read and write all scores.
    """
    tokens = out.nonzero().squeeze(1)
    bounds = ((tokens.diff() > 1).nonzero().squeeze(1) + 1).tolist()
    stretches = [part for part in tokens.tensor_split(bounds) if len(part) >= LONG_STRETCH]
    slices = [slice(int(part[0]), int(part[-1]) + 1) for part in stretches]
    single = tokens[torch.isin(tokens, torch.cat(stretches), invert=True)] if stretches else tokens

    def fill(scores: Tensor) -> None:
        for stretch in slices:
            scores[:, stretch] = -torch.inf
        scores.index_fill_(1, single, -torch.inf)

    return fill


def timestamp_pairs(tokenizer: Tokenizer, latest_first_s: float) -> Rule:
    """Times as Whisper writes them: one before each segment and one after it, never going back.

    The first token is a time, at most `latest_first_s`; and where all times together are more probable than
    any token of text, a time it is.
    """
    begin, eot = tokenizer.timestamp_begin, tokenizer.eot
    latest = tokenizer.timestamp(latest_first_s)

    def rule(scores: Tensor, said: Tensor, fresh: Tensor | None) -> None:
        if fresh is not None:
            firsts = torch.full_like(scores[:1], -torch.inf)
            firsts[:, begin : latest + 1] = 0
            scores[fresh] += firsts
            if len(fresh) == len(scores):
                return
        is_time = said >= begin
        after_time = is_time[:, -1]
        before = torch.ones_like(after_time)
        if said.shape[1] > 1:
            before = is_time[:, -2] | (said[:, -2] == NOT_YET)
        scores[:, begin:].masked_fill_((after_time & before).unsqueeze(1), -torch.inf)  # text must follow
        scores[:, :eot].masked_fill_((after_time & ~before).unsqueeze(1), -torch.inf)  # a segment just ended
        last = torch.where(is_time, said, begin - 1).amax(1)
        earliest = torch.where(after_time & ~before, last, last + 1)  # the next may begin where it ended
        places = torch.arange(scores.shape[1], device=scores.device)
        passed = (places >= begin) & (places < earliest.unsqueeze(1))
        scores.masked_fill_(passed, -torch.inf)
        logprobs = scores.float().log_softmax(1)
        times_win = logprobs[:, begin:].logsumexp(1) > logprobs[:, :begin].amax(1)
        scores[:, :begin].masked_fill_(times_win.unsqueeze(1), -torch.inf)

    return rule
