"""From windows of audio to text: options, what a decoder starts with, and what comes of it."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_whisper.audio import CHUNK_LENGTH_S, FRAMES_PER_POSITION, FRAMES_PER_SECOND
from lora_whisper.decoding.clips import MAX_ROWS, plan
from lora_whisper.decoding.rules import Rule, suppression, timestamp_pairs
from lora_whisper.decoding.running import Found, Room, RunningBatch, Windows, decode_windows
from lora_whisper.decoding.strategies import Beam, Greedy, Sampling, Search
from lora_whisper.decoding.transcript import Segment
from lora_whisper.errors import UsageError
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.routing import Routing

KEYS_BYTES, KEYS_SHARE = 2**30, 0.25
"""Memory for the keys and values of the audio of a batch: the more rows the decoder has, the faster it is.
On a GPU, which has memory of its own, it is a share of what is free."""

ENCODED_S = 300.0
"""Seconds of audio, padding included, that go through the encoder at once, which is fastest with some
thousand positions; the decoder wants as many rows as possible."""

COMING_ROWS = MAX_ROWS // 2
"""Most rows that go through the encoder at once: when so many are done, others take their places."""


@dataclass(frozen=True)
class DecodingOptions:
    """How a window is decoded.

    Attributes:
        max_tokens: most tokens of a window, its end included; never more than half the decoder's context.
        suppress_tokens: text tokens that are never chosen, beside those that the backbone suppresses.
        beams: hypotheses that are kept side by side; 1 is greedy.
        patience: a beam search goes on until `beams` times this many have ended.
        length_penalty: exponent α by which hypotheses of different lengths are compared; None: by the mean
            log-probability of a token.
        temperature: 0 takes the most probable tokens, by greedy or beam search; above 0 they are drawn.
        draws: outcomes that compete where tokens are drawn.
        timestamps: whether the text comes with the times of its segments.
        latest_first_s: latest time of the first segment.
        seed: of what is drawn.
    """

    max_tokens: int | None = None
    suppress_tokens: tuple[int, ...] = ()
    beams: int = 1
    patience: float = 1.0
    length_penalty: float | None = None
    temperature: float = 0.0
    draws: int = 5
    timestamps: bool = False
    latest_first_s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if self.beams < 1 or self.draws < 1 or self.patience <= 0:
            raise UsageError("beams and draws must be at least 1, and patience above 0")
        if self.temperature < 0:
            raise UsageError(f"temperature is {self.temperature}; it must not be negative")
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise UsageError(f"length_penalty is {self.length_penalty}; it must lie between 0 and 1")
        if not 0 <= self.latest_first_s <= 30:
            raise UsageError(f"latest_first_s is {self.latest_first_s}; it must lie between 0 and 30")


GREEDY = DecodingOptions()


@dataclass(frozen=True)
class Decoded:
    """What was heard in one window.

    Attributes:
        tokens: of the text and of its times, if they were asked for, without start sequence and end.
        text: the tokens as text, without times, stripped.
        avg_logprob: mean log-probability of the tokens and the end of text.
        no_speech_probability: of Whisper's `<|nospeech|>` at the start of the transcript.
        temperature: at which it was decoded.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_probability: float
    temperature: float = 0.0

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text to bytes of its compressed form: high where it repeats itself."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))

    def segment(self, start_s: float, end_s: float, language: str, probability: float) -> Segment:
        """The whole of it as one segment in a language of this probability."""
        return Segment(
            start_s,
            end_s,
            self.text,
            language,
            probability,
            self.avg_logprob,
            self.no_speech_probability,
            tokens=self.tokens,
            temperature=self.temperature,
            compression_ratio=self.compression_ratio,
        )


def decode(
    backbone: Backbone,
    mel: Tensor,
    languages: Sequence[str],
    *,
    n_positions: Tensor | None = None,
    routing: Routing | None = None,
    options: DecodingOptions = GREEDY,
    prompts: Sequence[Sequence[int]] = (),
) -> list[Decoded]:
    """What was heard in each window of a batch; a row's result does not depend on the others.

    Args:
        backbone: on the device where the work is to be done.
        mel: log-mel frames, (B, M, T).
        languages: Whisper's language code of each row.
        n_positions: real encoder positions of each row, int64 (B,); None when every row fills the batch.
        routing: adapters of each row; None for the bare backbone.
        options: how.
        prompts: tokens of what was said before in each row; empty for nothing.

    Raises:
        UnknownLanguage: the backbone has no token for a language.
        UsageError: there is not one language, and one prompt if any, per row.
    """
    n_rows = mel.shape[0]
    for count, what in ((len(languages), "languages"), (len(prompts) or n_rows, "prompts")):
        if count != n_rows:
            raise UsageError(f"{count} {what} for {n_rows} rows of audio: give one per row")
    whole = torch.full((n_rows,), mel.shape[2] // FRAMES_PER_POSITION)
    lengths = ((whole if n_positions is None else n_positions) * FRAMES_PER_POSITION).tolist()

    def windows(rows: Sequence[int], starts: Tensor) -> Windows:
        index = torch.tensor(rows, device=backbone.model.device)
        return Windows(
            rows,
            mel[index.to(mel.device), :, : max(lengths[row] for row in rows)],
            starts,
            None if n_positions is None else n_positions.to(index.device)[index],
            None if routing is None else routing.index_select(index),
        )

    seconds = [length / FRAMES_PER_SECOND for length in lengths]
    adapters = [""] * n_rows if routing is None else list(map(str, routing.routes))
    found = dict(decode_each(backbone, seconds, languages, adapters, windows, options, prompts))
    return [found[row] for row in range(n_rows)]


def decode_each(
    backbone: Backbone,
    lengths_s: Sequence[float],
    languages: Sequence[str],
    adapters: Sequence[str],
    windows: Callable[[Sequence[int], Tensor], Windows],
    options: DecodingOptions = GREEDY,
    prompts: Sequence[Sequence[int]] = (),
    most_s: float | None = None,
) -> Iterator[tuple[int, Decoded]]:
    """Each window's number and what was heard in it, as soon as it is known, longest windows first.

    Rows whose prompts differ in length are decoded one length after the other.

    Args:
        backbone: on the device where the work is to be done.
        lengths_s: of each window.
        languages: Whisper's language code of each.
        adapters: what to call the adapter of each: windows with the same one become neighbours.
        windows: makes windows of these numbers, given what their decoders start with, int64 (B, L); it is
            asked when there is room for them.
        options: how.
        prompts: tokens of what was said before in each; empty for nothing at all.
        most_s: seconds of audio, padding included, in the batch at once; None for `decodable_s`.

    Raises:
        UnknownLanguage: the backbone has no token for a language.
    """
    model, tokenizer = backbone.model, backbone.tokenizer
    most_s = decodable_s(backbone) if most_s is None else most_s
    room = Room(MAX_ROWS, round(most_s * FRAMES_PER_SECOND / FRAMES_PER_POSITION))
    starts = _starts(backbone, languages, prompts or [()] * len(languages), options.timestamps)
    for n_start in sorted({len(start) for start in starts}):
        rows = [row for row, start in enumerate(starts) if len(start) == n_start]
        groups = plan([lengths_s[row] for row in rows], min(ENCODED_S, most_s), COMING_ROWS)
        numbers = (sorted((rows[place] for place in group), key=adapters.__getitem__) for group in groups)
        limit = max_new_tokens(options, model.dims.n_text_ctx, n_start)
        search = _search(options, limit, tokenizer.eot, model.device)
        batch = RunningBatch(
            model, search, _rules(backbone, options), limit, tokenizer.sot, tokenizer.no_speech
        )
        made = (
            windows(group, torch.tensor([starts[row] for row in group], device=model.device))
            for group in numbers
        )
        for found in decode_windows(batch, made, room):
            yield found.number, _decoded(backbone, found, options.temperature)


def _decoded(backbone: Backbone, found: Found, temperature: float) -> Decoded:
    tokens = found.hypothesis.tokens
    return Decoded(
        tokens=tokens,
        text=backbone.tokenizer.decode(tokens).strip(),
        avg_logprob=found.hypothesis.logprob / (len(tokens) + 1),
        no_speech_probability=found.no_speech,
        temperature=temperature,
    )


def _starts(
    backbone: Backbone, languages: Sequence[str], prompts: Sequence[Sequence[int]], timestamps: bool
) -> list[list[int]]:
    """What each row's decoder starts with: the end of its prompt, if any, and the start sequence."""
    tokenizer, longest = backbone.tokenizer, backbone.model.dims.n_text_ctx // 2 - 1
    return [
        [*([tokenizer.sot_prev, *prompt[-longest:]] if prompt else []),
         *tokenizer.start_sequence(code, timestamps=timestamps)]
        for code, prompt in zip(languages, prompts, strict=True)
    ]  # fmt: skip


def decodable_s(backbone: Backbone) -> float:
    """Seconds of audio whose keys and values fit the memory for them; no more than all rows may have."""
    dims, size, device = backbone.model.dims, backbone.model.dtype.itemsize, backbone.model.device
    free = KEYS_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else KEYS_BYTES
    bytes_per_position = 2 * dims.n_text_layer * dims.n_text_state * size
    fitting_s = free / bytes_per_position * FRAMES_PER_POSITION / FRAMES_PER_SECOND
    return min(fitting_s, MAX_ROWS * CHUNK_LENGTH_S)


def _rules(backbone: Backbone, options: DecodingOptions) -> list[Rule]:
    rules = [suppression(backbone, options.suppress_tokens, options.timestamps)]
    if options.timestamps:
        rules.append(timestamp_pairs(backbone.tokenizer, options.latest_first_s))
    return rules


def _search(options: DecodingOptions, limit: int, eot: int, device: torch.device) -> Search:
    if options.temperature > 0:
        return Sampling(options.seed, options.draws, options.temperature, limit, eot, options.length_penalty)
    if options.beams > 1:
        return Beam(options.beams, limit, eot, options.patience, options.length_penalty)
    return Greedy(limit, eot, device)


def max_new_tokens(options: DecodingOptions, n_text_ctx: int, n_start: int) -> int:
    """How many tokens may follow what the decoder starts with: half of the context, or fewer."""
    limit = min(n_text_ctx // 2, n_text_ctx - n_start)
    return limit if options.max_tokens is None else min(limit, options.max_tokens)
