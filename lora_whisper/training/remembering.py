"""A decoder that learns alone: what its frozen encoder makes of a row is computed once, not at each step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from lora_whisper.audio import FRAMES_PER_POSITION, FRAMES_PER_SECOND
from lora_whisper.data.batching import Row, collate, plan_batches
from lora_whisper.model.routing import Routing
from lora_whisper.model.whisper import BlockStack, Whisper

_BATCH_S = 120.0


class Remembered(BlockStack):
    """Stands where the encoder stood, for rows that carry its output instead of a spectrogram.

    A position of D numbers lies in two frames of D/2, so that these rows are as long as they were and go
    through the same batches.
    """

    def forward(self, mel: Tensor, mask: Tensor | None, routing: Routing | None) -> Tensor:  # noqa: ARG002
        """Encoder output (B, S, D) of mel (B, D/2, 2S)."""
        return mel.transpose(1, 2).reshape(mel.shape[0], -1, FRAMES_PER_POSITION * mel.shape[1])


@torch.no_grad()
def remember(model: Whisper, rows: list[Row]) -> None:
    """Replace the spectrograms of rows by what the encoder makes of them, in place: they fill gigabytes."""
    durations_s = [row.mel.shape[1] / FRAMES_PER_SECOND for row in rows]
    for indices in plan_batches(durations_s, _BATCH_S, seed=0, epoch=0):
        batch = collate([rows[i] for i in indices])
        for i, audio in zip(indices, model.encode(batch.mel, batch.n_positions), strict=True):
            real = audio[: rows[i].mel.shape[1] // FRAMES_PER_POSITION]
            halves = real.reshape(FRAMES_PER_POSITION * len(real), -1)
            rows[i] = replace(rows[i], mel=halves.T.half())


@contextmanager
def remembering(model: Whisper) -> Iterator[None]:
    """While it lasts, the model's encoder is `Remembered`: its parameters are the decoder's."""
    encoder = model.encoder
    model.encoder = Remembered()  # type: ignore[assignment]
    try:
        yield
    finally:
        model.encoder = encoder
