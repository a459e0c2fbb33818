"""In which precision the work is done: under autocast another one than that of the weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.model.few_bits import FewBits


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bf16; emulated on a CPU, it is twenty times as slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def working_precision(x: Tensor) -> torch.dtype:
    """The precision of matrix products with x: that of autocast, if it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def converted(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """The parameter in a precision; a frozen one is converted once and kept beside the original.

    Autocast converts frozen weights anew in every forward pass: 1.4 GB of memory traffic for whisper-small.
    Weights in few bits are there to save memory, and nothing is kept beside them.
    """
    if parameter.dtype == dtype or parameter.requires_grad or isinstance(parameter, FewBits):
        return parameter.to(dtype)
    owner: Any = parameter
    state = (dtype, parameter.data_ptr(), parameter._version)
    kept = getattr(owner, "_converted", None)
    if kept is None or kept[0] != state:
        with torch.inference_mode(False), torch.no_grad():
            kept = owner._converted = (state, parameter.to(dtype))
    return kept[1]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Outputs (..., out) of x (..., in), weight (out, in) and bias (out,), in the working precision."""
    dtype = working_precision(x)
    if weight.requires_grad or dtype == weight.dtype:
        return F.linear(x, weight, bias)
    return F.linear(x.to(dtype), converted(weight, dtype), None if bias is None else converted(bias, dtype))


def wide_linear(x: Tensor, weight: Tensor) -> Tensor:
    """`linear` to far more outputs than inputs, as the scores of a vocabulary are.

    In inference in float32 on a CPU, oneDNN takes a third to two thirds of the time of PyTorch's own choice
    (docs/log.md).
    """
    if _inferred_in_float32(x, weight) and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return linear(x, weight)


def _inferred_in_float32(x: Tensor, weight: Tensor) -> bool:
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    plain = x.device.type == "cpu" and not learning and not torch.compiler.is_compiling()
    return plain and weight.dtype == working_precision(x) == x.dtype == torch.float32
