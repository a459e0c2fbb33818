"""What the backbone is made of: layers which take the routing beside their input."""

from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from lora_whisper.model.precision import linear, working_precision
from lora_whisper.model.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Sequence

KERNEL = 3
"""Frames that an output of a convolution is made of."""


class Linear(nn.Linear):
    """A linear layer that is handed the routing and has no use for it."""

    def forward(self, x: Tensor, routing: Routing | None = None) -> Tensor:  # noqa: ARG002
        """Outputs (..., out) of inputs (..., in)."""
        return linear(x, self.weight, self.bias)

    def side_by_side(
        self, layers: "Sequence[Linear]", x: Tensor, routing: Routing | None
    ) -> tuple[Tensor, ...]:
        """Outputs of several layers for the same x, this one the first of them."""
        return tuple(layer(x, routing) for layer in layers)


class Convolution(nn.Conv1d):
    """A convolution over time, padded by one frame on each side, that has no use for the routing either."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1, device: str | None = None) -> None:
        super().__init__(n_in, n_out, KERNEL, stride, padding=KERNEL // 2, device=device)

    def forward(self, x: Tensor, routing: Routing | None = None) -> Tensor:  # noqa: ARG002
        """Outputs (B, out, T') of inputs (B, in, T)."""
        return super().forward(x)

    def alike(self, kind: "type[_Convolution]") -> "_Convolution":
        """The same layer, same parameters, as another kind of it."""
        layer = kind(self.in_channels, self.out_channels, int(self.stride[0]), device="meta")
        layer.weight, layer.bias = self.weight, self.bias
        layer.training = self.training
        return layer


_Convolution = TypeVar("_Convolution", bound=Convolution)


class LayerNorm(nn.LayerNorm):
    """A layer norm whose output has the precision of the layers behind it, which need not convert it each."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x (..., D)."""
        return super().forward(x).to(working_precision(x))
