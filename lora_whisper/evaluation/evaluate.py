"""Decode a list of utterances and keep what was heard beside what was said."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from lora_whisper.data.manifest import Utterance
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.search import GREEDY, DecodingOptions
from lora_whisper.decoding.transcribe import LoraWhisper, Outcome
from lora_whisper.decoding.transcript import to_text
from lora_whisper.evaluation.normalizers import DEFAULT_NORMALIZER, normalize
from lora_whisper.evaluation.results import EvaluationResult, Failure, UtteranceResult
from lora_whisper.version import __version__

SEED = 0
"""Of the bootstrap intervals."""


def evaluate(
    asr: LoraWhisper,
    utterances: Sequence[Utterance],
    *,
    manifest: str = "",
    language: Literal["oracle", "auto"] = "oracle",
    languages: Sequence[str] | None = None,
    normalizer: str = DEFAULT_NORMALIZER,
    options: DecodingOptions = GREEDY,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """What was heard of every utterance, in their order; none is dropped.

    An utterance over 30 s is decoded in windows. One that cannot be decoded (no such file, no adapter and no
    token for its language) is a failure in the result, with its reason.

    Args:
        asr: backbone and adapters; an utterance goes to the adapter of its language or of the nearest parent,
            and to the bare backbone if there is none.
        utterances: what to decode.
        manifest: where they come from, for the record.
        language: "oracle" tells the model the language of each utterance, "auto" lets it recognise it, and
            the result then knows how often it was right.
        languages: tags among which it is recognised; None for those with an adapter, without adapters for all
            that the backbone knows.
        normalizer: name of the text normaliser to score with.
        options: limits of decoding.
        progress: is told how many utterances are done, and of how many.

    Raises:
        UsageError: there is no such normaliser.
        UnknownLanguage: one of `languages` has neither an adapter nor a token.
    """
    normalize("", "en", normalizer)  # a wrong name must not cost hours of decoding
    auto = language == "auto"
    clips = [
        Clip(one.audio, None if auto else one.language, one.start_s, one.duration_s) for one in utterances
    ]
    outcomes: dict[int, Outcome] = {}
    for outcome in asr.transcribe_batch(clips, languages, options):
        outcomes[outcome.index] = outcome
        if progress is not None:
            progress(len(outcomes), len(clips))
    found = [_result(index, one, outcomes[index], auto) for index, one in enumerate(utterances)]
    return EvaluationResult(
        manifest=manifest,
        backbone=asr.backbone.name,
        backbone_fingerprint=asr.backbone.fingerprint,
        adapters={adapter.tag: adapter.fingerprint for adapter in asr.bank},
        normalizer=normalizer,
        git_revision=git_revision(),
        beams=options.beams,
        seed=SEED,
        package_version=__version__,
        utterances=tuple(one for one in found if isinstance(one, UtteranceResult)),
        failures=tuple(one for one in found if isinstance(one, Failure)),
    )


def _result(index: int, utterance: Utterance, outcome: Outcome, auto: bool) -> UtteranceResult | Failure:
    transcript = outcome.transcript
    if transcript is None:
        return Failure(str(utterance.audio), str(outcome.error))
    return UtteranceResult(
        id=utterance.id or str(index),
        language=utterance.language,
        reference=utterance.text,
        hypothesis=" ".join(to_text(transcript).split("\n")),
        predicted_language=transcript.language if auto else None,
        duration_s=transcript.duration_s,
        speaker=utterance.speaker,
        audio=str(utterance.audio),
        start_s=utterance.start_s,
    )


def git_revision() -> str | None:
    """Commit of the checkout that this code runs from; None if it does not run from one of its own."""
    package = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    folder, _, revision = answer.stdout.strip().rpartition("\n")
    return revision if Path(folder) == package.parent else None
