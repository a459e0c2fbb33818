from itertools import pairwise

import numpy as np
import pytest

from lora_whisper.decoding.smoothing import most_probable_path

ROWS = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.02, 0.98], [0.03, 0.97]])


@pytest.mark.parametrize(
    ("stay", "expected"),
    [(0.5, [0, 0, 1, 0, 1, 1]), (0.8, [0, 0, 0, 0, 1, 1]), (1.0, [1, 1, 1, 1, 1, 1])],
)
def test_a_language_changes_only_with_reason(stay: float, expected: list[int]) -> None:
    assert most_probable_path(ROWS, stay) == expected


def test_it_is_the_most_probable_of_all_paths() -> None:
    rows = np.random.default_rng(1).dirichlet([1, 1, 1], 6)

    def probability(path: tuple[int, ...]) -> float:
        moves = [0.6 if a == b else 0.2 for a, b in pairwise(path)]
        return float(np.prod([rows[i, column] for i, column in enumerate(path)]) * np.prod(moves))

    best = max(np.ndindex(*[3] * 6), key=probability)
    assert most_probable_path(rows, 0.6) == list(best)


def test_nothing_and_one_language() -> None:
    assert most_probable_path(np.zeros((0, 2)), 0.5) == []
    assert most_probable_path(np.ones((3, 1)), 0.5) == [0, 0, 0]
