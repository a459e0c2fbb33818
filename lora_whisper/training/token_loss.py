"""Cross-entropy of the next token over a vocabulary of 51,865: never all scores at once.

PyTorch keeps scores (N, V) in two precisions, their log-softmax and its gradient, four times 60 MB for 300
tokens. Here loss and gradients come chunk by chunk from one pass, and nothing of size N · V is kept.
"""

from typing import Any

import torch
from torch import Tensor

from lora_whisper.data.batching import IGNORED
from lora_whisper.model.precision import converted, working_precision

CHUNK_BYTES, GPU_CHUNK_BYTES = 64 << 20, 512 << 20
"""Of the scores of a chunk in float32; smaller ones multiply slowly."""

CACHED_BYTES = 2 << 20
"""Of those that become errors at once on a CPU: more of them would leave its cache between two passes."""


def token_loss(hidden: Tensor, embedding: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of labels (N,), given hidden states (N, D) and the token embedding (V, D).

    Args:
        hidden: in any precision; scores are computed in that of autocast.
        embedding: its product with a hidden state are the scores.
        labels: the right tokens, int64; `IGNORED` where there is none.
        weights: how much each token of the vocabulary counts, (V,); None: all the same.
    """
    dtype = working_precision(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        chunked: Any = _TokenLoss  # torch leaves `apply` without types
        learns = torch.is_grad_enabled()
        return chunked.apply(hidden.to(dtype), converted(embedding, dtype), labels, weights, learns)


class _TokenLoss(torch.autograd.Function):
    """Loss and gradients at once: what the way back needs is known when the loss is."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, embedding: Tensor, labels: Tensor, weights: Tensor | None, learns: bool
    ) -> Tensor:
        """The mean loss, float32."""
        counted, labels = labels != IGNORED, labels.clamp(min=0)
        shares = counted.float() if weights is None else weights[labels] * counted
        shares = shares / shares.sum()
        learns_embedding = learns and ctx.needs_input_grad[1]
        d_hidden = torch.empty_like(hidden) if learns else None
        d_embedding = torch.zeros_like(embedding, dtype=torch.float32) if learns_embedding else None
        loss = torch.zeros((), device=hidden.device)
        row_bytes, on_cpu = 4 * embedding.shape[0], hidden.device.type == "cpu"
        size = max(1, (CHUNK_BYTES if on_cpu else GPU_CHUNK_BYTES) // row_bytes)
        at_once = max(1, CACHED_BYTES // row_bytes) if on_cpu else size
        for start in range(0, len(labels), size):
            rows = slice(start, start + size)
            scores = hidden[rows] @ embedding.T
            parts = (one.split(at_once) for one in (scores, labels[rows, None], shares[rows, None]))
            for part in zip(*parts, strict=True):
                loss += _to_errors(*part)
            if d_hidden is not None:
                torch.mm(scores, embedding, out=d_hidden[rows])
            if d_embedding is not None:
                d_embedding += scores.T @ hidden[rows]
        if d_hidden is not None:
            ctx.save_for_backward(d_hidden, d_embedding)
            ctx.precision = embedding.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the hidden states and, if it learns, of the embedding."""
        d_hidden, d_embedding = ctx.saved_tensors
        found = None if d_embedding is None else (d_embedding * grads[0]).to(ctx.precision)
        return d_hidden * grads[0], found, None, None, None


def _to_errors(scores: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """The loss of scores (n, V), which become its gradient.

    Args:
        scores: of each token; overwritten.
        labels: the right tokens, (n, 1).
        shares: of each position in the loss, (n, 1).
    """
    exact = scores.float()
    right, best = exact.gather(1, labels), exact.amax(1, keepdim=True)
    shifted = exact.sub_(best).exp_()
    total = shifted.sum(1, keepdim=True)
    scores.copy_(shifted.scatter_add_(1, labels, -total).mul_(shares / total))  # probability minus truth
    return ((total.log() + best - right) * shares).sum()
