"""SpecAugment: bands and stretches of a spectrogram are hidden (Park et al. 2019, arXiv 1904.08779)."""

import numpy as np
from torch import Tensor

N_BANDS, MAX_BAND = 2, 12
"""Hidden bands of a spectrogram, and mel bins of the widest."""

N_STRETCHES, MAX_STRETCH, MAX_STRETCH_SHARE = 2, 30, 0.05
"""Hidden stretches of a spectrogram, frames of the longest, and its greatest share of all frames."""


def spec_augment(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """A copy of log-mel frames (M, T) with random bands and stretches at the mean of the whole."""
    n_mels, n_frames = mel.shape
    hidden, mean = mel.clone(), float(mel.float().mean())
    for _ in range(N_BANDS):
        start, end = _span(n_mels, min(MAX_BAND, n_mels), rng)
        hidden[start:end] = mean
    for _ in range(N_STRETCHES):
        start, end = _span(n_frames, min(MAX_STRETCH, int(MAX_STRETCH_SHARE * n_frames)), rng)
        hidden[:, start:end] = mean
    return hidden


def _span(size: int, longest: int, rng: np.random.Generator) -> tuple[int, int]:
    """Start and end of a random span of 0 to `longest` in `size`."""
    width = int(rng.integers(longest + 1))
    start = int(rng.integers(size - width + 1))
    return start, start + width
