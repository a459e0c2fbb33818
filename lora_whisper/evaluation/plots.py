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
_INK, _FAINT, _BEFORE, _AFTER, _PAPER = "#010203", "#040506", "#070809", "#0a0b0c", "#fcfdfe"
_PAGE_COLOURS = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    _BEFORE: "var(--before)",
    _AFTER: "var(--after)",
    _PAPER: "var(--paper)",
}
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito, for every eye
_MARKERS = "os^Dv"
_STYLE: Any = {  # matplotlib types its settings one by one
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "lora-whisper",
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
            _interval(axes, row.after, position + 0.13, _AFTER, hollow=False)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{name} (%), lower is better")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", linewidth=0.6)
        return _svg(figure, f"{name} before and after, per language, with 95 % intervals")


def curves(lines: Sequence[Line], name: str, *, percent: bool = False) -> str:
    """Return an SVG with one curve per line over the epochs, `name` on the y axis.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with _style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = _figure(height=3.4)
        for number, line in enumerate(lines):
            axes.plot(
                line.x,
                [100 * y for y in line.y] if percent else line.y,
                color=_LINES[number % len(_LINES)],
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4,
                linestyle="-" if number < len(_LINES) else "--",
                label=line.label,
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{name} (%)" if percent else name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.6)
        figure.legend(
            handles=axes.get_lines(), loc="outside upper center", ncols=3, frameon=False, fontsize=9
        )
        return _svg(figure, f"{name} per epoch, per language")


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


def _interval(axes: "Axes", rate: Rate | None, y: float, colour: str, *, hollow: bool) -> None:
    if rate is None:
        return
    axes.hlines(y, 100 * rate.low, 100 * rate.high, color=colour, linewidth=2.2)
    face = _PAPER if hollow else colour
    axes.plot(100 * rate.rate, y, "o", markersize=7, color=colour, markerfacecolor=face, markeredgewidth=1.6)


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
