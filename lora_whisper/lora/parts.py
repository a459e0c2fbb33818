"""What an adapter has in one layer: its shape, its two factors, and the weights that a mixture learns."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_whisper.errors import UsageError

LINEAR = ("q", "k", "v", "out", "fc1", "fc2")
"""Linear layers of a block that can carry an adapter: the paper's q, k, v and fc; its 13 M need `out` too."""

CONVOLUTIONS = ("conv1", "conv2")
"""Those with which the encoder begins, which hear the microphone and the room."""

MODULES = (*LINEAR, *CONVOLUTIONS)
"""All that can carry an adapter."""


@dataclass(frozen=True)
class LoRAConfig:
    """Shape of an adapter.

    Attributes:
        rank: R; 32 in the paper.
        alpha: the update is scaled by alpha / rank.
        modules: which of `MODULES` carry it, in encoder and decoder.
        dropout: of the input of A, in training.
    """

    rank: int = 32
    alpha: float = 32.0
    modules: tuple[str, ...] = LINEAR
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"LoRA rank is {self.rank}; it must be at least 1")
        unknown = set(self.modules) - set(MODULES)
        if unknown or not self.modules:
            raise UsageError(f"LoRA modules {sorted(unknown)}: choose from {', '.join(MODULES)}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"LoRA dropout is {self.dropout}; it must lie in [0, 1)")

    @property
    def scale(self) -> float:
        """α/r."""
        return self.alpha / self.rank


@dataclass(eq=False)
class LowRank:
    """One adapter's part in one layer.

    Attributes:
        a: (R, in).
        b: (out, R); zero at the start, so that a fresh adapter is the backbone, bit for bit.
        scale: α/r.
        dropout: of the input of A, in training.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    dropout: float = 0.0

    @classmethod
    def fresh(cls, n_in: int, n_out: int, config: LoRAConfig, generator: torch.Generator) -> "LowRank":
        """A untrained: A as `nn.Linear` starts (uniform, ±1/√in), B zero."""
        bound = n_in**-0.5
        a = torch.empty(config.rank, n_in).uniform_(-bound, bound, generator=generator)
        return cls(
            nn.Parameter(a), nn.Parameter(torch.zeros(n_out, config.rank)), config.scale, config.dropout
        )

    def to(self, device: torch.device) -> "LowRank":
        """The same on a device."""
        a, b = (nn.Parameter(one.detach().to(device)) for one in (self.a, self.b))
        return LowRank(a, b, self.scale, self.dropout)


@dataclass(eq=False)
class Gate:
    """The learned weights of a mixture's adapters in one layer.

    Attributes:
        weight: (K,), factors on the routing's weights; or (K, in), a router: the softmax over the adapters
            of weight · x + log g shares out the sum of the routing's weights g at each position.
    """

    weight: nn.Parameter

    @property
    def by_position(self) -> bool:
        """Whether it is a router, which weighs anew at each position."""
        return self.weight.dim() == 2

    def __call__(self, x: Tensor, gates: Tensor) -> Tensor:
        """Weights (B, 1 or L, K) for x (B, L, in), from those of the routing, (B, 1, K)."""
        missing = gates.shape[-1] - self.weight.shape[0]
        if not self.by_position:
            return gates * F.pad(self.weight, (0, missing))
        scores = F.linear(x, F.pad(self.weight, (0, 0, 0, missing)).to(x.dtype)).float() + gates.log()
        return gates.sum(-1, keepdim=True) * scores.softmax(-1)
