"""A report as one HTML page that needs nothing from anywhere else."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Any

from lora_whisper.errors import MissingExtra
from lora_whisper.evaluation.alignment import direction
from lora_whisper.evaluation.board import Board, Row, judging_counts
from lora_whisper.evaluation.details import DURATIONS, Breakdown, Confusions, Worst
from lora_whisper.evaluation.metrics import Unit
from lora_whisper.evaluation.normalizers import NORMALIZERS
from lora_whisper.evaluation.players import Clip, Player, players
from lora_whisper.evaluation.plots import (
    N_COLOURS,
    SYMBOLS,
    Dots,
    Line,
    Marks,
    before_and_after,
    by_group,
    curves,
    side_by_side,
)
from lora_whisper.evaluation.sections import Example, LanguageRow, LearningCurve, Report
from lora_whisper.evaluation.tables import MEASURES, interval, kinds, p_value, points, short_percent
from lora_whisper.languages import language as find_language

if TYPE_CHECKING:
    from jinja2 import Environment

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class LanguageDetails:
    """All that is shown of one language below the tables."""

    language: str
    unit: Unit
    breakdowns: tuple[Breakdown, ...]
    confusions: tuple[Confusions, ...]
    worst: tuple[tuple[Worst, Player], ...]


def to_html(report: Report) -> str:
    """Return the report as one HTML page, with its plots and its sound inside.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    environment = _environment()
    from markupsafe import Markup

    board = report.board
    plots = {
        "board_plots": list(_board_plots(board)) if board else [],
        "length_plots": list(_length_plots(board)) if board else [],
        "rate_plots": _rate_plots(report.languages),
        "curve_plots": _curve_plots(report.curves),
    }
    page = environment.get_template("report.html").render(
        report=report,
        board=board,
        details=_details(board) if board else [],
        examples=_with_players(report.examples),
        **{name: [Markup(plot) for plot in some] for name, some in plots.items()},
    )
    return _UNPRINTABLE.sub("\ufffd", page)


def _environment() -> "Environment":
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError:
        raise MissingExtra("HTML reports need jinja2: pip install 'lora-whisper[demo]'") from None
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_template),
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": short_percent,
        "interval": interval,
        "points": points,
        "p_value": p_value,
        "kinds": kinds,
        "judging_counts": judging_counts,
        "language_name": lambda tag: find_language(tag).name,
        "direction": direction,
    }
    environment.filters |= filters
    environment.globals |= {
        "measures": MEASURES,
        "normalizers": NORMALIZERS,
        "symbols": SYMBOLS,
        "n_colours": N_COLOURS,
    }
    return environment


def _template(name: str) -> str:
    return package_files("lora_whisper.evaluation").joinpath(name).read_text(encoding="utf-8")


def _details(board: Board) -> list[LanguageDetails]:
    """Return what is known of each language; the worst utterance of every language gets its sound first."""
    ranks: dict[str, int] = {}
    queue: list[tuple[int, int]] = []
    for number, one in enumerate(board.worst):
        ranks[one.utterance.language] = rank = ranks.get(one.utterance.language, -1) + 1
        queue.append((rank, number))
    queue.sort()
    made = players(board.worst[number].clip for _, number in queue)
    sounds = {number: player for (_, number), player in zip(queue, made, strict=True)}
    heard = [(one, sounds[number]) for number, one in enumerate(board.worst)]
    return [_language_details(board, row, heard) for row in board.rows]


def _language_details(board: Board, row: Row, heard: Sequence[tuple[Worst, Player]]) -> LanguageDetails:
    return LanguageDetails(
        row.language,
        row.unit,
        tuple(one for one in board.breakdowns if one.language == row.language),
        tuple(one for one in board.confusions if one.language == row.language),
        tuple(pair for pair in heard if pair[0].utterance.language == row.language),
    )


def _with_players(examples: Sequence[Example]) -> list[tuple[Example, Player]]:
    made = players(Clip(example.audio) if example.audio else None for example in examples)
    return list(zip(examples, made, strict=True))


def _board_plots(board: Board) -> Iterator[str]:
    """Yield one plot for WER and one for CER, never both on one axis; WER only where words exist."""
    words = [row for row in board.rows if row.unit == "word"]
    if words:
        wer = [Marks(row.name, [score.wer if score else None for score in row.scores]) for row in words]
        yield side_by_side(wer, "Word error rate")
    cer = [Marks(row.name, [score.cer if score else None for score in row.scores]) for row in board.rows]
    yield side_by_side(cer, "Character error rate")


def _length_plots(board: Board) -> Iterator[str]:
    """Yield one plot of rates over the length of utterances for each system and measure."""
    found = [one for one in board.breakdowns if one.by == "duration"]
    for number, system in enumerate(board.names):
        for unit, measure in MEASURES.items():
            mine = [one for one in found if find_language(one.language).unit == unit]
            used = {group.name for one in mine for group in one.groups}
            names = [name for name, _ in DURATIONS if name in used]
            lines = [_length_line(one, number, names) for one in mine]
            if lines:
                yield by_group(names, lines, f"{system}: {measure}" if len(board.names) > 1 else measure)


def _length_line(breakdown: Breakdown, system: int, names: Sequence[str]) -> Line:
    known = [(names.index(group.name), group.rates[system]) for group in breakdown.groups]
    points = [(place, rate.rate) for place, rate in known if rate]
    label = find_language(breakdown.language).name
    return Line(label, [place for place, _ in points], [rate for _, rate in points])


def _rate_plots(rows: Sequence[LanguageRow]) -> list[str]:
    """Return one plot for CER and one for WER, never both on one axis; WER only where words exist."""
    cer, wer = [], []
    for row in rows:
        label = f"{row.name}{' (new)' if row.new else ''}"
        in_words = row.unit == "word"
        cer.append(Dots(label, row.before.cer, row.after.cer))
        wer.append(Dots(label, row.before.wer, row.after.wer) if in_words else Dots(f"{label} †", None, None))
    plots = [before_and_after(cer, "Character error rate")] if rows else []
    if any(dots.after for dots in wer):
        plots.append(before_and_after(wer, "Word error rate"))
    return plots


def _curve_plots(learning: Sequence[LearningCurve]) -> list[str]:
    if not learning:
        return []
    names = [find_language(curve.language).name for curve in learning]
    loss = [Line(name, one.epochs, one.dev_loss) for name, one in zip(names, learning, strict=True)]
    cer = [Line(name, one.epochs, one.dev_cer) for name, one in zip(names, learning, strict=True)]
    return [curves(loss, "dev loss"), curves(cer, "dev CER", percent=True)]
