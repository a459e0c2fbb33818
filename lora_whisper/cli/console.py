"""What commands print: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.errors import LoraWhisperError

if TYPE_CHECKING:
    from lora_whisper.data.manifest import Utterance

Advance = Callable[[int, int], None]
"""Told of progress: how much is done, and of how much."""


def say(message: str) -> None:
    """Print a message for people on stderr, as one line."""
    click.echo(" ".join(message.splitlines()), err=True)


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, columns aligned."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


class Skipped:
    """Told of utterances that cannot be used: says so at once, keeps them for the end.

    Attributes:
        files: audio file and reason of each.
    """

    def __init__(self) -> None:
        self.files: list[dict[str, str]] = []

    def __call__(self, utterance: "Utterance", error: LoraWhisperError) -> None:
        """Take note of one."""
        audio, reason = str(utterance.audio), str(error)
        self.files.append({"audio": audio, "error": reason})
        say(f"skipped: {reason if audio in reason else f'{audio}: {reason}'}")


@contextmanager
def progress(label: str, shown: bool) -> Iterator[Advance]:
    """Yield what moves a progress bar on stderr; without `shown` or a terminal there is no bar."""
    if not shown or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def resumable(run: Path) -> Iterator[None]:
    """Let Ctrl-C tell that the work in folder `run` can be taken up again."""
    try:
        yield
    except KeyboardInterrupt:
        message = f"stopped; the same command goes on from the last checkpoint in {run}"
        raise KeyboardInterrupt(message) from None
