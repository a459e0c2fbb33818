"""The tables of a report as LaTeX, for a paper."""

from collections.abc import Sequence

from lora_whisper.evaluation.board import Board
from lora_whisper.evaluation.tables import CHANGE_HEAD, best_columns, change_cells, mean_cells, rate_cells

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
}


def to_latex(board: Board) -> str:
    r"""Return the rates, and the changes if any, as `table` environments that need `\usepackage{booktabs}`.

    The lowest rate of each language is bold where there are several systems.
    """
    rates = [
        [rf"\textbf{{{cell}}}" if number in best_columns(row) else cell for number, cell in enumerate(cells)]
        for row, cells in ((row, _escaped(rate_cells(row)[:-1])) for row in board.rows)
    ]
    means = [_escaped(mean_cells(mean)[:-1]) for mean in board.means]
    caption = (
        r"Error rates in \% with 95\,\% bootstrap intervals, text normalised by "
        f"{latex(board.systems[0].result.normalizer)}. WER where words are written apart, CER elsewhere."
    )
    head = ["Language", "Utterances", "Rate", *board.names]
    parts = [r"% needs \usepackage{booktabs}", _table(caption, "lrl", head, [rates, means])]
    if board.before and board.changes:
        caption = rf"Since {latex(board.before.name)}: rates in \%, differences in percentage points."
        changes = [_escaped(change_cells(one)) for one in board.changes]
        parts.append(_table(caption, "lll", CHANGE_HEAD, [changes]))
    return "\n\n".join(parts) + "\n"


def latex(text: str) -> str:
    """Return LaTeX that prints `text`, in one line; what no printer knows (control characters) is dropped."""
    line = " ".join(text.split())
    return "".join(_ESCAPED.get(character, character) for character in line if character.isprintable())


def _escaped(cells: Sequence[str]) -> list[str]:
    return [latex(cell) for cell in cells]


def _table(caption: str, columns: str, head: Sequence[str], groups: Sequence[Sequence[Sequence[str]]]) -> str:
    """Return a table of LaTeX cells with a rule between groups; `columns` places the first ones."""
    bodies = ["\n".join(f"    {' & '.join(row)} \\\\" for row in group) for group in groups if group]
    return "\n".join(
        (
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{{columns}{'r' * (len(head) - len(columns))}}}",
            r"    \toprule",
            f"    {' & '.join(_escaped(head))} \\\\",
            r"    \midrule",
            "\n    \\midrule\n".join(bodies),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        )
    )
