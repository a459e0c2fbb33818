"""The plots of a report as SVG that takes its colours and fonts from the page. No torch, no global state."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from lora_whisper.errors import MissingExtra
from lora_whisper.evaluation.metrics import Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib wants real colours; the page replaces these by its own, so that light and dark both work.
# What follows the comma is seen where there is no page around the plot.
_INK, _FAINT, _BEFORE, _AFTER, _PAPER = "#010203", "#040506", "#070809", "#0a0b0c", "#fcfdfe"
_SERIES = ("#0d0001", "#0d0002", "#0d0003", "#0d0004", "#0d0005", "#0d0006")
_PAGE_COLOURS = {
    _INK: "var(--ink, #1c1f23)",
    _FAINT: "var(--line, #d5d7d2)",
    _BEFORE: "var(--before, #c25700)",
    _AFTER: "var(--after, #0067a5)",
    _PAPER: "var(--paper, #fdfdfb)",
    _SERIES[0]: "var(--series-0, #0072b2)",  # Okabe and Ito, for every eye
    _SERIES[1]: "var(--series-1, #d55e00)",
    _SERIES[2]: "var(--series-2, #009e73)",
    _SERIES[3]: "var(--series-3, #cc79a7)",
    _SERIES[4]: "var(--series-4, #56b4e9)",
    _SERIES[5]: "var(--series-5, #e69f00)",
}
_MARKERS = "os^Dv"
SYMBOLS = "●■▲◆▼"
"""The markers of the first series, the second, …, for a legend in the page."""
N_COLOURS = len(_SERIES)
"""Series number n has the page's colour `--series-(n modulo this)`."""
_STYLE: Any = {  # matplotlib types its settings one by one
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "lora-whisper",
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Dots:
    """One row of a before-and-after plot; None where the row has no such rate."""

    label: str
    before: Rate | None
    after: Rate | None


@dataclass(frozen=True)
class Marks:
    """One row of a plot of several series; None where a series has no such rate."""

    label: str
    rates: Sequence[Rate | None]


@dataclass(frozen=True)
class Line:
    """One curve; `y` may hold NaN where nothing was measured."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def before_and_after(rows: Sequence[Dots], name: str) -> str:
    """Return an SVG with the rates of each row and their intervals on one axis in percent, called `name`.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with _style():
        figure, axes = _figure(height=0.9 + 0.5 * len(rows))
        for position, row in enumerate(rows):
            _interval(axes, row.before, position - 0.13, _BEFORE, hollow=True)
            _interval(axes, row.after, position + 0.13, _AFTER)
        _rows_axis(axes, [row.label for row in rows], name)
        return _svg(figure, f"{name} before and after, per language, with 95 % intervals")


def side_by_side(rows: Sequence[Marks], name: str, about: str = "per language, with 95 % intervals") -> str:
    """Return an SVG with the rates of each row, one mark and interval per series, on one axis called `name`.

    `about` says to those who cannot see it what the rows and the intervals are.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    n_series = max((len(row.rates) for row in rows), default=1)
    step = min(0.26, 0.7 / n_series)
    with _style():
        figure, axes = _figure(height=0.9 + len(rows) * max(0.36, 0.17 * n_series))
        for position, row in enumerate(rows):
            for number, rate in enumerate(row.rates):
                place = position + step * (number - (n_series - 1) / 2)
                _interval(axes, rate, place, _colour(number), marker=_marker(number))
        _rows_axis(axes, [row.label for row in rows], name)
        return _svg(figure, f"{name} {about}")


def curves(lines: Sequence[Line], name: str, *, percent: bool = False, over: str = "epoch") -> str:
    """Return an SVG with one curve per line, `name` on the y axis, over whole numbers such as epochs.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with _style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = _lines(lines, name, percent)
        axes.set_xlabel(over)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, f"{name} per {over}")


def by_group(groups: Sequence[str], lines: Sequence[Line], name: str) -> str:
    """Return an SVG with one curve of rates per line over the named groups; x counts the groups from 0.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with _style():
        figure, axes = _lines(lines, name, percent=True)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlim(-0.4, len(groups) - 0.6)
        return _svg(figure, f"{name} per group, per language")


def standalone(drawing: str) -> str:
    """Return an SVG of this module as a file of its own, which needs the names of its languages."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return drawing.replace("<svg ", f"<svg {spaces} ", 1)


@contextmanager
def _style() -> Iterator[None]:
    """Give the block matplotlib in the style of the page, and leave its settings as they were."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("plots need matplotlib: pip install 'lora-whisper[demo]'") from None
    with matplotlib.rc_context(_STYLE):
        yield


def _figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    return figure, axes


def _rows_axis(axes: "Axes", labels: Sequence[str], name: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{name} (%), lower is better")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.6)


def _interval(
    axes: "Axes", rate: Rate | None, y: float, colour: str, *, hollow: bool = False, marker: str = "o"
) -> None:
    if rate is None:
        return
    axes.hlines(y, 100 * rate.low, 100 * rate.high, color=colour, linewidth=2.2)
    face = _PAPER if hollow else colour
    (mark,) = axes.plot(100 * rate.rate, y, marker, markersize=7, color=colour, clip_on=False)
    mark.set(markerfacecolor=face, markeredgewidth=1.6)


def _lines(lines: Sequence[Line], name: str, percent: bool) -> "tuple[Figure, Axes]":
    figure, axes = _figure(height=3.4)
    for number, line in enumerate(lines):
        axes.plot(
            line.x,
            [100 * y for y in line.y] if percent else line.y,
            color=_colour(number),
            marker=_marker(number),
            markersize=4,
            clip_on=False,  # a whole marker also at zero
            linestyle="-" if number < N_COLOURS else "--",
            label=line.label,
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{name} (%)" if percent else name)
    axes.grid(axis="y", linewidth=0.6)
    figure.legend(handles=axes.get_lines(), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure, axes


def _colour(number: int) -> str:
    return _SERIES[number % N_COLOURS]


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]


def _svg(figure: "Figure", title: str) -> str:
    """Return `figure` as an `<svg>` element that scales with the page, the same bytes for the same data."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head = rf'<svg role="img" aria-label="{escape(title)}" \1>'
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', head, svg, count=1)
    for colour, page_colour in _PAGE_COLOURS.items():
        svg = svg.replace(colour, page_colour)
    return svg
