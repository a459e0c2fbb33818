"""Result files in, Markdown or one self-contained HTML page out. No torch, no network."""

import base64
import mimetypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path

from lora_whisper.errors import MissingExtra, UsageError
from lora_whisper.evaluation.metrics import (
    Comparison,
    Edit,
    ErrorCounts,
    Rate,
    Unit,
    align,
    paired_bootstrap,
    units,
)
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.evaluation.plots import Dots, Line, before_and_after, curves
from lora_whisper.evaluation.results import EvaluationResult, LanguageScore
from lora_whisper.files import write_text
from lora_whisper.languages import language as find_language


@dataclass(frozen=True)
class LanguageRow:
    """One language before and after; `change` is that of the rate that judges the language."""

    tag: str
    name: str
    new: bool
    before: LanguageScore
    after: LanguageScore
    change: Comparison
    adapter_parameters: int

    @property
    def unit(self) -> Unit:
        """What the language is scored in."""
        return self.after.unit


@dataclass(frozen=True)
class LearningCurve:
    """Dev loss and dev CER of one language; the three sequences have the same length."""

    language: str
    epochs: Sequence[float]
    dev_loss: Sequence[float]
    dev_cer: Sequence[float]


@dataclass(frozen=True)
class Similarity:
    """How much (0 to 1) each row's speech is taken for each column's language; `chosen` is row → column."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unchanged:
    """One thing that must not change: its file hash before and after, and whether its logits are equal."""

    name: str
    hash_before: str
    hash_after: str
    logits_equal: bool | None = None

    @property
    def holds(self) -> bool:
        """True if nothing that was looked at differs."""
        return self.hash_before == self.hash_after and self.logits_equal is not False


@dataclass(frozen=True)
class Example:
    """One clip, what was said in it, and what was heard before and after."""

    language: str
    unit: Unit
    reference: str
    before: Sequence[Edit]
    after: Sequence[Edit]
    audio: Path | None = None


@dataclass(frozen=True)
class Report:
    """Everything a report shows; an empty section is left out."""

    title: str
    introduction: str
    languages: Sequence[LanguageRow] = ()
    curves: Sequence[LearningCurve] = ()
    similarity: Similarity | None = None
    unchanged: Sequence[Unchanged] = ()
    examples: Sequence[Example] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def verdict(self) -> str:
        """Return what the numbers say, in at most two sentences."""
        return " ".join(filter(None, (_improvement(self.languages), _constancy(self.unchanged))))


def compare(
    before: EvaluationResult,
    after: EvaluationResult,
    *,
    new: Collection[str] = (),
    adapter_parameters: Mapping[str, int] | None = None,
) -> tuple[LanguageRow, ...]:
    """Return a row per language of `after`, base languages first; `new` are the tags added last.

    Raises:
        UsageError: the two results are not of the same utterances, or not normalised alike.
    """
    _check_same_utterances(before, after)
    rows = [
        LanguageRow(
            tag=tag,
            name=find_language(tag).name,
            new=tag in new,
            before=before.scores()[tag],
            after=score,
            change=paired_bootstrap(
                before.counts(tag, score.unit), after.counts(tag, score.unit), groups=after.groups(tag)
            ),
            adapter_parameters=(adapter_parameters or {}).get(tag, 0),
        )
        for tag, score in after.scores().items()
    ]
    return tuple(sorted(rows, key=lambda row: row.new))


def examples(
    before: EvaluationResult,
    after: EvaluationResult,
    *,
    per_language: int = 1,
    audio: Mapping[str, Path] | None = None,
) -> tuple[Example, ...]:
    """Return the first utterances of each language, aligned; `audio` maps utterance ids to files to be heard.

    Raises:
        UsageError: the two results are not of the same utterances, or not normalised alike.
    """
    _check_same_utterances(before, after)
    found: list[Example] = []
    for old, new in zip(before.utterances, after.utterances, strict=True):
        if sum(example.language == new.language for example in found) == per_language:
            continue
        unit = find_language(new.language).unit
        reference, heard_before, heard_after = (
            units(normalize(text, new.language, after.normalizer), unit)
            for text in (new.reference, old.hypothesis, new.hypothesis)
        )
        found.append(
            Example(
                language=new.language,
                unit=unit,
                reference=new.reference,
                before=align(reference, heard_before),
                after=align(reference, heard_after),
                audio=(audio or {}).get(new.id),
            )
        )
    return tuple(found)


def to_markdown(report: Report) -> str:
    """Return the report as Markdown: verdict, table of languages, what is unchanged, environment."""
    parts = [f"# {report.title}", report.introduction, f"**{report.verdict()}**"]
    if report.languages:
        parts += [language_table(report.languages)]
    if report.unchanged:
        parts += [
            _markdown_table(("unchanged?", "hash before", "hash after", "logits"), _unchanged_cells(report))
        ]
    if report.environment:
        parts += [_markdown_table(("environment", ""), list(report.environment.items()))]
    return "\n\n".join(part for part in parts if part.strip("*")) + "\n"


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


def to_html(report: Report) -> str:
    """Return the report as one HTML page that needs nothing from anywhere else.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingExtra("HTML reports need jinja2: pip install 'lora-whisper[demo]'") from None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _short_percent,
        "interval": _interval,
        "kinds": kinds,
        "judging_counts": judging_counts,
        "data_uri": _data_uri,
        "language_name": _name,
    }
    template = package_files("lora_whisper.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report,
        rate_plots=[Markup(plot) for plot in _rate_plots(report.languages)],
        curve_plots=[Markup(plot) for plot in _curve_plots(report.curves)],
    )


def write_report(report: Report, path: Path) -> Path:
    """Write the report to `path`, whole or not at all: `.html` as a page, `.md` as Markdown.

    Raises:
        OutputError: `path` cannot be written.
        MissingExtra: jinja2 or matplotlib is not installed.
        UsageError: `path` ends in something else.
    """
    writers = {".html": to_html, ".md": to_markdown}
    if path.suffix not in writers:
        raise UsageError(f"{path}: a report ends in {' or '.join(writers)}")
    return write_text(path, writers[path.suffix](report))


def percent(rate: Rate) -> str:
    """Return a rate for reading: `12.3 % (10.1–14.6)`."""
    return f"{_short_percent(rate.rate)} ({_interval(rate)})"


def kinds(counts: ErrorCounts) -> str:
    """Return substitutions, deletions and insertions: `12 / 3 / 4`."""
    return f"{counts.substitutions:,} / {counts.deletions:,} / {counts.insertions:,}"


def judging_counts(score: LanguageScore) -> ErrorCounts:
    """Return the counts of the unit that judges the language."""
    return score.wer_counts if score.unit == "word" else score.cer_counts


def _short_percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _interval(rate: Rate) -> str:
    return f"{100 * rate.low:.1f}–{100 * rate.high:.1f}"


def _name(tag: str) -> str:
    return find_language(tag).name


def _check_same_utterances(before: EvaluationResult, after: EvaluationResult) -> None:
    said = [
        [(one.id, one.language, one.reference) for one in result.utterances] for result in (before, after)
    ]
    if said[0] != said[1] or before.normalizer != after.normalizer:
        raise UsageError(
            f"results of {before.manifest} ({len(said[0])} utterances, {before.normalizer}) and "
            f"{after.manifest} ({len(said[1])}, {after.normalizer}) cannot be compared: score one manifest"
        )


def _improvement(rows: Sequence[LanguageRow]) -> str:
    if not rows:
        return ""
    better = sum(row.after.cer.rate < row.before.cer.rate for row in rows)
    surely = sum(row.after.cer.high < row.before.cer.low for row in rows)
    return (
        f"The character error rate fell in {better} of {len(rows)} languages, "
        f"in {surely} with the whole 95 % interval below the one before."
    )


def _constancy(checks: Sequence[Unchanged]) -> str:
    if not checks:
        return ""
    changed = [check.name for check in checks if not check.holds]
    if changed:
        return f"CHANGED, though nothing may change: {', '.join(changed)}."
    logits = (
        ", and so are the logits computed with them" if all(check.logits_equal for check in checks) else ""
    )
    return f"All {len(checks)} files that must not change are byte-identical{logits}."


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
    return " ".join(str(text).split()).replace("|", "\\|")


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
    names = [_name(curve.language) for curve in learning]
    loss = [Line(name, one.epochs, one.dev_loss) for name, one in zip(names, learning, strict=True)]
    cer = [Line(name, one.epochs, one.dev_cer) for name, one in zip(names, learning, strict=True)]
    return [curves(loss, "dev loss"), curves(cer, "dev CER", percent=True)]


def _data_uri(path: Path) -> str:
    """Return the file as a `data:` address, or nothing if it cannot be read: a report outlives its clips."""
    try:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return ""
    return f"data:{mimetypes.guess_type(path.name)[0] or 'audio/wav'};base64,{content}"
