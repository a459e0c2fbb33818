"""How long it takes until something happens: the command's `--help`, and the import of the package."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import MissingPeer, Row, Setting

HELP_GOAL_S, IMPORT_GOAL_S = 0.4, 0.1
REPEATS = 7
_IMPORT = "import time; began = time.perf_counter(); import lora_whisper; print(time.perf_counter() - began)"


def measure(setting: Setting) -> Iterator[Row]:  # noqa: ARG001  nothing to choose
    """Both rows."""
    yield _row("`lora-whisper --help`, the whole process", _help_s, HELP_GOAL_S)
    yield _row("`import lora_whisper`, in a new interpreter", _import_s, IMPORT_GOAL_S)


def _row(name: str, seconds: Callable[[], float], goal: float) -> Row:
    times = [seconds() for _ in range(REPEATS + 1)][1:]  # the first reads the files from disk
    return Row(name, None, min(times), max(times), goal, seconds=statistics.median(times))


def _help_s() -> float:
    beside = Path(sys.executable).with_name("lora-whisper")
    command = str(beside) if beside.exists() else shutil.which("lora-whisper")
    if command is None:
        raise MissingPeer("the command lora-whisper is not installed; pip install -e .")
    began = time.perf_counter()
    subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _import_s() -> float:
    done = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True)
    return float(done.stdout)
