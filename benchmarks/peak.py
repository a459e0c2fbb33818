"""A process that does one variant once and prints its peak memory: `python -m benchmarks.peak …`.

`measure.peak_mib` starts it: memory that another variant used before must not count.
"""

import argparse
import json
import resource
import sys
from pathlib import Path

from benchmarks import decoding, faster, training
from benchmarks.measure import MIB, Setting

VARIANTS = {"training": training.variant, "decoding": decoding.variant, "faster": faster.variant}


def peak_mib() -> float:
    """The most that this process has held so far, in MiB.

    Linux counts in `ru_maxrss` what the process that started this one held at that moment.
    """
    status = Path("/proc/self/status")
    if status.exists():
        values = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(values["VmHWM"].split()[0]) / 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (MIB if sys.platform == "darwin" else 1024)


def main() -> None:
    """Prepare the variant, which meets its largest shapes, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peak", description=__doc__)
    parser.add_argument("topic", choices=VARIANTS)
    parser.add_argument("variant")
    parser.add_argument("geometry")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    setting = Setting(False, "cpu", arguments.folder)
    VARIANTS[arguments.topic](arguments.variant, arguments.geometry, setting).prepare()
    print(json.dumps({"peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
