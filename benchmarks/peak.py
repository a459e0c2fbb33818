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
    """The most that this process has held so far, in MiB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (MIB if sys.platform == "darwin" else 1024)


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
