"""What a training run tells while it goes on: progress bar, log lines, TensorBoard."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_whisper.errors import MissingExtra
from lora_whisper.files import prepare_folder
from lora_whisper.training.state import EpochReport, StepReport, TrackState


class Monitor:
    """Hears of a run's events; this one keeps silent."""

    def start(self, states: Sequence[TrackState]) -> None:
        """The run begins or resumes."""

    def step(self, report: StepReport) -> None:
        """A step is done."""

    def epoch(self, report: EpochReport) -> None:
        """A track has finished an epoch."""

    def finish(self) -> None:
        """The run is over."""


class Monitors(Monitor):
    """Several monitors as one."""

    def __init__(self, *monitors: Monitor) -> None:
        self._monitors = monitors

    def start(self, states: Sequence[TrackState]) -> None:
        """The run begins or resumes."""
        for monitor in self._monitors:
            monitor.start(states)

    def step(self, report: StepReport) -> None:
        """A step is done."""
        for monitor in self._monitors:
            monitor.step(report)

    def epoch(self, report: EpochReport) -> None:
        """A track has finished an epoch."""
        for monitor in self._monitors:
            monitor.epoch(report)

    def finish(self) -> None:
        """The run is over."""
        for monitor in self._monitors:
            monitor.finish()


class ConsoleMonitor(Monitor):
    """A progress bar with the time left and audio-seconds per second, and a line per epoch, on stderr."""

    def start(self, states: Sequence[TrackState]) -> None:
        """Open the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        total = max(len(state.plan) for state in states)
        done = max(state.step for state in states)
        self._task = self._progress.add_task("training", total=total, completed=done, note="")
        self._began = time.monotonic()
        self._audio_s = 0.0
        self._progress.start()

    def step(self, report: StepReport) -> None:
        """Advance the bar."""
        self._audio_s += report.duration_s
        speed = self._audio_s / (time.monotonic() - self._began)
        loss = sum(report.losses.values()) / len(report.losses)
        note = f"loss {loss:.3f}  {speed:.0f} audio-s/s"
        self._progress.update(self._task, completed=report.step, note=note)

    def epoch(self, report: EpochReport) -> None:
        """Print the epoch's scores."""
        shown = {name: value for name, value in report.scores.items() if name != "score"}
        scores = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self._progress.console.print(f"{report.track}  epoch {report.epoch}  step {report.step}  {scores}")

    def finish(self) -> None:
        """Close the bar."""
        self._progress.stop()


class LogMonitor(Monitor):
    """One JSON line per epoch, and per `every` steps, in `folder/log.jsonl`."""

    def __init__(self, folder: Path, every: int = 20) -> None:
        self._path = prepare_folder(folder) / "log.jsonl"
        self._every = every
        self._began = time.monotonic()

    def step(self, report: StepReport) -> None:
        """Write every n-th step."""
        if report.step % self._every == 0:
            self._write({"event": "step", **asdict(report)})

    def epoch(self, report: EpochReport) -> None:
        """Write every epoch."""
        self._write({"event": "epoch", **asdict(report)})

    def _write(self, record: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "elapsed_s": round(time.monotonic() - self._began, 1)}) + "\n")


class TensorBoardMonitor(Monitor):
    """Losses, gradient norms, learning rates and scores as TensorBoard event files in a folder.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra(
                "TensorBoard is not installed; run: pip install 'lora-whisper[demo]'"
            ) from None
        self._writer = SummaryWriter(str(prepare_folder(folder)))

    def step(self, report: StepReport) -> None:
        """Write the step's curves."""
        curves = {
            "loss": report.losses,
            "gradient-norm": report.norms,
            "learning-rate": report.learning_rates,
        }
        for curve, values in curves.items():
            for track, value in values.items():
                self._writer.add_scalar(f"{curve}/{track}", value, report.step)

    def epoch(self, report: EpochReport) -> None:
        """Write the epoch's scores."""
        for name, value in report.scores.items():
            self._writer.add_scalar(f"dev-{name}/{report.track}", value, report.step)

    def finish(self) -> None:
        """Flush and close."""
        self._writer.close()
