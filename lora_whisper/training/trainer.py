"""The one training loop: tracks in, trained parameters out.

Every step takes the next batch of each unfinished track, runs rows of all tracks through the frozen backbone
together where their lengths allow, and updates each track with its own loss, clipping, schedule and
optimiser. All randomness is a function of (seed, step), so a run that is stopped, even by `kill -9`, goes on
from its last checkpoint as if nothing had happened.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from lora_whisper.data.augment import spec_augment
from lora_whisper.data.batching import COARSE, FINE, Batch, Padding, Row, collate, plan_batches
from lora_whisper.errors import TrainingError, UsageError
from lora_whisper.model.checkpoint import weights_fingerprint
from lora_whisper.model.precision import native_bf16
from lora_whisper.model.whisper import Whisper
from lora_whisper.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from lora_whisper.training.gradients import Gradients, Precision
from lora_whisper.training.losses import dev_loss
from lora_whisper.training.methods import Track
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.optimizers import new_optimizer
from lora_whisper.training.state import EpochReport, StepReport, TrackState

LENGTH_TOLERANCE = 0.75
"""Tracks share a forward pass if their longest rows differ by no more than this ratio: padding costs time."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's where it names them (AdamW, 1e-4, 10 epochs).

    Attributes:
        epochs: passes over the training rows.
        learning_rate: peak of the schedule.
        schedule: after the warm-up, "linear" or "cosine" decay to zero, or "constant".
        warmup: share of the steps with a rising learning rate.
        weight_decay: of AdamW.
        clip: largest gradient norm of a track.
        batch_s: seconds of padded audio in a track's batch.
        precision: "bf16" autocast, "fp32", or "auto": bf16 where the hardware multiplies it natively.
        patience: stop a track after this many epochs without a better development score; None: never.
        save_every: steps between checkpoints, besides the end of each epoch.
        perturb: hear each utterance in another voice, noise, echo, channel, loudness and speed in each epoch.
        paces: the same, and in other paces and cuts: for speech of other people than those recorded.
        timestamped: share of the rows with times; see `UtteranceRows`.
        spec_augment: hide bands and stretches of each spectrogram (SpecAugment).
        recompute: gradient checkpointing: less memory, more time; the result is the same.
        optimizer: "adamw", or "muon" for whole backbones: see `optimizers`.
        seed: of the order of the data, of dropout and of SpecAugment.
    """

    epochs: int = 10
    learning_rate: float = 1e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    batch_s: float = 60.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    patience: int | None = None
    save_every: int = 200
    perturb: bool = False
    paces: bool = False
    timestamped: float = 0.0
    spec_augment: bool = False
    recompute: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_s <= 0 or self.learning_rate <= 0 or self.save_every < 1:
            raise UsageError("epochs, batch_s, learning_rate and save_every must be positive")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup is {self.warmup}; it is a share of the steps, in [0, 1)")

    def learning_rate_at(self, step: int, n_steps: int) -> float:
        """Learning rate of step `step` (from 0) of `n_steps`."""
        n_warmup = math.ceil(self.warmup * n_steps)
        if step < n_warmup:
            return self.learning_rate * (step + 1) / n_warmup
        progress = (step - n_warmup) / max(1, n_steps - n_warmup)
        decay = {"linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2, "constant": 1.0}
        return self.learning_rate * decay[self.schedule]


Validate = Callable[[Track], dict[str, float]]
"""Scores of a track on its development data, by name; "score" (lower is better) selects the best epoch."""


def train(
    model: Whisper,
    tracks: Sequence[Track],
    config: TrainConfig,
    folder: Path,
    *,
    validate: Validate | None = None,
    monitor: Monitor | None = None,
) -> list[TrackState]:
    """Train the tracks; their parameters hold the best epoch's values afterwards.

    Args:
        model: the backbone, with the adapters of the tracks in its layers.
        tracks: what to train.
        config: how.
        folder: where checkpoints go; an unfinished run of the same configuration found there is resumed.
        validate: scores beside the development loss (which is the score without it).
        monitor: is told of every step and epoch.

    Raises:
        TrainingError: no rows, a loss that is not finite, or a checkpoint of another configuration or
            backbone.
    """
    trainer = _Trainer(model, tracks, config, folder, validate, monitor or Monitor())
    return trainer.run()


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows of one step that go through the backbone together.

    Attributes:
        sizes: how many of each track, in the order of the tracks.
        batch: all of them.
    """

    sizes: dict[str, int]
    batch: Batch


class _Trainer:
    """The state of a call to `train`."""

    def __init__(
        self,
        model: Whisper,
        tracks: Sequence[Track],
        config: TrainConfig,
        folder: Path,
        validate: Validate | None,
        monitor: Monitor,
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.validate, self.monitor = validate, monitor
        self.padding = padding_of(config, model)
        self.reads_ahead = reads_ahead(model)
        self.states = [self._start(track) for track in tracks]
        self.precision = resolve_precision(config.precision, model.device)
        self.gradients = Gradients.fastest(model, self.precision)
        self.step = 0
        model.encoder.recomputing = model.decoder.recomputing = config.recompute

    def _start(self, track: Track) -> TrackState:
        if not track.train.durations_s:
            raise TrainingError(
                f"{track.name}: no training utterance can be used; check manifest, audio and --language"
            )
        config = self.config
        optimizer = new_optimizer(
            config.optimizer, track.parameters, config.learning_rate, config.weight_decay
        )
        plan: list[list[int]] = []
        ends: list[int] = []
        for epoch in range(config.epochs):
            plan += plan_batches(
                track.train.durations_s, config.batch_s, config.seed, epoch, padding=self.padding
            )
            ends.append(len(plan))
        return TrackState(track, optimizer, plan, ends)

    @cached_property
    def _identity(self) -> dict[str, object]:
        """What must agree with a checkpoint: configuration and frozen weights."""
        trained = [p for state in self.states for p in state.track.parameters.values()]
        return {**asdict(self.config), "backbone": weights_fingerprint(self.model, trained)}

    def run(self) -> list[TrackState]:
        """Train until every track has finished."""
        self._resume()
        self.monitor.start(self.states)
        self.model.train()
        with ThreadPoolExecutor(max_workers=1) as reader:
            _on_one_core(reader)
            upcoming = self._begin_reading(reader, 0)
            while any(not state.finished for state in self.states):
                active = [state for state in self.states if not state.finished]
                read = upcoming.result()
                if self.reads_ahead:
                    upcoming = self._begin_reading(reader, 1)
                losses, norms, duration_s = self._update(active, self._still_active(read, active))
                self.step += 1
                for state in active:
                    state.step += 1
                if not self.reads_ahead:
                    upcoming = self._begin_reading(reader, 0)
                self.monitor.step(StepReport(self.step, losses, norms, self._rates(active), duration_s))
                self._close_epochs(active)
        self.model.eval()
        for state in self.states:
            restore(state.track, state.best)
        self.monitor.finish()
        return self.states

    def _begin_reading(self, reader: ThreadPoolExecutor, ahead: int) -> Future[list[_Group]]:
        """Read, in another thread, what the unfinished tracks learn from so many steps ahead."""
        steps = [(state, state.step + ahead) for state in self.states if not state.finished]
        return reader.submit(self._read, [pair for pair in steps if pair[1] < len(pair[0].plan)])

    def _read(self, steps: list[tuple[TrackState, int]]) -> list[_Group]:
        """The batches of some tracks at some steps, those of similar length together."""
        rows = {state.track.name: self._rows_of(state, step) for state, step in steps}
        longest = {name: max(row.mel.shape[1] for row in batch) for name, batch in rows.items()}
        groups: list[_Group] = []
        for together in group_by_length(longest):
            names = [name for name in rows if name in together]
            batch = collate([row for name in names for row in rows[name]], self.padding)
            groups.append(_Group({name: len(rows[name]) for name in names}, batch))
        return groups

    def _still_active(self, read: list[_Group], active: list[TrackState]) -> list[_Group]:
        """What was read, or, if a track has stopped early since then, what the others learn from."""
        if {name for group in read for name in group.sizes} == {state.track.name for state in active}:
            return read
        return self._read([(state, state.step) for state in active])

    def _rows_of(self, state: TrackState, step: int) -> list[Row]:
        """The batch of one track at a step; what is hidden in it does not depend on the other tracks."""
        rows = [state.track.train.row(i, state.epoch_of(step)) for i in state.plan[step]]
        if not self.config.spec_augment:
            return rows
        rng = np.random.default_rng([self.config.seed, step, crc32(state.track.name.encode())])
        return [replace(row, mel=spec_augment(row.mel, rng)) for row in rows]

    def _update(
        self, active: list[TrackState], read: list[_Group]
    ) -> tuple[dict[str, float], dict[str, float], float]:
        """One optimiser step of each active track; its losses, gradient norms and seconds of audio."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # LoRA dropout
        losses: dict[str, float] = {}
        norms: dict[str, float] = {}
        duration_s = 0.0
        for group in read:
            tracks = [state.track for state in active if state.track.name in group.sizes]
            duration_s += group.batch.duration_s
            found = self.gradients(tracks, list(group.sizes.values()), group.batch).tolist()
            losses |= {track.name: loss for track, loss in zip(tracks, found, strict=True)}
        for state in active:
            norms[state.track.name] = self._apply(state, losses[state.track.name])
        return losses, norms, duration_s

    def _apply(self, state: TrackState, loss: float) -> float:
        """Clip and apply the gradients of one track; their norm before clipping."""
        if not math.isfinite(loss):
            raise TrainingError(
                f"{state.track.name}: the loss is {loss} at step {state.step + 1}; lower --learning-rate "
                "(the last checkpoint is intact)"
            )
        parameters = list(state.track.parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.clip))
        for group in state.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(state.step, len(state.plan))
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        return norm

    def _rates(self, active: list[TrackState]) -> dict[str, float]:
        return {state.track.name: state.optimizer.param_groups[0]["lr"] for state in active}

    def _close_epochs(self, active: list[TrackState]) -> None:
        """Score the tracks that have just finished an epoch, and save when it is time."""
        ended = [state for state in active if state.at_epoch_end]
        if ended:
            self.model.eval()
            for state in ended:
                self._score(state)
            self.model.train()
        if ended or self.step % self.config.save_every == 0:
            save_checkpoint(self.folder, self.step, self._identity, self.states)

    def _score(self, state: TrackState) -> None:
        """Development loss and scores of a track; keep its parameters if they are the best so far."""
        report = EpochReport(
            state.track.name, len(state.epochs) + 1, state.step, self._dev_scores(state.track)
        )
        state.epochs.append(report)
        score = report.scores.get(
            "score", -report.epoch
        )  # without development data, the last epoch is the best
        if score < state.best_score:
            state.best_score = score
            state.best = {name: p.detach().clone() for name, p in state.track.parameters.items()}
        since_best = (
            len(state.epochs)
            - 1
            - min(range(len(state.epochs)), key=lambda i: state.epochs[i].scores.get("score", -i))
        )
        state.stopped_early = self.config.patience is not None and since_best >= self.config.patience
        self.monitor.epoch(report)

    def _dev_scores(self, track: Track) -> dict[str, float]:
        if track.dev is None or not track.dev.durations_s:
            return {}
        with self.precision():
            loss = dev_loss(self.model, track, self.config.batch_s)
        scores = {"loss": loss, "score": loss}
        return scores | (self.validate(track) if self.validate else {})

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is not None:
            self.step = load_checkpoint(checkpoint, self._identity, self.states)


def _on_one_core(reader: ThreadPoolExecutor) -> None:
    """Keep a thread that makes rows from starting as many threads of its own as the training has.

    They would wait for work on the very cores that the training computes on (docs/log.md).
    """
    n_threads = torch.get_num_threads()
    reader.submit(torch.get_num_threads).result()  # or the thread would take over the number of all later
    reader.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(n_threads)  # new threads have the number of this one again


def padding_of(config: TrainConfig, model: Whisper) -> Padding:
    """How batches are padded where the model is."""
    if model.device.type == "cpu":
        return FINE
    return replace(COARSE, most_tokens=model.dims.n_text_ctx, budget_s=config.batch_s)


def reads_ahead(model: Whisper) -> bool:
    """Whether a batch is read while another is learned: where that takes no cores from the training."""
    return model.device.type != "cpu"


def restore(track: Track, values: dict[str, Tensor]) -> None:
    """Set a track's parameters to saved values."""
    with torch.no_grad():
        for name, value in values.items():
            track.parameters[name].copy_(value)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """What opens the autocast context of a precision on a device; "auto" picks bf16 where it is native."""
    if name == "auto":
        name = "bf16" if native_bf16(device) else "fp32"
    if name == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def group_by_length(frames: dict[str, int]) -> Iterator[set[str]]:
    """Names of batches that may share a forward pass, given their longest rows, without much padding."""
    group: set[str] = set()
    longest = 0
    for name in sorted(frames, key=lambda n: -frames[n]):
        if group and frames[name] < LENGTH_TOLERANCE * longest:
            yield group
            group = set()
        longest = longest if group else frames[name]
        group.add(name)
    if group:
        yield group
