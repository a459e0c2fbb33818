"""Result files in, Markdown or one self-contained HTML page out. No torch, no network."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lora_whisper.errors import ManifestError, UsageError
from lora_whisper.evaluation.board import Similarity, board, judging_counts
from lora_whisper.evaluation.details import System
from lora_whisper.evaluation.latex import to_latex
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.evaluation.page import to_html
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.evaluation.sections import (
    Example,
    LanguageRow,
    LearningCurve,
    Report,
    Unchanged,
    compare,
    examples,
)
from lora_whisper.evaluation.tables import kinds, language_table, percent, to_markdown
from lora_whisper.files import prepare_folder, write_text

__all__ = [
    "Example",
    "LanguageRow",
    "LearningCurve",
    "Report",
    "Similarity",
    "System",
    "Unchanged",
    "board_report",
    "check_path",
    "compare",
    "examples",
    "judging_counts",
    "kinds",
    "language_table",
    "load_similarity",
    "load_systems",
    "percent",
    "to_html",
    "to_latex",
    "to_markdown",
    "write_report",
]
_WRITERS = {".html": to_html, ".md": to_markdown}


def load_systems(paths: Sequence[Path], normalizer: str | None = None) -> list[System]:
    """Return the results of these files, called after them; with `normalizer`, scored by that one.

    Files of the same name are told apart by their folders.

    Raises:
        ManifestError: a file is no result file.
        UsageError: there is no such normaliser, or a file is named twice.
    """
    if normalizer is not None:
        normalize("", "en", normalizer)
    systems = []
    for path, name in zip(paths, _names(paths), strict=True):
        result = EvaluationResult.load(path)
        systems.append(System(name, replace(result, normalizer=normalizer or result.normalizer), path.parent))
    return systems


def board_report(systems: Sequence[System], before: System | None = None, *, n_worst: int = 10) -> Report:
    """Return a report of systems side by side, with their changes since `before`.

    Raises:
        UsageError: there is no system, two have one name, or they are not normalised alike.
        UnknownLanguage: a result is of a language that does not exist.
    """
    found = board(systems, before, n_worst=n_worst)
    since = f" Compared with {before.name}, utterance by utterance." if before else ""
    heard = sum(len(system.result.utterances) for system in systems)
    introduction = f"{heard:,} transcripts, normalised by {systems[0].result.normalizer}.{since}"
    return Report(title=f"Evaluation: {', '.join(found.names)}", introduction=introduction, board=found)


def load_similarity(path: Path) -> Similarity:
    """Return the matrix that `similarity --csv` wrote.

    Raises:
        ManifestError: the file cannot be read, or is no such matrix.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = {(row["speech"], row["like"]): float(row["similarity"]) for row in csv.DictReader(file)}
        rows, columns = (list(dict.fromkeys(pair[side] for pair in found)) for side in (0, 1))
        return Similarity(rows, columns, [[found[row, column] for column in columns] for row in rows])
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    except (ValueError, TypeError, KeyError, csv.Error):
        problem = "is no complete table of speech,like,similarity"
    raise ManifestError(f"{path}: {problem}; make one with `lora-whisper similarity --csv`")


def check_path(path: Path) -> None:
    """Prove that a report can be written to `path`, before any work is spent on it.

    Raises:
        OutputError: its folder cannot be written.
        UsageError: it ends neither in `.html` nor in `.md`.
    """
    if path.suffix not in _WRITERS:
        raise UsageError(f"{path}: a report ends in {' or '.join(_WRITERS)}")
    prepare_folder(path.parent)


def write_report(report: Report, path: Path) -> Path:
    """Write the report to `path`, whole or not at all: `.html` as a page, `.md` as Markdown.

    Raises:
        OutputError: `path` cannot be written.
        MissingExtra: jinja2 or matplotlib is not installed.
        UsageError: `path` ends in something else.
    """
    check_path(path)
    return write_text(path, _WRITERS[path.suffix](report))


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ: `b`, or `a/b` where others are called b too."""
    names = []
    for path in paths:
        parts = path.resolve().with_suffix("").parts
        others = [other.resolve().with_suffix("").parts for other in paths if other != path]
        length = next(
            (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts)
        )
        names.append("/".join(parts[-length:]))
    return names
