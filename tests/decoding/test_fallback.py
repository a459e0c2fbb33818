"""When a window is heard again, and how it is cut by its times: pure functions on token lists."""

from collections.abc import Sequence

import pytest
from toy_whisper import toy_tokenizer

from lora_whisper.decoding.fallback import (
    NEVER,
    Fallback,
    TimedTokens,
    is_silence,
    needs_fallback,
    split_by_timestamps,
    with_fallback,
)
from lora_whisper.decoding.search import GREEDY, Decoded, DecodingOptions

TOKENIZER = toy_tokenizer()
RULES = Fallback()


def heard(
    text: str = "ala", logprob: float = -0.1, no_speech: float = 0.0, temperature: float = 0.0
) -> Decoded:
    return Decoded((70,), text, logprob, no_speech, temperature)


def t(time_s: float) -> int:
    return TOKENIZER.timestamp(time_s)


@pytest.mark.parametrize(
    ("decoded", "again", "silent"),
    [
        (heard(), False, False),
        (heard("no no " * 60), True, False),
        (heard(logprob=-1.5), True, False),
        (heard(logprob=-1.5, no_speech=0.9), False, True),
        (heard(logprob=-0.2, no_speech=0.9), False, False),
    ],
)
def test_repetition_and_guesses_are_heard_again_and_silence_is_not(
    decoded: Decoded, again: bool, silent: bool
) -> None:
    assert (needs_fallback(decoded, RULES), is_silence(decoded, RULES)) == (again, silent)


def test_only_what_needs_it_is_heard_again_until_it_is_good() -> None:
    asked: list[tuple[tuple[int, ...], float]] = []

    def hear(rows: Sequence[int], options: DecodingOptions) -> list[Decoded]:
        asked.append((tuple(rows), options.temperature))
        good_from = {0: 0.0, 1: 0.4, 2: 9.0}
        return [
            heard(
                logprob=-0.1 if options.temperature >= good_from[row] else -2, temperature=options.temperature
            )
            for row in rows
        ]

    found = with_fallback(hear, 3, GREEDY, Fallback(temperatures=(0.2, 0.4, 0.6)))
    assert asked == [((0, 1, 2), 0.0), ((1, 2), 0.2), ((1, 2), 0.4), ((2,), 0.6)]
    assert [one.temperature for one in found] == [0.0, 0.4, 0.6]
    asked.clear()
    with_fallback(hear, 3, GREEDY, NEVER)
    assert asked == [((0, 1, 2), 0.0)]


def test_silence_has_no_text() -> None:
    found = with_fallback(lambda rows, _: [heard(logprob=-2, no_speech=0.9) for _ in rows], 2, GREEDY, RULES)
    assert all(not one.text and not one.tokens for one in found)


@pytest.mark.parametrize(
    ("tokens", "pieces", "done_s"),
    [
        ([], [], 30),
        ([70, 71], [(0, 30, (70, 71))], 30),  # no times at all
        ([t(0), 70, t(2)], [(0, 2, (70,))], 30),  # nothing after it
        ([t(0.5), 70, t(2), t(2)], [(0.5, 2, (70,))], 2),  # something after it
        ([t(0), 70, t(2), t(3), 71, t(5)], [(0, 2, (70,)), (3, 5, (71,))], 30),
        ([t(0), 70, t(2), t(3), 71], [(0, 2, (70,))], 3),  # cut off: for the next window
        ([t(0), 70], [(0, 30, (70,))], 30),  # cut off, but all there is
        ([t(0), t(0)], [], 30),  # must go on
    ],
)
def test_a_window_is_cut_by_its_times(
    tokens: list[int], pieces: list[tuple[float, float, tuple[int, ...]]], done_s: float
) -> None:
    found, done = split_by_timestamps(tokens, TOKENIZER, 30.0)
    assert [(one.start_s, one.end_s, one.tokens) for one in found] == pieces
    assert done == done_s


def test_no_text_is_lost_where_no_window_follows() -> None:
    found, done = split_by_timestamps([t(0), 70, t(2), t(3), 71], TOKENIZER, 4.0, alone=True)
    assert [(one.start_s, one.end_s, one.tokens) for one in found] == [(0, 2, (70,)), (3, 4, (71,))]
    assert done == 4


def test_times_beyond_the_window_are_cut_off() -> None:
    assert split_by_timestamps([t(0), 70, t(20)], TOKENIZER, 4.0) == ([TimedTokens(0.0, 4.0, (70,))], 4.0)
