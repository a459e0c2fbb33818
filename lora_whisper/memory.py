"""What this process holds in memory."""

import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """The most that this process has held so far.

    Linux counts in `ru_maxrss` what the process that started this one held at that moment, so there it is
    not asked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        values = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(values["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
