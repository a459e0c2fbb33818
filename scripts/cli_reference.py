"""Write docs/cli.md from the commands' own --help; with --check, only tell whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lora_whisper.cli import cli

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
WIDTH = 100
HEAD = """# Command line

Made by `make docs` from `--help`. Results go to stdout, progress and messages to stderr; `--json` prints
exactly one JSON object. Exit code 0: done; 1: failed; 2: wrong use; 130: interrupted.
"""


def commands(group: click.Group, path: tuple[str, ...] = ("lora-whisper",)) -> Iterator[tuple[str, str]]:
    """Name and help of every command that does something, in alphabetical order."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
            continue
        info = " ".join((*path, name))
        context = click.Context(
            command,
            info_name=info,
            terminal_width=WIDTH,
            show_default=True,
            help_option_names=["-h", "--help"],
        )
        yield info, command.get_help(context)


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## {name}\n\n```\n{text}\n```\n" for name, text in commands(cli))


def main() -> None:
    """Write or check."""
    if "--check" not in sys.argv:
        REFERENCE.write_text(reference(), encoding="utf-8")
    elif not REFERENCE.exists() or REFERENCE.read_text(encoding="utf-8") != reference():
        sys.exit(f"{REFERENCE}: not up to date; run make docs")


if __name__ == "__main__":
    main()
