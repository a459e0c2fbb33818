"""Measure: `python -m benchmarks [--quick] [--device cuda] [--only NAME …] [--json]`.

Each row runs ours and a peer in turns, after a warm-up, on the same machine, weights and audio, and reports
the median ratio of their times with the range of the ratios seen. `python -m benchmarks.page` makes
docs/benchmarks.md of the JSON.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.bare import stand_in
from benchmarks.measure import MissingPeer, Row, Setting
from benchmarks.page import figure

OUT = Path("runs/benchmarks/benchmarks.json")
TOPICS = (
    "startup",
    "training",
    "agreement",
    "decoding",
    "faster",
    "mixed",
    "adapters",
    "methods",
    "context",
    "floor",
    "hotspots",
)
"""In this order; each is measured by the module of its name. All but `startup` are for any device."""
ASKED_FOR = ("bits",)
"""Topics without a goal that are measured only where `--only` names them."""
NOT_QUICK = ("methods", "context", "hotspots")
"""Topics that a quick run leaves out: it has no goals in them."""


def measure_topic(name: str, setting: Setting) -> Iterator[Row]:
    """The rows of a topic, as they are measured; its module is imported now, with what it needs."""
    module = import_module(f"benchmarks.{name}")
    measure: Callable[[Setting], Iterator[Row]] = module.measure
    return measure(setting)


def run(names: list[str], setting: Setting, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The measurements; each row is said and written to `out` as soon as it is there."""
    from benchmarks.machine import describe
    from lora_whisper.files import write_json

    result: dict[str, Any] = {"machine": describe(setting.device), "quick": setting.quick}
    result |= {"seconds": {}, "skipped": {}, "rows": []}
    for name in names:
        began = time.perf_counter()
        try:
            for row in measure_topic(name, setting):
                result["rows"].append({"topic": name, **asdict(row), "met": row.met})
                say(line(row))
                write_json(out, result)
        except MissingPeer as missing:
            result["skipped"][name] = str(missing)
            say(f"{name}: {missing}")
        result["seconds"][name] = round(time.perf_counter() - began, 1)
        write_json(out, result)
    return result


def line(row: Row) -> str:
    """A row of the table on the console."""
    goal = "" if row.goal is None else f"  goal {row.goal:g}{'' if row.met else ', not met'}"
    return f"{row.name:92} {figure(asdict(row)):>26}{goal}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of what has a goal, small models only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=TOPICS + ASKED_FOR,
        metavar="NAME",
        help=f"{', '.join(TOPICS)}; besides, {', '.join(ASKED_FOR)}",
    )
    parser.add_argument("--geometry", nargs="+", default=[], help="of the rows that are measured for several")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    arguments = parser.parse_args()
    names = arguments.only or [name for name in TOPICS if not (arguments.quick and name in NOT_QUICK)]
    warnings.simplefilter("ignore")  # of peers, about themselves
    stand_in()
    table = sys.stderr if arguments.json else sys.stdout
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(
            arguments.quick,
            arguments.device,
            Path(folder),
            tuple(arguments.geometry),
            not arguments.no_memory,
        )
        result = run(names, setting, arguments.out, partial(print, file=table, flush=True))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
