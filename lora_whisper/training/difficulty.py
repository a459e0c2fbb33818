"""How hard each word is for a backbone, so that it practises what it cannot spell yet."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.audio import FRAMES_PER_SECOND
from lora_whisper.data.batching import IGNORED, Row, collate, plan_batches
from lora_whisper.model.tokenizer import Tokenizer
from lora_whisper.model.whisper import Whisper

_BATCH_S = 120.0


@torch.inference_mode()
def word_losses(model: Whisper, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Mean loss in nats of each word of the rows, in lower case, by language.

    Words are what stands between spaces, without punctuation, whose loss counts all the same.
    """
    tags = {tokenizer.language_token(tag): tag for tag in tokenizer.languages}
    starts = {token for token in range(tokenizer.eot) if tokenizer.decode([token]).startswith(" ")}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for indices in plan_batches([row.mel.shape[1] / FRAMES_PER_SECOND for row in rows], _BATCH_S, 0, 0):
        chosen = [rows[i] for i in indices]
        for row, losses in zip(chosen, _token_losses(model, chosen), strict=True):
            tag = next((tags[token] for token in row.tokens if token in tags), None)
            if tag is None:
                continue
            pairs = [pair for pair in zip(row.tokens[1:], losses, strict=True) if pair[0] < tokenizer.eot]
            for tokens, loss in _words(pairs, starts):
                found[tag][tokenizer.decode(tokens).strip(" ,.").casefold()].append(loss)
    return {tag: {word: fmean(losses) for word, losses in said.items()} for tag, said in found.items()}


def _token_losses(model: Whisper, rows: list[Row]) -> Iterator[list[float]]:
    """Loss of each token of each row but the first; 0 where there is none."""
    batch = collate(rows).to(model.device)
    audio = model.encode(batch.mel, batch.n_positions)
    hidden = model.decode(batch.tokens, model.new_cache(audio, batch.n_positions))
    scores: Tensor = (hidden @ model.decoder.token_embedding.weight.T.to(hidden.dtype)).float()
    losses = F.cross_entropy(scores.transpose(1, 2), batch.labels, ignore_index=IGNORED, reduction="none")
    for row, of_row in zip(rows, losses.tolist(), strict=True):
        yield of_row[: len(row.tokens) - 1]


def _words(pairs: Sequence[tuple[int, float]], starts: set[int]) -> Iterator[tuple[list[int], float]]:
    """Tokens and summed loss of each word, given each token and its loss; `starts` begin a word."""
    tokens: list[int] = []
    loss = 0.0
    for token, of_token in pairs:
        if token in starts and tokens:
            yield tokens, loss
            tokens, loss = [], 0.0
        tokens.append(token)
        loss += of_token
    if tokens:
        yield tokens, loss
