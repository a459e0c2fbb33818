"""Scoring in seconds: `python -m benchmarks.scoring [--utterances N] [--normalizer NAME] [--json]`.

Random utterances of made-up words in several scripts, some of them misheard, are normalised, aligned, and
given intervals by speaker: all that a result file needs. No model, no audio.
"""

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass

from lora_whisper.evaluation.normalizers import ALL_NORMALIZERS, DEFAULT_NORMALIZER
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult

GOAL_S = 60.0
LETTERS = {
    "pl": "aąbcćdeęłńoóśźż",
    "cy": "abcdefghilmnoŵŷ'",
    "hi": "कखगचजतदनपमिीुे",
    "ar": "ابتجدرسعقلمنهوي",
    "zh": "你好世界天地人口手山",
}
"""Of the languages scored; four in words, one in characters."""
WORDS, LONGEST_WORD, MISHEARD = 12, 9, 0.15
UTTERANCES_PER_SPEAKER = 50


@dataclass(frozen=True)
class Timing:
    """How long it took to score `utterances`, and how long it may take."""

    utterances: int
    normalizer: str
    seconds: float
    goal_s: float


def made_up(count: int, normalizer: str, seed: int = 0) -> EvaluationResult:
    """Return `count` utterances of `WORDS` words, of which a share is misheard, over all of `LETTERS`."""
    draw = random.Random(seed)
    tags = list(LETTERS)
    rows = tuple(_utterance(draw, number, tags[number % len(tags)]) for number in range(count))
    return EvaluationResult("made up", "none", "", {}, normalizer, None, seed, "", rows)


def measure(count: int, normalizer: str) -> Timing:
    """Return how long scores and hallucinations of `count` utterances take."""
    result = made_up(count, normalizer)
    began = time.perf_counter()
    result.summary()
    return Timing(count, normalizer, time.perf_counter() - began, GOAL_S * count / 100_000)


def _utterance(draw: random.Random, number: int, tag: str) -> UtteranceResult:
    said = [_word(draw, tag) for _ in range(WORDS)]
    heard = [_word(draw, tag) if draw.random() < MISHEARD else word for word in said]
    speaker = f"{number // (UTTERANCES_PER_SPEAKER * len(LETTERS))}"
    return UtteranceResult(str(number), tag, f"{' '.join(said)}.", " ".join(heard), None, 5.0, speaker)


def _word(draw: random.Random, tag: str) -> str:
    return "".join(draw.choices(LETTERS[tag], k=draw.randint(2, LONGEST_WORD)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--normalizer", choices=ALL_NORMALIZERS, default=DEFAULT_NORMALIZER)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.utterances, arguments.normalizer)
    if arguments.json:
        print(json.dumps(asdict(found)))
        return
    took, goal = f"{found.seconds:.1f} s", f"goal {found.goal_s:.1f} s"
    print(f"{found.utterances:,} utterances by {found.normalizer}: {took} ({goal})")


if __name__ == "__main__":
    main()
