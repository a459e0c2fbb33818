"""Frozen weights in 8 or 4 bits, decoded for each product, so that large backbones fit into small GPUs.

8 bits: blocks of 256 on the dynamic scale of Dettmers et al. 2021 (arXiv 2110.02861). 4 bits: blocks of 64 on
the NormalFloat scale, their own scales in 8 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314). Both are
those of bitsandbytes. Adapters keep their precision, and so do embeddings, norms and convolutions.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lora_whisper.errors import MissingExtra, UsageError

BITS = (8, 4)
_DETACH, _CONVERT = torch.ops.aten.detach.default, torch.ops.aten._to_copy.default


class FewBits(Tensor):
    """A weight that is kept as codes and takes part in any operation as what they stand for.

    Attributes:
        codes: what is kept, beside the scales of its blocks.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    codes: Tensor
    _decode: Callable[[Tensor], Tensor]

    @staticmethod
    def __new__(  # noqa: D102
        cls, codes: Tensor, decode: Callable[[Tensor], Tensor], shape: torch.Size, dtype: torch.dtype
    ) -> "FewBits":
        made: FewBits = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=codes.device)
        made.codes, made._decode = codes, decode
        return made

    def __init__(self, *_: object) -> None:
        super().__init__()

    @classmethod
    def of(cls, weight: Tensor, bits: int) -> "FewBits":
        """The weight in so many bits, on its device.

        Raises:
            MissingExtra: bitsandbytes is not installed.
        """
        library, rounded = _bitsandbytes(), weight.detach().to(torch.bfloat16)
        if bits == 4:
            coded = library.quantize_4bit(rounded, blocksize=64, quant_type="nf4", compress_statistics=True)
            decode = library.dequantize_4bit
        else:
            coded = library.quantize_blockwise(rounded, blocksize=256)
            decode = library.dequantize_blockwise
        codes, state = coded
        return cls(codes, lambda kept: decode(kept, state), weight.shape, weight.dtype)

    def decoded(self) -> Tensor:
        """What the codes stand for."""
        return self._decode(self.codes).to(self.dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """The operation on what the codes stand for; a weight in another precision stays one in few bits."""
        kwargs = kwargs or {}
        one = args[0] if args else None
        if isinstance(one, FewBits) and (func is _DETACH or (func is _CONVERT and set(kwargs) == {"dtype"})):
            return FewBits(one.codes, one._decode, one.shape, kwargs.get("dtype", one.dtype))
        args, kwargs = tree_map_only(FewBits, FewBits.decoded, (args, kwargs))
        return func(*args, **kwargs)


def keep_in_few_bits(model: nn.Module, bits: int, device: torch.device | str) -> None:
    """Move a model to a device, the weights of its linear layers in few bits; never all of it there in many.

    Raises:
        UsageError: no such number of bits.
        MissingExtra: bitsandbytes is not installed.
    """
    if bits not in BITS:
        raise UsageError(f"weights are kept in 8 or 4 bits, not in {bits}")
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            there = parameter.detach().to(device)
            few = isinstance(module, nn.Linear) and name == "weight"
            kept = FewBits.of(there, bits) if few else there
            setattr(module, name, nn.Parameter(kept, requires_grad=False))


def _bitsandbytes() -> Any:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that it can do without
    try:
        return importlib.import_module("bitsandbytes.functional")
    except ModuleNotFoundError:
        raise MissingExtra(
            "weights in few bits need bitsandbytes, which is not installed; pip install lora-whisper[bits]"
        ) from None
