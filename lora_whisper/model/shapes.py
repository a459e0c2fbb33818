"""Few shapes where each new one is dear: oneDNN compiles a kernel for every shape of a bf16 product on a CPU.

That takes 1 to 15 ms, as long as ten to a hundred products of `mini` do, and it keeps the last 1,024 kernels
(docs/log.md). So sizes which differ from batch to batch are rounded up where something may be added.
"""

from torch import Tensor

from lora_whisper.model.precision import working_precision

STEPS_PER_OCTAVE = 16
"""Sizes between one power of two and the next: at most a sixteenth is added, a thirty-second in the mean."""


def compiled(x: Tensor) -> bool:
    """Whether products with x need a compiled kernel for each shape."""
    return x.device.type == "cpu" and working_precision(x).itemsize == 2


def rounded_up(size: int, least: int = 8) -> int:
    """The next of few sizes that are multiples of `least`."""
    multiple = max(least, (1 << size.bit_length()) // (2 * STEPS_PER_OCTAVE))
    return -(-size // multiple) * multiple
