"""Losses and gradients of a step: computed anew, or replayed where it pays.

A step on a GPU is thousands of small kernels, which take several times longer to launch than to run. Batches
of one shape, with as many rows of the same tracks, are the same work on other numbers: it is recorded when it
comes for the second time and replayed from then on.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_whisper.data.batching import Batch
from lora_whisper.model.replay import CUDARecorder, Recorder, Work
from lora_whisper.model.whisper import Whisper
from lora_whisper.training.losses import routing_of, track_losses
from lora_whisper.training.methods import Track

MOST_RECORDED = 200
"""Shapes whose steps are kept; those that did not come for longest are given up."""

Precision = Callable[[], AbstractContextManager[object]]
"""Opens the autocast context of a precision."""


class Gradients:
    """Computes the losses of the tracks in a batch, and the gradients of their parameters.

    Args:
        model: the backbone, with the adapters of the tracks in its layers.
        precision: of the computation.
        record: makes a step replayable; None to compute each one anew.
    """

    def __init__(self, model: Whisper, precision: Precision, record: Recorder | None = None) -> None:
        self._model, self._precision, self._record = model, precision, record
        self._steps: OrderedDict[object, _Step | None] = OrderedDict()
        self._kept: dict[str, list[Tensor | None]] = {}

    @classmethod
    def fastest(cls, model: Whisper, precision: Precision) -> "Gradients":
        """The one for the model's device."""
        record = CUDARecorder(model.device) if model.device.type == "cuda" else None
        return cls(model, precision, record)

    def __call__(self, tracks: Sequence[Track], sizes: Sequence[int], batch: Batch) -> Tensor:
        """Loss of each track, (n_tracks,), overwritten by the next call; gradients are in `grad`.

        Args:
            tracks: whose rows stand in the batch, in order.
            sizes: rows of each track.
            batch: all rows, on any device.
        """
        if self._record is None or self._model.encoder.recomputing:
            return self._computed(tracks, sizes, batch)
        key = (tuple(track.name for track in tracks), tuple(sizes), batch.shape)
        if key not in self._steps:
            self._steps[key] = None
            losses = self._computed(tracks, sizes, batch)
            for track in tracks:
                self._kept.setdefault(track.name, [p.grad for p in track.parameters.values()])
        else:
            step = self._steps[key] or self._recorded(self._record, tracks, sizes, batch)
            self._steps[key] = step
            losses = step(batch)
            for track in tracks:
                for parameter, grad in zip(track.parameters.values(), self._kept[track.name], strict=True):
                    parameter.grad = grad
        self._steps.move_to_end(key)
        if len(self._steps) > MOST_RECORDED:
            self._steps.popitem(last=False)
        return losses

    def _computed(self, tracks: Sequence[Track], sizes: Sequence[int], batch: Batch) -> Tensor:
        device = self._model.device
        with self._precision():
            routing = routing_of(tracks, sizes, device)
            losses = track_losses(self._model, tracks, sizes, batch.to(device), routing)
        losses.sum().backward()
        return losses.detach()

    def _recorded(
        self, record: Recorder, tracks: Sequence[Track], sizes: Sequence[int], batch: Batch
    ) -> "_Step":
        device = self._model.device
        there, routing = batch.to(device), routing_of(tracks, sizes, device)
        parameters = [one for track in tracks for one in track.parameters.values()]
        kept = [one for track in tracks for one in self._kept[track.name]]

        def work() -> Tensor:
            with self._precision():
                losses = track_losses(self._model, tracks, sizes, there, routing)
            found = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
            pairs = [(old, new) for old, new in zip(kept, found, strict=True) if old is not None]
            torch._foreach_copy_([old for old, _ in pairs], [new for _, new in pairs])
            return losses.detach()

        return _Step(there, record(work))


@dataclass(frozen=True, eq=False)
class _Step:
    """A step that was recorded, and the batch in memory that it computes from."""

    batch: Batch
    replay: Work

    def __call__(self, batch: Batch) -> Tensor:
        """Losses of this batch, which is of the same shape."""
        self.batch.copy_(batch)
        return self.replay()
