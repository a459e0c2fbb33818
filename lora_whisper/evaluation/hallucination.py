"""Speech that nobody spoke: loops, runs of inserted words, text many times as long as what was said.

Error rates hide it: an utterance filled with invented text counts as a few bad ones, but does more harm than
all of them. An utterance counts as hallucinated if any of these holds in the unit that judges its language,
after normalisation:

| sign      | when                                                                                          |
|-----------|-----------------------------------------------------------------------------------------------|
| `silence` | anything was heard where nothing was said                                                      |
| `run`     | `RUN` units or more were inserted in a row                                                     |
| `long`    | more than `TOO_LONG` times as many units as were said, and at least `RUN` more                 |
| `loop`    | one to `LONGEST_PHRASE` units three times or more in a row; `RUN` units more of that than said |

All but the first take at least `RUN` errors, so a repeated "no, no" or a word heard as two is none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_whisper.evaluation.metrics import (
    ErrorCounts,
    Rate,
    Unit,
    align,
    bootstrap_interval,
    error_counts,
)

Sign = Literal["silence", "run", "long", "loop"]
RUN: dict[Unit, int] = {"word": 5, "character": 10}
"""Units that nobody invents by mishearing; where words are not written apart one has about two characters."""
TOO_LONG = 2
LONGEST_PHRASE = 20
_REPEATS = 3


@dataclass(frozen=True)
class Transcribed:
    """An utterance in normalised units: what was said and heard, and in how many seconds (0: unknown)."""

    reference: Sequence[str]
    hypothesis: Sequence[str]
    duration_s: float = 0.0


@dataclass(frozen=True)
class Hallucinations:
    """What was invented in one language.

    Attributes:
        utterances: how many are hallucinated.
        share: of all utterances, with its interval.
        signs: utterances by sign; one may have several.
        insertions_per_minute: of the utterances whose duration is known; None if there are none.
    """

    utterances: int
    share: Rate
    signs: dict[Sign, int]
    insertions_per_minute: float | None


def hallucinations(
    heard: Sequence[Transcribed], unit: Unit, *, groups: Sequence[str] | None = None, seed: int = 0
) -> Hallucinations:
    """Return what was invented in these utterances; the interval is by `groups` (speakers) where given.

    Raises:
        UsageError: `groups` does not name one group per utterance.
    """
    counts = [error_counts(one.reference, one.hypothesis) for one in heard]
    found = [signs(one, count, unit) for one, count in zip(heard, counts, strict=True)]
    flags = [ErrorCounts(substitutions=1) if some else ErrorCounts(hits=1) for some in found]
    names: tuple[Sign, ...] = ("silence", "run", "long", "loop")
    return Hallucinations(
        utterances=sum(map(bool, found)),
        share=bootstrap_interval(flags, groups=groups, seed=seed),
        signs={name: sum(name in some for some in found) for name in names},
        insertions_per_minute=_per_minute(heard, counts),
    )


def signs(one: Transcribed, counts: ErrorCounts, unit: Unit) -> tuple[Sign, ...]:
    """Return the signs of hallucination in one utterance, whose errors are `counts`; none if it has none."""
    said, text, run = one.reference, one.hypothesis, RUN[unit]
    if not said:
        return ("silence",) if text else ()
    if counts.errors < run:
        return ()
    present: dict[Sign, bool] = {
        "run": counts.insertions >= run and _longest_insertion(said, text) >= run,
        "long": len(text) > TOO_LONG * len(said) and len(text) >= len(said) + run,
        "loop": longest_loop(text) >= longest_loop(said) + run,
    }
    return tuple(name for name, holds in present.items() if holds)


def longest_loop(text: Sequence[str]) -> int:
    """Return the units of the longest stretch that is one phrase three times or more; 0 without one."""
    longest = 0
    for period in range(1, min(LONGEST_PHRASE, len(text) // _REPEATS) + 1):
        longest = max(longest, _longest_stretch(text, period))
    return longest


def _longest_stretch(text: Sequence[str], period: int) -> int:
    """Return the units of the longest stretch in which each is the one `period` before, if `_REPEATS` fit."""
    longest = same = 0
    for here, before in zip(text[period:], text, strict=False):
        same = same + 1 if here == before else 0
        longest = max(longest, same)
    return longest + period if longest >= (_REPEATS - 1) * period else 0


def _longest_insertion(said: Sequence[str], text: Sequence[str]) -> int:
    inserted = (len(edit.hypothesis) for edit in align(said, text) if edit.kind == "insert")
    return max(inserted, default=0)


def _per_minute(heard: Sequence[Transcribed], counts: Sequence[ErrorCounts]) -> float | None:
    timed = [
        (one.duration_s, count.insertions)
        for one, count in zip(heard, counts, strict=True)
        if one.duration_s > 0
    ]
    if not timed:
        return None
    return 60 * sum(inserted for _, inserted in timed) / sum(duration_s for duration_s, _ in timed)
