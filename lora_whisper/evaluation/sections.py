"""What a report can show, and how it follows from results."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_whisper.errors import UsageError
from lora_whisper.evaluation.board import Board, Similarity
from lora_whisper.evaluation.metrics import Comparison, Edit, Unit, align, paired_bootstrap, units
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.evaluation.results import EvaluationResult, LanguageScore
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
    board: Board | None = None

    def verdict(self) -> str:
        """Return what the numbers say, in a few sentences."""
        changes = self.board.verdict() if self.board else ""
        return " ".join(filter(None, (changes, _improvement(self.languages), _constancy(self.unchanged))))


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
