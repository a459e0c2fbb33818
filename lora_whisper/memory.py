"""What this process holds in memory, and whether it gives back at once what it does not need."""

import ctypes
import os
import sys
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Names of options in glibc's malloc.h."""
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 64 << 20}
_GIVEN_BACK = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}
"""What glibc arrives at by itself once large blocks have been freed."""


def keep_freed_memory(keep: bool = True) -> None:
    """Let freed memory of up to a GiB be used again instead of going back to the system.

    A pass through a model makes and frees hundreds of tensors of tens of MB. glibc maps each of these anew,
    and the system clears every page at its first touch, which takes longer than to compute what is in it
    (docs/log.md). Where there is no glibc, or its options were set in the environment, nothing is changed.

    Args:
        keep: False for what glibc does by itself.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (_KEPT if keep else _GIVEN_BACK).items():
            mallopt(option, value)


def give_freed_memory_back() -> None:
    """Return to the system what is free now, where there is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_memory_bytes() -> int:
    """The most that this process has held so far.

    Linux counts in `ru_maxrss` what the process that started this one held at that moment, so there it is
    not asked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        values = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(values["VmHWM"].split()[0]) * 1024
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
