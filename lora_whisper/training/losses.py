"""The losses of a batch in which rows of several tracks stand behind each other, and of development rows."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.data.batching import IGNORED, Batch, collate, plan_batches
from lora_whisper.errors import UsageError
from lora_whisper.model.routing import Routing
from lora_whisper.model.shapes import compiled, rounded_up
from lora_whisper.model.whisper import Whisper
from lora_whisper.training.methods import Track
from lora_whisper.training.token_loss import token_loss


def routing_of(tracks: Sequence[Track], sizes: Sequence[int], device: torch.device) -> Routing | None:
    """Adapters of each row of a batch with so many rows of each track."""
    return Routing.of(
        [track.route for track, size in zip(tracks, sizes, strict=True) for _ in range(size)], device
    )


def track_losses(
    model: Whisper, tracks: Sequence[Track], sizes: Sequence[int], batch: Batch, routing: Routing | None
) -> Tensor:
    """Loss of each track, (n_tracks,): the mean over its own tokens, so that the others do not count.

    Args:
        model: the backbone.
        tracks: whose rows stand in the batch, in order.
        sizes: rows of each track.
        batch: all rows.
        routing: see `routing_of`.
    """
    audio = model.encode(batch.mel, batch.n_positions, routing)
    hidden = model.decode(batch.tokens, model.new_cache(audio, batch.n_positions, routing), routing)
    embedding = model.decoder.token_embedding.weight

    losses: list[Tensor] = []
    start = 0
    for track, size in zip(tracks, sizes, strict=True):
        rows = slice(start, start + size)
        start += size
        said, labels = _with_labels(hidden[rows], batch.labels[rows])
        loss = token_loss(said, embedding, labels, track.token_weights)
        if track.auxiliary is not None:
            loss = loss + track.auxiliary(audio[rows], _part_of(batch, rows))
        losses.append(loss)
    return torch.stack(losses)


def _with_labels(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states (N, D) and labels (N,) of the positions that count.

    On a GPU all of them: which ones count is known only there, and waiting for it costs more than they do.
    """
    if hidden.device.type != "cpu":
        return hidden.flatten(0, 1), labels.flatten()
    learned = (labels != IGNORED).flatten().nonzero().squeeze(1)
    n_filler = rounded_up(len(learned), 64) - len(learned) if compiled(hidden) else 0
    said = hidden.flatten(0, 1).index_select(0, learned)
    return F.pad(said, (0, 0, 0, n_filler)), F.pad(labels.flatten()[learned], (0, n_filler), value=IGNORED)


def _part_of(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch, with its padding."""
    positions = None if batch.n_positions is None else batch.n_positions[rows]
    return Batch(batch.mel[rows], positions, batch.tokens[rows], batch.labels[rows], batch.duration_s)


@torch.no_grad()
def dev_loss(model: Whisper, track: Track, batch_s: float) -> float:
    """Mean loss per token over a track's development rows, without auxiliary losses."""
    if track.dev is None:
        raise UsageError(f"{track.name}: no development rows")
    total, n_tokens = 0.0, 0
    plain = Track(track.name, {}, track.dev, route=track.route)
    for indices in plan_batches(track.dev.durations_s, batch_s, seed=0, epoch=0):
        batch = collate([track.dev.row(i) for i in indices])
        count = int((batch.labels != IGNORED).sum())
        sizes = [len(indices)]
        routing = routing_of([plain], sizes, model.device)
        total += count * float(track_losses(model, [plain], sizes, batch.to(model.device), routing))
        n_tokens += count
    return total / n_tokens
