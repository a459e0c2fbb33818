"""A report as Markdown, and how numbers are written in every kind of report."""

import re
from collections.abc import Sequence
from typing import Literal

from lora_whisper.evaluation.board import Board, Change, Mean, Row, judging_counts
from lora_whisper.evaluation.metrics import ErrorCounts, Rate, Unit
from lora_whisper.evaluation.sections import LanguageRow, Report
from lora_whisper.languages import language as find_language

MEASURES: dict[Unit, Literal["WER", "CER"]] = {"word": "WER", "character": "CER"}
"""The rate that judges a language scored in this unit."""
CHANGE_HEAD = ["system", "language", "rate", "before", "after", "difference", "p", "transcripts", "adapter"]


def to_markdown(report: Report) -> str:
    """Return the report as Markdown: verdict, table of languages, what is unchanged, environment."""
    parts = [f"# {_line(report.title)}", report.introduction, f"**{report.verdict()}**"]
    if report.board:
        parts += [board_markdown(report.board)]
    if report.languages:
        parts += [language_table(report.languages)]
    if report.unchanged:
        parts += [
            _markdown_table(("unchanged?", "hash before", "hash after", "logits"), _unchanged_cells(report))
        ]
    if report.environment:
        parts += [_markdown_table(("environment", ""), list(report.environment.items()))]
    return "\n\n".join(part for part in parts if part.strip("*")) + "\n"


def board_markdown(board: Board) -> str:
    """Return the systems side by side as Markdown tables: rates, then changes, then what to know of them."""
    head = ("language", "utterances", "rate", *board.names, "S / D / I")
    rates = [
        [
            f"**{cell}**" if number in best_columns(row) else cell
            for number, cell in enumerate(rate_cells(row))
        ]
        for row in board.rows
    ]
    parts = [_markdown_table(head, [*rates, *map(mean_cells, board.means)])]
    if board.before:
        parts += [_markdown_table(CHANGE_HEAD, [change_cells(one) for one in board.changes])]
    parts += ["\n".join(f"* {_markdown_cell(note)}" for note in board.notes)]
    return "\n\n".join(filter(None, parts))


def rate_cells(row: Row) -> list[str]:
    """Return the cells of one language: name, utterances, measure, a rate per system, kinds of errors."""
    return [
        f"{row.name} ({row.language})",
        f"{max(score.utterances for score in row.scores if score):,}",
        MEASURES[row.unit],
        *(f"{100 * rate.rate:.1f} ({interval(rate)})" if rate else "—" for rate in row.rates),
        "; ".join(kinds(judging_counts(score)) if score else "—" for score in row.scores),
    ]


def best_columns(row: Row) -> set[int]:
    """Return which of `rate_cells` hold the lowest rate of several systems."""
    return {number + 3 for number in range(len(row.scores)) if row.is_best(number)}


def mean_cells(mean: Mean) -> list[str]:
    """Return the cells of a mean, below those of `rate_cells`."""
    rates = [f"{100 * rate:.1f}" for rate in mean.rates]
    return [f"mean of {mean.languages} languages", "", MEASURES[mean.unit], *rates, ""]


def change_cells(one: Change) -> list[str]:
    """Return the cells of one change, below `CHANGE_HEAD`."""
    return [
        one.system,
        f"{find_language(one.language).name} ({one.language})",
        MEASURES[one.unit],
        f"{100 * one.before.rate:.1f}",
        f"{100 * one.after.rate:.1f}",
        points(one.difference.difference),
        p_value(one.difference.p_value),
        f"{one.rewritten:,} of {one.utterances:,} differ",
        one.adapter,
    ]


def language_table(rows: Sequence[LanguageRow]) -> str:
    """Return a Markdown table with WER and CER before and after, their intervals, and the errors by kind."""
    head = ("language", "scored in", "utterances", "WER before", "WER after", "CER before", "CER after")
    cells = [
        (
            f"{row.name} ({row.tag}){', new' if row.new else ''}",
            f"{row.unit}s",
            f"{row.after.utterances}",
            *(percent(score.wer) if row.unit == "word" else "—" for score in (row.before, row.after)),
            percent(row.before.cer),
            percent(row.after.cer),
            kinds(judging_counts(row.after)),
            f"{row.adapter_parameters:,}",
        )
        for row in rows
    ]
    return _markdown_table((*head, "S / D / I after", "adapter parameters"), cells)


def percent(rate: Rate) -> str:
    """Return a rate for reading: `12.3 % (10.1–14.6)`."""
    return f"{short_percent(rate.rate)} ({interval(rate)})"


def short_percent(rate: float) -> str:
    """Return a rate without its interval: `12.3 %`."""
    return f"{100 * rate:.1f} %"


def interval(rate: Rate) -> str:
    """Return the interval of a rate, in percent: `10.1–14.6`."""
    return f"{100 * rate.low:.1f}–{100 * rate.high:.1f}"


def points(rate: Rate) -> str:
    """Return a difference of rates in percentage points: `−3.1 (−4.0 to −2.2)`."""
    return f"{_signed(rate.rate)} ({_signed(rate.low)} to {_signed(rate.high)})"


def p_value(p: float) -> str:
    """Return a p-value for reading: `0.03`, or `< 0.01`."""
    return "< 0.01" if p < 0.01 else f"{p:.2f}"


def kinds(counts: ErrorCounts) -> str:
    """Return substitutions, deletions and insertions: `12 / 3 / 4`."""
    return f"{counts.substitutions:,} / {counts.deletions:,} / {counts.insertions:,}"


def _signed(difference: float) -> str:
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")


def _line(text: str) -> str:
    return " ".join(text.split())


def _unchanged_cells(report: Report) -> list[tuple[str, ...]]:
    logits = {None: "not compared", True: "equal", False: "DIFFERENT"}
    return [
        (
            f"{'✓' if check.holds else '✗'} {check.name}",
            f"`{check.hash_before[:12]}`",
            f"`{check.hash_after[:12]}`",
            logits[check.logits_equal],
        )
        for check in report.unchanged
    ]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_markdown_cell(cell) for cell in line)} |" for line in lines)


def _markdown_cell(text: str) -> str:
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", _line(text).replace("|", "\\|"))
