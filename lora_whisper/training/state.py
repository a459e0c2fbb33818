"""Where a training run stands: one state per track, and the reports of its steps and epochs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora_whisper.training.methods import Track


@dataclass(frozen=True)
class StepReport:
    """One optimiser step.

    Attributes:
        step: counted from 1.
        losses: by track.
        norms: gradient norm before clipping, by track.
        learning_rates: by track.
        duration_s: seconds of audio in the step's rows.
    """

    step: int
    losses: Mapping[str, float]
    norms: Mapping[str, float]
    learning_rates: Mapping[str, float]
    duration_s: float


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch of one track.

    Attributes:
        track: its name.
        epoch: counted from 1.
        step: of the track.
        scores: development loss, error rates and the selecting "score"; empty without development data.
    """

    track: str
    epoch: int
    step: int
    scores: Mapping[str, float]


@dataclass(eq=False)
class TrackState:
    """Where a track stands.

    Attributes:
        step: batches done.
        epochs: one report per finished epoch.
        best: the parameters at the best epoch, by name.
        best_score: development score there; infinite before the first.
    """

    track: Track
    optimizer: torch.optim.Optimizer
    plan: list[list[int]]
    epoch_ends: list[int]
    step: int = 0
    epochs: list[EpochReport] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = math.inf
    stopped_early: bool = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to train."""
        return self.stopped_early or self.step == len(self.plan)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step, both counted from 0."""
        return sum(end <= step for end in self.epoch_ends)

    @property
    def at_epoch_end(self) -> bool:
        """Whether the step just done closed an epoch."""
        return self.step in self.epoch_ends
