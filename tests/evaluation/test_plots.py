"""Plots are small, repeatable SVG that takes its colours from the page."""

import math
import re
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from lora_whisper.errors import MissingExtra
from lora_whisper.evaluation.metrics import Rate
from lora_whisper.evaluation.plots import Dots, Line, Marks, before_and_after, by_group, curves, side_by_side

ROWS = [
    Dots("Polish", Rate(0.5, 0.4, 0.6), Rate(0.1, 0.05, 0.2)),
    Dots("Welsh & <new>", Rate(1.7, 1.2, 3.0), Rate(0.0, 0.0, 0.0)),
    Dots("Chinese †", None, None),
]
MARKS = [
    Marks("Polish $x_", [Rate(0.5, 0.4, 0.6), Rate(0.1, 0.05, 0.2), None]),
    Marks("Welsh & <new>", [Rate(1.7, 1.2, 3.0), Rate(0.0, 0.0, 0.0), Rate(0.2, 0.1, 0.3)]),
]
LINES = [Line(f"language {n}", [0, 1, 2], [1.0, math.nan, 0.5 / (n + 1)]) for n in range(9)]


def texts(svg: str) -> list[str]:
    """Return the words an SVG shows; parsing it also shows that it is well-formed."""
    declared = svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1)
    return ["".join(element.itertext()).strip() for element in ET.fromstring(declared).iter("text")]


@pytest.mark.parametrize(
    "svg",
    [
        before_and_after(ROWS, "Word error rate"),
        curves(LINES, "dev CER", percent=True),
        curves([], "dev loss"),
        side_by_side(MARKS, "Word error rate"),
        side_by_side([Marks("only one", [Rate(0.5, 0.4, 0.6)])], "Word error rate"),
        by_group(["short", "long", "longer"], LINES, "a $system_: WER"),
    ],
)
def test_colours_come_from_the_page_and_nothing_from_elsewhere(svg: str) -> None:
    assert "var(--ink," in svg
    assert "#000000" not in svg
    assert "http" not in svg
    assert svg.startswith('<svg role="img" aria-label="')


def test_labels_and_percent_are_shown() -> None:
    shown = texts(before_and_after(ROWS, "Word error rate"))
    assert {"Polish", "Welsh & <new>", "Chinese †", "Word error rate (%), lower is better"} <= set(shown)
    assert any(text.isdigit() and int(text) >= 200 for text in shown), "a rate may be above 100 %"
    assert {"epoch", "dev CER (%)", "language 8"} <= set(texts(curves(LINES, "dev CER", percent=True)))
    assert "languages" in texts(curves(LINES, "CER", over="languages"))


def test_the_same_data_give_the_same_bytes_and_settings_stay() -> None:
    settings = dict(mpl.rcParams)
    assert before_and_after(ROWS, "CER") == before_and_after(ROWS, "CER")
    assert dict(mpl.rcParams) == settings


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"lora-whisper\[demo\]"):
        curves(LINES, "dev loss")


def test_series_differ_in_colour_and_in_shape() -> None:
    svg = side_by_side(MARKS, "Word error rate")
    assert all(f"var(--series-{number}," in svg for number in range(3))
    markers = set(re.findall(r'<path id="(m[0-9a-f]+)" d="([^"]*)"', svg))
    assert len({shape for _, shape in markers if len(shape) > 30}) >= 3


def test_names_are_shown_as_they_are() -> None:
    assert {"Polish $x_", "Welsh & <new>"} <= set(texts(side_by_side(MARKS, "WER")))
    assert {"short", "longer", "a $system_: WER (%)"} <= set(
        texts(by_group(["short", "longer"], LINES, "a $system_: WER"))
    )
