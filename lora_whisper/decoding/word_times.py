"""When each word was said: where the decoder looks while it writes, made monotone by dynamic time warping.

Some attention heads over the audio follow the speech ("alignment heads"). Their weights, one row per token,
make a map on which the cheapest path from the first token at the beginning to the end of text is sought.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_whisper.audio import FRAMES_PER_POSITION, HOP_LENGTH, SAMPLE_RATE
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.routing import Routing

POSITION_S = FRAMES_PER_POSITION * HOP_LENGTH / SAMPLE_RATE
"""Seconds of an encoder position."""

MEDIAN_WIDTH = 7
"""Encoder positions over which a head's weights are smoothed, as Whisper does."""

Matrix = npt.NDArray[np.float64]
Head = tuple[int, int]
"""Decoder layer and number of the head in it."""


@dataclass(frozen=True)
class TimedText:
    """A word with its tokens, its place in the window and the mean probability of its tokens."""

    text: str
    tokens: tuple[int, ...]
    start_s: float
    end_s: float
    probability: float


def word_times(
    backbone: Backbone,
    mel: Tensor,
    languages: Sequence[str],
    texts: Sequence[Sequence[Sequence[int]]],
    *,
    n_positions: Tensor | None = None,
    routing: Routing | None = None,
    spaced: Sequence[bool] | None = None,
) -> list[list[list[TimedText]]]:
    """The words of each piece of each row with their times, in one pass over the whole batch.

    Args:
        backbone: its `alignment_heads` are used; without any, all heads of the upper half of its layers.
        mel: log-mel frames, (B, M, T).
        languages: Whisper's language code of each row.
        texts: tokens of each row's text, without times, in pieces; no word goes from one into the next.
        n_positions: real encoder positions of each row, int64 (B,); None when every row fills the batch.
        routing: adapters of each row; None for the bare backbone.
        spaced: whether each row's words have spaces between them; else each token is one. None: all have.
    """
    whole = [[token for piece in text for token in piece] for text in texts]
    maps, probabilities = attention_maps(backbone, mel, languages, whole, n_positions, routing)
    heads = backbone.alignment_heads or upper_heads(backbone)
    found = []
    for row, text in enumerate(texts):
        starts = token_starts(np.mean([sharpened(maps[row][head]) for head in heads], axis=0))
        pieces = [split_words(backbone, piece, spaced is None or spaced[row]) for piece in text]
        places = _places([word for words in pieces for word in words], starts, probabilities[row])
        found.append([[_timed(backbone, *next(places)) for _ in words] for words in pieces])
    return found


def upper_heads(backbone: Backbone) -> tuple[Head, ...]:
    """All heads of the upper half of the decoder's layers."""
    dims = backbone.model.dims
    layers = range(dims.n_text_layer // 2, dims.n_text_layer)
    return tuple((layer, head) for layer in layers for head in range(dims.n_text_head))


@torch.inference_mode()
def attention_maps(
    backbone: Backbone,
    mel: Tensor,
    languages: Sequence[str],
    texts: Sequence[Sequence[int]],
    n_positions: Tensor | None = None,
    routing: Routing | None = None,
) -> tuple[list[dict[Head, Matrix]], list[list[float]]]:
    """Where each head looks for each token of a row and its end, (L + 1, S); the tokens' probabilities."""
    model, tokenizer = backbone.model, backbone.tokenizer
    positions = None if n_positions is None else n_positions.to(model.device)
    starts = [tokenizer.start_sequence(code) for code in languages]
    first, longest = len(starts[0]), max(map(len, texts))
    rows = [
        [*start, *text, *[tokenizer.eot] * (longest - len(text))]
        for start, text in zip(starts, texts, strict=True)
    ]
    audio = model.encode(mel.to(model.device), positions, routing)
    cache = model.new_cache(audio, positions, routing, capacity=first + longest)
    cache.attention = []
    sequence = torch.tensor(rows, device=model.device)
    hidden = model.decode(sequence, cache, routing)
    scores = model.logits(hidden[:, first - 1 : -1]).float().softmax(-1)
    chances = scores.gather(2, sequence[:, first:, None]).squeeze(2).tolist()
    maps: list[dict[Head, Matrix]] = []
    for row, text in enumerate(texts):
        size = audio.shape[1] if positions is None else int(positions[row])
        last = first + len(text)  # position first - 1 writes the first token, position last - 1 the end
        maps.append(
            {
                (layer, head): weights[row, head, first - 1 : last, :size].float().cpu().double().numpy()
                for layer, weights in enumerate(cache.attention)
                for head in range(weights.shape[1])
            }
        )
    return maps, [row[: len(text)] for row, text in zip(chances, texts, strict=True)]


def sharpened(weights: Matrix) -> Matrix:
    """A head's weights (L, S), each position standardised over the tokens and smoothed over the positions."""
    centred = (weights - weights.mean(0)) / np.maximum(weights.std(0), 1e-9)
    half = min(MEDIAN_WIDTH, weights.shape[1]) // 2
    padded = np.pad(centred, ((0, 0), (half, half)), mode="reflect" if weights.shape[1] > half else "edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=1), axis=-1)


def token_starts(map_: Matrix) -> list[float]:
    """Start of each row of a map (L, S) in seconds, along the path that gathers the most of it.

    The path begins at the first row and position, ends at the last ones, and never goes back.
    """
    return [float(position) * POSITION_S for position in _first_positions(-map_)]


def _first_positions(cost: Matrix) -> list[int]:
    """The first column of each row on the cheapest monotone path through the costs (L, S)."""
    n_rows, n_columns = cost.shape
    total = np.full((n_rows + 1, n_columns + 1), np.inf)
    total[0, 0] = 0.0
    move = np.zeros((n_rows + 1, n_columns + 1), dtype=np.int8)
    for diagonal in range(2, n_rows + n_columns + 1):  # its cells depend on the two before only
        rows = np.arange(max(1, diagonal - n_columns), min(n_rows, diagonal - 1) + 1)
        columns = diagonal - rows
        options = np.stack([total[rows - 1, columns - 1], total[rows - 1, columns], total[rows, columns - 1]])
        move[rows, columns] = options.argmin(0)
        total[rows, columns] = cost[rows - 1, columns - 1] + options.min(0)
    first = [0] * n_rows
    row, column = n_rows, n_columns
    while row > 0 and column > 0:
        first[row - 1] = column - 1
        step = move[row, column]
        row, column = row - (step != 2), column - (step != 1)
    return first


def split_words(backbone: Backbone, tokens: Sequence[int], spaced: bool = True) -> list[tuple[int, ...]]:
    """The tokens in words: where one begins with a space; without spaces, wherever whole characters end.

    Punctuation goes with the word before it.
    """
    words: list[list[int]] = []
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = backbone.tokenizer.decode(pending)
        if "\ufffd" in text:  # in the midst of a character
            continue
        begins = text.startswith(" ") if spaced else any(letter.isalnum() for letter in text)
        if begins or not words:
            words.append(pending)
        else:
            words[-1] += pending
        pending = []
    if pending:
        words = [*words[:-1], words[-1] + pending] if words else [pending]
    return [tuple(word) for word in words]


def _places(
    words: Sequence[tuple[int, ...]], starts: Sequence[float], probabilities: Sequence[float]
) -> Iterator[tuple[tuple[int, ...], float, float, float]]:
    """Tokens, start, end and probability of each word: until the next word begins, or the end of text."""
    first = 0
    for word in words:
        last = first + len(word)
        yield word, starts[first], max(starts[first], starts[last]), float(np.mean(probabilities[first:last]))
        first = last


def _timed(
    backbone: Backbone, tokens: tuple[int, ...], start_s: float, end_s: float, probability: float
) -> TimedText:
    return TimedText(backbone.tokenizer.decode(tokens).strip(), tokens, start_s, end_s, probability)
