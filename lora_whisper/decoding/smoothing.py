"""Languages of stretches of speech that follow each other: none changes without reason."""

import numpy as np
import numpy.typing as npt

_LEAST = 1e-6


def most_probable_path(probabilities: npt.NDArray[np.float64], stay: float) -> list[int]:
    """The most probable column of each row when the column stays from row to row with probability `stay`.

    The path of a hidden Markov model whose states are the columns (Viterbi 1967).

    Args:
        probabilities: of each column in each row, (N, L), each taken as evidence independent of the others.
        stay: 1 never changes, 1 / L looks at each row alone; the other columns share the rest.
    """
    n_rows, n_columns = probabilities.shape
    if n_columns == 1 or not n_rows:
        return [0] * n_rows
    evidence = np.log(np.maximum(probabilities, _LEAST))
    change = np.log(max((1 - stay) / (n_columns - 1), 1e-12))
    moves = np.full((n_columns, n_columns), change)
    np.fill_diagonal(moves, np.log(max(stay, 1e-12)))
    score, came_from = evidence[0], np.zeros((n_rows, n_columns), dtype=np.int64)
    for row in range(1, n_rows):
        paths = score[:, None] + moves
        came_from[row] = paths.argmax(0)
        score = paths.max(0) + evidence[row]
    path = [int(score.argmax())]
    for row in range(n_rows - 1, 0, -1):
        path.append(int(came_from[row, path[-1]]))
    return path[::-1]
