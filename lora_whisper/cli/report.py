"""`report`: result files become one page, or tables for a paper."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.cli.console import print_json, print_table, say
from lora_whisper.cli.options import FILE, gathered

if TYPE_CHECKING:
    from lora_whisper.evaluation.board import Board, Change
    from lora_whisper.evaluation.sections import Report

DEFAULT_PAGE = Path("report.html")


@dataclass(frozen=True)
class Printed:
    """What goes to stdout instead of a plain table."""

    markdown: bool
    latex: bool
    as_json: bool

    @property
    def anything(self) -> bool:
        """True if one of them was asked for."""
        return self.markdown or self.latex or self.as_json


printed_options = gathered(
    "printed",
    Printed,
    click.option("--markdown", is_flag=True, help="Print the tables as Markdown."),
    click.option("--latex", is_flag=True, help="Print the tables as LaTeX, for booktabs."),
    click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout."),
)


@click.command()
@click.argument("results", type=FILE, nargs=-1, required=True)
@click.option("--before", type=FILE, metavar="RESULT", help="Show what has changed since this one.")
@click.option(
    "--out",
    type=FILE,
    metavar="FILE",
    help="The page, .html or .md.  [default: report.html; none with --markdown, --latex, --json]",
)
@click.option(
    "--worst", type=click.IntRange(min=0), default=10, metavar="N", help="Utterances a language to show."
)
@click.option("--similarity", type=FILE, metavar="CSV", help="Also show what `similarity --csv` wrote.")
@click.option("--normalizer", help="Score all results by this one.  [default: the one in the files]")
@printed_options
def report(
    results: tuple[Path, ...],
    before: Path | None,
    out: Path | None,
    worst: int,
    similarity: Path | None,
    normalizer: str | None,
    printed: Printed,
) -> None:
    """Show RESULTS of `evaluate --out` side by side.

    Each file is a system, called after the file. The page holds rates with intervals, kinds of errors, what
    was gained and forgotten since --before, rates by length and speaker, frequent errors, and the worst
    utterances aligned, with their sound where the audio is still there. It needs no other file.
    """
    from lora_whisper.evaluation.report import (
        board_report,
        check_path,
        load_similarity,
        load_systems,
        write_report,
    )

    page = out or (None if printed.anything else DEFAULT_PAGE)
    if page is not None:
        check_path(page)
    matrix = load_similarity(similarity) if similarity else None
    systems = load_systems([*results, *([before] if before else [])], normalizer)
    found = board_report(systems[: len(results)], systems[len(results)] if before else None, n_worst=worst)
    if page is not None:
        write_report(replace(found, similarity=matrix), page)
    _print(found, page, printed)


def _print(report: "Report", page: Path | None, printed: Printed) -> None:
    """Print what was asked for, a plain table if nothing was; remarks go to stderr."""
    board = report.board
    if board is None:
        return
    for remark in filter(None, (*board.notes, *board.verdict().split("\n"))):
        say(remark)
    if page is not None:
        say(f"report: {page}")
    texts = _texts(board, printed)
    if printed.as_json:
        print_json({"report": str(page) if page else None, **_summary(board), **texts})
    elif texts:
        click.echo("\n\n".join(text.rstrip("\n") for text in texts.values()))
    else:
        _print_rates(board)


def _texts(board: "Board", printed: Printed) -> dict[str, str]:
    from lora_whisper.evaluation.latex import to_latex
    from lora_whisper.evaluation.tables import board_markdown

    texts = {}
    if printed.markdown:
        texts["markdown"] = board_markdown(board)
    if printed.latex:
        texts["latex"] = to_latex(board)
    return texts


def _print_rates(board: "Board") -> None:
    from lora_whisper.evaluation.tables import mean_cells, rate_cells

    rows = [*map(rate_cells, board.rows), *map(mean_cells, board.means)]
    print_table(["language", "utterances", "rate", *board.names, "S / D / I"], rows)


def _summary(board: "Board") -> dict[str, Any]:
    return {
        "systems": {system.name: system.result.summary() for system in board.systems},
        "changes": [_change(one) for one in board.changes],
        "notes": list(board.notes),
    }


def _change(one: "Change") -> dict[str, Any]:
    return {
        "system": one.system,
        "language": one.language,
        "unit": one.unit,
        "adapter": one.adapter,
        "before": asdict(one.before),
        "after": asdict(one.after),
        "difference": asdict(one.difference.difference),
        "p_value": one.difference.p_value,
        "utterances": one.utterances,
        "transcripts_changed": one.rewritten,
    }
