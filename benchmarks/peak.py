"""A process that does one variant once and prints its peak memory: `python -m benchmarks.peak …`.

`measure.peak_mib` starts it: memory that another variant used before must not count.
"""

import argparse
import json
from pathlib import Path

from benchmarks import decoding, faster, training
from benchmarks.measure import MIB, Setting
from lora_whisper.memory import peak_memory_bytes

VARIANTS = {"training": training.variant, "decoding": decoding.variant, "faster": faster.variant}


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
    print(json.dumps({"peak_mib": peak_memory_bytes() / MIB}))


if __name__ == "__main__":
    main()
