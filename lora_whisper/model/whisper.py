"""The Whisper backbone: encoder, decoder, key-value cache (Radford et al. 2022, arXiv 2212.04356).

Names follow OpenAI's reference model. Every linear layer takes the routing beside its input, so that
`lora.layers` can replace it; the plain layer ignores it.

Shapes: B batch, M mel bins, T audio frames, S encoder positions (S = T/2), L tokens, D width, H heads,
V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_whisper.model.attention import attention, attention_within, causality
from lora_whisper.model.cache import Heard, KVCache
from lora_whisper.model.layers import Convolution, LayerNorm, Linear
from lora_whisper.model.packing import Packing
from lora_whisper.model.precision import wide_linear
from lora_whisper.model.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lora_whisper.model.attention import Stretch


@dataclass(frozen=True)
class ModelDimensions:
    """Geometry of one Whisper size."""

    n_mels: int
    n_audio_ctx: int  # encoder positions of the full 30 s window: 1500
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int  # longest token sequence: 448
    n_text_state: int
    n_text_head: int
    n_text_layer: int


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with Whisper's four projections (the key has no bias)."""

    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.query = Linear(n_state, n_state)
        self.key = Linear(n_state, n_state, bias=False)
        self.value = Linear(n_state, n_state)
        self.out = Linear(n_state, n_state)

    def project(self, x: Tensor, routing: Routing | None, n_rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (n_rows, H, L, D/H) of x (B, …, D)."""
        layers = (self.query, self.key, self.value)
        query, key, value = self.query.side_by_side(layers, x, routing)
        return self.split(query, n_rows), self.split(key, n_rows), self.split(value, n_rows)

    def output(self, mixed: Tensor, shape: torch.Size, routing: Routing | None) -> Tensor:
        """Outputs of this shape, (B, …, D), from what attention made, (n_rows, H, L, D/H)."""
        return self.out(mixed.transpose(1, 2).reshape(shape), routing)

    def listen(self, x: Tensor, cache: KVCache, layer: int, routing: Routing | None) -> Tensor:
        """Outputs, shaped as x (B, W·L, D), for queries from x over the audio in the cache."""
        query = self.split(self.query(x, routing), x.shape[0])
        first = cache.heard[0]
        if first.rows is None:
            mixed = attention(query, *first.keys_values[layer], first.mask, causal=False)
            return self.output(mixed, x.shape, routing)
        mixed = torch.empty_like(query)
        for part in cache.heard:
            mixed[part.rows] = attention(query[part.rows], *part.keys_values[layer], part.mask, causal=False)
        return self.output(mixed, x.shape, routing)

    def weights(self, x: Tensor, keys: Tensor, routing: Routing | None, mask: Tensor | None) -> Tensor:
        """How much each of x (B, L, D) looks at each of the keys (B, H, S, D/H): (B, H, L, S)."""
        query = self.split(self.query(x, routing), x.shape[0])
        scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)

    def split(self, x: Tensor, n_rows: int) -> Tensor:
        """X (…, D) as heads, (n_rows, H, L, D/H)."""
        return x.reshape(n_rows, -1, self.n_head, x.shape[-1] // self.n_head).transpose(1, 2)


class MLP(nn.Module):
    """The position-wise feed-forward part of a block."""

    def __init__(self, n_state: int) -> None:
        super().__init__()
        self.fc1 = Linear(n_state, 4 * n_state)
        self.fc2 = Linear(4 * n_state, n_state)

    def forward(self, x: Tensor, routing: Routing | None) -> Tensor:
        """Outputs (B, L, D) of x (B, L, D)."""
        return self.fc2(F.gelu(self.fc1(x, routing)), routing)


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each behind a layer norm and a residual connection."""

    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.attn_ln = LayerNorm(n_state)
        self.attn = MultiHeadAttention(n_state, n_head)
        self.mlp_ln = LayerNorm(n_state)
        self.mlp = MLP(n_state)

    def forward(
        self, x: Tensor, mask: Tensor | None, routing: Routing | None, stretches: "Sequence[Stretch]" = ()
    ) -> Tensor:
        """Outputs (B, S, D) of x (B, S, D); or (N, 1, D) of stretches of positions x (N, 1, D)."""
        h = self.attn_ln(x)
        heads = self.attn.project(h, routing, n_rows=1 if stretches else len(x))
        mixed = attention_within(*heads, stretches) if stretches else attention(*heads, mask, causal=False)
        x = x + self.attn.output(mixed, x.shape, routing)
        return x + self.mlp(self.mlp_ln(x), routing)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention over the audio, MLP."""

    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.attn_ln = LayerNorm(n_state)
        self.attn = MultiHeadAttention(n_state, n_head)
        self.cross_attn_ln = LayerNorm(n_state)
        self.cross_attn = MultiHeadAttention(n_state, n_head)
        self.mlp_ln = LayerNorm(n_state)
        self.mlp = MLP(n_state)

    def forward(self, x: Tensor, layer: int, cache: KVCache, routing: Routing | None) -> Tensor:
        """Outputs (B, W·L, D) of the newest tokens x (B, W·L, D); the cache is extended by them."""
        h = self.attn_ln(x)
        n_rows = x.shape[0] * cache.width
        query, key, value = self.attn.project(h, routing, n_rows)
        keys_values = cache.extend(layer, key, value)
        n_new = x.shape[1] // cache.width
        own = cache.own_tokens(n_new)
        seen = causality(n_new, keys_values[0]) if own is None else (own, False)
        x = x + self.attn.output(attention(query, *keys_values, *seen), x.shape, routing)
        h = self.cross_attn_ln(x)
        if cache.attention is not None:
            (heard,) = cache.heard
            keys, _ = heard.keys_values[layer]
            cache.attention.append(self.cross_attn.weights(h, keys, routing, heard.mask))
        x = x + self.cross_attn.listen(h, cache, layer, routing)
        return x + self.mlp(self.mlp_ln(x), routing)


def sinusoids(length: int, channels: int, max_timescale: float = 10_000) -> Tensor:
    """Whisper's encoder positions, (length, channels): sines, then cosines, of geometric wavelengths."""
    step = math.log(max_timescale) / (channels // 2 - 1)
    inverse = torch.exp(-step * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * inverse[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def position_mask(n_positions: Tensor | None, size: int) -> Tensor | None:
    """Mask of the real encoder positions, bool (B, 1, 1, S), from how many each row has, (B,)."""
    if n_positions is None:
        return None
    return (torch.arange(size, device=n_positions.device) < n_positions[:, None])[:, None, None, :]


class BlockStack(nn.Module):
    """Blocks one behind the other.

    Attributes:
        recomputing: in training, keep what goes into a block and compute the rest anew in the backward pass
            (gradient checkpointing): less memory for about a third more time.
    """

    recomputing = False

    def run_block(self, block: nn.Module, x: Tensor, *others: object) -> Tensor:
        """The output of one block."""
        if self.recomputing and torch.is_grad_enabled():
            return checkpoint(block, x, *others, use_reentrant=False)
        return block(x, *others)


class AudioEncoder(BlockStack):
    """Log-mel frames to encoder positions: two convolutions and a stack of blocks."""

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        self.conv1 = Convolution(dims.n_mels, dims.n_audio_state)
        self.conv2 = Convolution(dims.n_audio_state, dims.n_audio_state, stride=2)
        self.positional_embedding = nn.Parameter(
            sinusoids(dims.n_audio_ctx, dims.n_audio_state), requires_grad=False
        )
        self.blocks = nn.ModuleList(
            EncoderBlock(dims.n_audio_state, dims.n_audio_head) for _ in range(dims.n_audio_layer)
        )
        self.ln_post = LayerNorm(dims.n_audio_state)

    def forward(self, mel: Tensor, mask: Tensor | None, routing: Routing | None) -> Tensor:
        """Encoder output (B, S, D) of mel (B, M, T); on a CPU, no work is done for padding."""
        x = F.gelu(self.conv1(mel, routing))
        x = F.gelu(self.conv2(x, routing)).transpose(1, 2).contiguous()  # as all that is added to it
        x = x + self.positional_embedding[: x.shape[1]]
        shape, packing = x.shape, None
        if x.device.type == "cpu" and (mask is not None or torch.is_grad_enabled()):
            packing = Packing.of(x, mask, routing)
            x, mask, routing = packing.pack(x), None, packing.routing
        stretches = packing.stretches if packing else ()
        for block in self.blocks:
            x = self.run_block(block, x, mask, routing, stretches)
        x = self.ln_post(x)
        return packing.unpack(x, shape) if packing else x


class TextDecoder(BlockStack):
    """Tokens to hidden states, given the audio in the cache."""

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(dims.n_vocab, dims.n_text_state)
        self.positional_embedding = nn.Parameter(torch.empty(dims.n_text_ctx, dims.n_text_state))
        self.blocks = nn.ModuleList(
            DecoderBlock(dims.n_text_state, dims.n_text_head) for _ in range(dims.n_text_layer)
        )
        self.ln = LayerNorm(dims.n_text_state)

    def audio_keys_values(self, audio: Tensor, routing: Routing | None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (B, H, S, D/H) of the audio (B, S, D) for each block."""
        attentions = [block.cross_attn for block in cast("Iterable[DecoderBlock]", self.blocks)]
        layers = [layer for one in attentions for layer in (one.key, one.value)]
        parts = layers[0].side_by_side(layers, audio, routing)
        heads = [attentions[0].split(part, len(audio)) for part in parts]
        return list(zip(heads[::2], heads[1::2], strict=True))

    def forward(self, tokens: Tensor, cache: KVCache, routing: Routing | None) -> Tensor:
        """Hidden states (B·W, L, D) of the newest tokens (B·W, L)."""
        x = self.token_embedding(tokens) + self.positional_embedding[cache.positions(tokens.shape[1])]
        shape = x.shape
        x = x.reshape(shape[0] // cache.width, -1, shape[2])  # hypotheses of one row of audio side by side
        for layer, block in enumerate(self.blocks):
            x = self.run_block(block, x, layer, cache, routing)
        cache.length += tokens.shape[1]
        return self.ln(x).reshape(shape)


class Whisper(nn.Module):
    """Encoder and decoder; the output projection is the token embedding."""

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = AudioEncoder(dims)
        self.decoder = TextDecoder(dims)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self.decoder.token_embedding.weight.dtype

    def initialise(self, seed: int) -> "Whisper":
        """This model with random weights, as before pre-training.

        Weights are normal with variance 1/(3 · fan-in), embeddings have sd 0.02, biases are zero.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "encoder.positional_embedding":
                    continue
                if parameter.dim() >= 2:
                    sd = 0.02 if "embedding" in name else (3 * parameter[0].numel()) ** -0.5
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * sd)
                elif name.endswith("bias"):
                    parameter.zero_()
        return self

    def encode(
        self, mel: Tensor, n_positions: Tensor | None = None, routing: Routing | None = None
    ) -> Tensor:
        """Encoder output (B, S, D) of log-mel frames.

        Args:
            mel: (B, M, T), T even and at most 2 * n_audio_ctx; frames past the end of a row are zero.
            n_positions: real positions of each row, int64 (B,); None when every row fills the batch. With it
                a row's result does not depend on the longer rows beside it.
            routing: adapters of each row; None for the bare backbone.
        """
        return self.encoder(mel.to(self.dtype), position_mask(n_positions, mel.shape[2] // 2), routing)

    def heard(
        self,
        audio: Tensor,
        n_positions: Tensor | None = None,
        routing: Routing | None = None,
        rows: Tensor | None = None,
    ) -> Heard:
        """What the decoder needs of encoder output (B, S, D), as part of a cache.

        Args:
            audio: the encoder output.
            n_positions: real positions of each row, int64 (B,); None when every row fills the batch.
            routing: adapters of each row.
            rows: which rows of the decoder's batch they are, int64 (B,); None for all of them, in order.
        """
        keys_values = self.decoder.audio_keys_values(audio, routing)
        return Heard(keys_values, position_mask(n_positions, audio.shape[1]), rows)

    def new_cache(
        self,
        audio: Tensor,
        n_positions: Tensor | None = None,
        routing: Routing | None = None,
        capacity: int = 0,
    ) -> KVCache:
        """Cache for decoding `audio` (B, S, D) with room for `capacity` tokens; 0: one pass, nothing kept."""
        return KVCache([self.heard(audio, n_positions, routing)], capacity)

    def decode(self, tokens: Tensor, cache: KVCache, routing: Routing | None = None) -> Tensor:
        """Hidden states (B·W, L, D) of the newest tokens, int64 (B·W, L); `logits` turns them into scores.

        Args:
            tokens: W rows for each row of audio; see `KVCache`.
            cache: of the batch.
            routing: adapters of each row of audio.
        """
        return self.decoder(tokens, cache, routing)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of hidden states (..., D)."""
        return wide_linear(hidden, self.decoder.token_embedding.weight)

    def forward(
        self,
        mel: Tensor,
        tokens: Tensor,
        n_positions: Tensor | None = None,
        routing: Routing | None = None,
    ) -> Tensor:
        """Scores (B, L, V) of whole token sequences (B, L) for log-mel frames (B, M, T)."""
        audio = self.encode(mel, n_positions, routing)
        return self.logits(self.decode(tokens, self.new_cache(audio, n_positions, routing), routing))
