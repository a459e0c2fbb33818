"""The result file: what was heard, what was said, with which weights; reports are made from these alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_whisper.errors import ManifestError
from lora_whisper.evaluation.hallucination import Hallucinations, Transcribed, hallucinations
from lora_whisper.evaluation.metrics import ErrorCounts, Rate, Unit, bootstrap_interval, error_counts, units
from lora_whisper.evaluation.normalizers import normalize, version
from lora_whisper.files import write_json
from lora_whisper.languages import language as find_language
from lora_whisper.languages import whisper_code

FORMAT = "lora-whisper-result/1"
_NUMBER = (int, float)
_TEXT_OR_NULL = (str, type(None))


@dataclass(frozen=True)
class UtteranceResult:
    """One utterance as it was and as it was heard; `audio` and `start_s` say where its sound is, if known."""

    id: str
    language: str
    reference: str
    hypothesis: str
    predicted_language: str | None
    duration_s: float
    speaker: str | None
    audio: str = ""
    start_s: float = 0.0


@dataclass(frozen=True)
class Failure:
    """An utterance that could not be decoded, and why."""

    audio: str
    error: str


@dataclass(frozen=True)
class LanguageScore:
    """The error rates of one language; `unit` says which of the two judges it.

    Where `unit` is "character" the text has no spaces: its WER only says how many utterances are not perfect.
    """

    language: str
    utterances: int
    unit: Unit
    wer: Rate
    cer: Rate
    wer_counts: ErrorCounts
    cer_counts: ErrorCounts


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation, complete enough to score it again.

    `adapters` maps language tags to fingerprints; `beams` is 1 where decoding was greedy.
    """

    manifest: str
    backbone: str
    backbone_fingerprint: str
    adapters: Mapping[str, str]
    normalizer: str
    git_revision: str | None
    seed: int
    package_version: str
    utterances: tuple[UtteranceResult, ...]
    failures: tuple[Failure, ...] = ()
    beams: int = 1

    def scores(self) -> dict[str, LanguageScore]:
        """Return the score of each language by its tag, sorted; intervals are by speaker where known."""
        return dict(self._scores)

    @cached_property
    def _scores(self) -> dict[str, LanguageScore]:
        tags = sorted({one.language for one in self.utterances})
        return {tag: self._score(tag) for tag in tags}

    def counts(self, tag: str, unit: Unit) -> list[ErrorCounts]:
        """Return the error counts of each utterance in language `tag`, in order, for paired comparisons."""
        return [
            error_counts(units(reference, unit), units(hypothesis, unit))
            for reference, hypothesis in self._texts.get(tag, ())
        ]

    def hallucinations(self, tag: str) -> Hallucinations:
        """Return what was invented in language `tag`, in the unit that judges it."""
        return self._hallucinations[tag]

    @cached_property
    def _hallucinations(self) -> dict[str, Hallucinations]:
        return {tag: self._invented(tag) for tag in sorted(self._texts)}

    @cached_property
    def _texts(self) -> dict[str, list[tuple[str, str]]]:
        """The normalised references and hypotheses of each language, in order."""
        found: dict[str, list[tuple[str, str]]] = {}
        for one in self.utterances:
            reference = normalize(one.reference, one.language, self.normalizer)
            hypothesis = normalize(one.hypothesis, one.language, self.normalizer)
            found.setdefault(one.language, []).append((reference, hypothesis))
        return found

    def groups(self, tag: str) -> list[str]:
        """Return what to draw together in a bootstrap: each utterance's speaker, or itself where unknown."""
        rows = self._in_language(tag)
        return [f"speaker {one.speaker}" if one.speaker else f"row {row}" for row, one in enumerate(rows)]

    def language_id_accuracy(self) -> float | None:
        """Return the share of utterances whose language was recognised; None if it was never asked.

        Varieties that share a language of Whisper count as one: `pt` is right for `pt-BR`, `no` for `nb`.
        """
        asked = [one for one in self.utterances if one.predicted_language is not None]
        if not asked:
            return None
        return sum(_same_language(one.language, one.predicted_language) for one in asked) / len(asked)

    def summary(self) -> dict[str, Any]:
        """Return the machine-readable scores that `evaluate --json` prints."""
        return {
            "languages": {
                tag: {
                    "cer": asdict(score.cer),
                    "wer": asdict(score.wer),
                    "utterances": score.utterances,
                    "unit": score.unit,
                    "hallucinations": asdict(self.hallucinations(tag)),
                }
                for tag, score in self.scores().items()
            },
            "language_id": {"accuracy": self.language_id_accuracy()},
        }

    def save(self, path: Path) -> Path:
        """Write the result file, whole or not at all; its scores are for readers, `load` recomputes them.

        Raises:
            OutputError: `path` cannot be written.
        """
        scores = {tag: asdict(score) for tag, score in self.scores().items()}
        computed = {
            "scores": scores,
            "hallucinations": {tag: asdict(self.hallucinations(tag)) for tag in scores},
            "language_id": {"accuracy": self.language_id_accuracy()},
            "normalizer_version": version(self.normalizer),
        }
        return write_json(path, {"format": FORMAT, **asdict(self), **computed})

    @staticmethod
    def load(path: Path) -> "EvaluationResult":
        """Return the result saved at `path`.

        Raises:
            ManifestError: the file is missing, is not a result file of this format, or lacks a field.
        """
        try:
            return _result(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
        except ValueError as error:  # not UTF-8, not JSON, or not a result
            problem = f"is not a result file ({error})"
        raise ManifestError(f"{path}: {problem}; make one with `lora-whisper evaluate`")

    def _in_language(self, tag: str) -> list[UtteranceResult]:
        return [one for one in self.utterances if one.language == tag]

    def _score(self, tag: str) -> LanguageScore:
        words, characters = self.counts(tag, "word"), self.counts(tag, "character")
        groups = self.groups(tag)
        return LanguageScore(
            language=tag,
            utterances=len(words),
            unit=find_language(tag).unit,
            wer=bootstrap_interval(words, groups=groups, seed=self.seed),
            cer=bootstrap_interval(characters, groups=groups, seed=self.seed),
            wer_counts=sum(words, ErrorCounts()),
            cer_counts=sum(characters, ErrorCounts()),
        )

    def _invented(self, tag: str) -> Hallucinations:
        unit = find_language(tag).unit
        heard = [
            Transcribed(units(reference, unit), units(hypothesis, unit), one.duration_s)
            for (reference, hypothesis), one in zip(self._texts[tag], self._in_language(tag), strict=True)
        ]
        return hallucinations(heard, unit, groups=self.groups(tag), seed=self.seed)


def _same_language(expected: str, predicted: str | None) -> bool:
    if predicted is None or expected == predicted:
        return predicted is not None
    code = whisper_code(expected)
    return code is not None and code == whisper_code(predicted)


def _result(data: Any) -> EvaluationResult:
    if _field(data, "format", str, "the file") != FORMAT:
        raise ValueError(f"its format is {data['format']!r}, expected {FORMAT!r}")
    utterances, failures = (
        _field(data, "utterances", list, "the file"),
        _field(data, "failures", list, "the file"),
    )
    adapters = _field(data, "adapters", dict, "the file")
    return EvaluationResult(
        manifest=_field(data, "manifest", str, "the file"),
        backbone=_field(data, "backbone", str, "the file"),
        backbone_fingerprint=_field(data, "backbone_fingerprint", str, "the file"),
        adapters={tag: _field(adapters, tag, str, "adapters") for tag in adapters},
        normalizer=_field(data, "normalizer", str, "the file"),
        git_revision=_field(data, "git_revision", _TEXT_OR_NULL, "the file"),
        seed=_field(data, "seed", int, "the file"),
        package_version=_field(data, "package_version", str, "the file"),
        utterances=tuple(_utterance(row, f"utterance {n}") for n, row in enumerate(utterances)),
        failures=tuple(_failure(row, f"failure {n}") for n, row in enumerate(failures)),
        beams=_field(data, "beams", int, "the file") if "beams" in data else 1,
    )


def _utterance(row: Any, where: str) -> UtteranceResult:
    return UtteranceResult(
        id=_field(row, "id", str, where),
        language=_field(row, "language", str, where),
        reference=_field(row, "reference", str, where),
        hypothesis=_field(row, "hypothesis", str, where),
        predicted_language=_field(row, "predicted_language", _TEXT_OR_NULL, where),
        duration_s=float(_field(row, "duration_s", _NUMBER, where)),
        speaker=_field(row, "speaker", _TEXT_OR_NULL, where),
        audio=_field(row, "audio", str, where) if "audio" in row else "",
        start_s=float(_field(row, "start_s", _NUMBER, where)) if "start_s" in row else 0.0,
    )


def _failure(row: Any, where: str) -> Failure:
    return Failure(audio=_field(row, "audio", str, where), error=_field(row, "error", str, where))


def _field(row: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return `row[key]`, known to be of `kind`."""
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"{where} has no {key!r}")
    if not isinstance(row[key], kind) or isinstance(row[key], bool):
        raise ValueError(f"{key!r} of {where} is {row[key]!r:.40}")
    return row[key]
