"""When a window was not heard well, and what is tried then: Whisper's rules for whole recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lora_whisper.decoding.search import Decoded, DecodingOptions
from lora_whisper.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Fallback:
    """What counts as not heard well.

    Attributes:
        temperatures: tried one after the other, after that of the options, until a window is heard well.
        most_compression: a text that compresses better than this repeats itself.
        least_logprob: a lower mean log-probability of a token is a guess.
        most_no_speech: a higher probability of silence is believed where the text is a guess.
    """

    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    most_compression: float = 2.4
    least_logprob: float = -1.0
    most_no_speech: float = 0.6


NEVER = Fallback(temperatures=())


def is_silence(one: Decoded, rules: Fallback) -> bool:
    """Whether nothing was said: the model says so, and what it heard is a guess."""
    return one.no_speech_probability > rules.most_no_speech and one.avg_logprob < rules.least_logprob


def needs_fallback(one: Decoded, rules: Fallback) -> bool:
    """Whether the window should be decoded again: its text repeats itself or is a guess."""
    if is_silence(one, rules):
        return False
    return one.compression_ratio > rules.most_compression or one.avg_logprob < rules.least_logprob


def with_fallback(
    hear: Callable[[Sequence[int], DecodingOptions], list[Decoded]],
    n_rows: int,
    options: DecodingOptions,
    rules: Fallback,
) -> list[Decoded]:
    """What is heard in each row, at higher temperatures where that is needed; silence has no text.

    Args:
        hear: decodes these rows with these options.
        n_rows: how many rows there are.
        options: of the first attempt.
        rules: when to try again.
    """
    rows = list(range(n_rows))
    heard = dict(zip(rows, hear(rows, options), strict=True))
    for temperature in rules.temperatures:
        rows = [row for row in rows if needs_fallback(heard[row], rules)]
        if not rows:
            break
        heard.update(zip(rows, hear(rows, replace(options, temperature=temperature)), strict=True))
    return [_silenced(heard[row], rules) for row in range(n_rows)]


def _silenced(one: Decoded, rules: Fallback) -> Decoded:
    return replace(one, tokens=(), text="") if is_silence(one, rules) else one


@dataclass(frozen=True)
class TimedTokens:
    """Tokens of a piece of text and when it was said, in seconds from the start of the window."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]


def split_by_timestamps(
    tokens: Sequence[int], tokenizer: Tokenizer, window_s: float, alone: bool = False
) -> tuple[list[TimedTokens], float]:
    """The timed pieces of a window, and the seconds of it that are done with.

    A piece that the window's end cuts off is left for the next window, unless it is all there is or no
    window follows.

    Args:
        tokens: text and times, as `timestamp_pairs` allows them.
        tokenizer: knows the times.
        window_s: length of the window.
        alone: no window follows.
    """
    pieces: list[TimedTokens] = []
    start_s, text = 0.0, list[int]()
    for token in tokens:
        if not tokenizer.is_timestamp(token):
            text.append(token)
            continue
        time_s = min(tokenizer.seconds(token), window_s)
        if text:
            pieces.append(TimedTokens(start_s, max(start_s, time_s), tuple(text)))
        start_s, text = time_s, []
    if text and (alone or not pieces or start_s <= 0):
        pieces.append(TimedTokens(start_s, window_s, tuple(text)))
        return pieces, window_s
    goes_on = bool(text) or [tokenizer.is_timestamp(token) for token in tokens[-2:]] == [True, True]
    return pieces, start_s if goes_on and start_s > 0 else window_s
