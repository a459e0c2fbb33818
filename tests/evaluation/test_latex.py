"""LaTeX tables are balanced and escaped, and say what the board says."""

import re

import pytest
from made_results import BAD, GOOD, made_result

from lora_whisper.evaluation.board import Board, board
from lora_whisper.evaluation.details import System
from lora_whisper.evaluation.latex import latex, to_latex
from lora_whisper.evaluation.tables import board_markdown

NAMES = ("bare_100%", r"lo\ra {$x^2$} & ~#1 <b>|")


@pytest.fixture(scope="module")
def found() -> Board:
    bare, lora = (System(name, made_result(heard)) for name, heard in zip(NAMES, (BAD, GOOD), strict=True))
    return board([bare, lora], bare)


def test_every_table_is_complete(found: Board) -> None:
    text = to_latex(found)
    for part in ("table", "tabular"):
        assert text.count(rf"\begin{{{part}}}") == text.count(rf"\end{{{part}}}") == 2
    for rule in ("toprule", "bottomrule"):
        assert text.count(rf"\{rule}") == 2


def test_every_row_has_as_many_cells_as_columns(found: Board) -> None:
    for table in re.findall(r"\\begin\{tabular\}\{(.*?)\}\n(.*?)\\end\{tabular\}", to_latex(found), re.S):
        columns, body = table
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 3
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


def test_braces_are_balanced_and_nothing_special_is_left(found: Board) -> None:
    text = to_latex(found)
    bare = re.sub(r"\\\\|\\[{}%&_#$,]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#~_^<>|]", re.sub(r"\$-\$", "", bare))
    assert [line for line in bare.splitlines() if "%" in line] == [r"% needs \usepackage{booktabs}"]


def test_rates_are_those_of_the_board_and_the_best_is_bold(found: Board) -> None:
    polish = next(line for line in to_latex(found).splitlines() if "Polish" in line)
    rates = [rate.rate for row in found.rows if row.language == "pl" for rate in row.rates if rate]
    assert [f"{100 * rate:.1f} (" in polish for rate in rates] == [True, True]
    assert rf"\textbf{{{100 * rates[1]:.1f} (" in polish
    assert polish.count("textbf") == 1


def test_text_is_printed_as_it_is() -> None:
    assert latex("a\\b") == r"a\textbackslash{}b"
    assert latex("50 % of\n{x_1} & more\x07") == r"50 \% of \{x\_1\} \& more"
    assert latex("−3 – 4") == "$-$3 -- 4"


def test_markdown_has_the_same_rates_and_no_broken_cell(found: Board) -> None:
    lines = board_markdown(found).splitlines()
    head = next(line for line in lines if line.startswith("| language"))
    polish = next(line for line in lines if line.startswith("| Polish"))
    cells = re.compile(r"(?<!\\)\|")
    assert len(cells.findall(head)) == len(cells.findall(polish)) == 7
    assert "**0.0 (0.0–0.0)**" in polish
    assert "&lt;b>\\|" in head
    assert any(line.startswith("| mean of 3 languages |  | WER |") for line in lines)
    assert sum(line.startswith("* ") for line in lines) == len(found.notes)
