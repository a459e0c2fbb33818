"""`evaluate`: error rates of every language in a manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lora_whisper.cli.console import print_json, print_table, progress, say
from lora_whisper.cli.options import (
    FILE,
    AdapterOptions,
    BackboneOptions,
    OutputOptions,
    backbone_options,
    beams_option,
    candidates_option,
    decoding_adapters_options,
    gathered,
    output_options,
    proxies_option,
)
from lora_whisper.files import prepare_folder

if TYPE_CHECKING:
    from lora_whisper.evaluation.results import EvaluationResult, LanguageScore


@dataclass(frozen=True)
class ScoringOptions:
    """How the utterances are decoded and what is counted as an error."""

    language: Literal["oracle", "auto"]
    candidates: tuple[str, ...]
    proxies: tuple[tuple[str, str], ...]
    beams: int
    normalizer: str


scoring_options = gathered(
    "scoring",
    ScoringOptions,
    click.option(
        "--language",
        type=click.Choice(["oracle", "auto"]),
        default="oracle",
        help="oracle: the manifest tells the language; auto: it is recognised, and the accuracy reported.",
    ),
    candidates_option,
    proxies_option,
    beams_option,
    click.option(
        "--normalizer",
        default="lora-whisper-v1",
        help="raw, lora-whisper-v1, lora-whisper-v2, whisper-basic or whisper-english.",
    ),
)


@click.command()
@click.argument("manifest", type=FILE)
@backbone_options
@decoding_adapters_options
@scoring_options
@click.option("--out", type=FILE, metavar="FILE", help="Also write the result file, with every hypothesis.")
@output_options
def evaluate(
    manifest: Path,
    backbone: BackboneOptions,
    adapters: AdapterOptions,
    scoring: ScoringOptions,
    out: Path | None,
    output: OutputOptions,
) -> int:
    """Score every language in MANIFEST.

    WER and CER with 95 % intervals, and the kinds of errors in the unit that judges the language.
    """
    from lora_whisper.data.manifest import read_manifest
    from lora_whisper.decoding.search import DecodingOptions
    from lora_whisper.evaluation.normalizers import normalize

    normalize("", "en", scoring.normalizer)
    options = DecodingOptions(beams=scoring.beams)
    utterances = read_manifest(manifest)
    if out is not None:
        prepare_folder(out.parent)
    from lora_whisper.evaluation.evaluate import evaluate as score

    asr = adapters.recogniser(backbone, dict(scoring.proxies))
    with progress("evaluating", not output.no_progress) as advance:
        result = score(
            asr,
            utterances,
            manifest=str(manifest),
            language=scoring.language,
            languages=scoring.candidates or None,
            normalizer=scoring.normalizer,
            options=options,
            progress=advance,
        )
    if out is not None:
        result.save(out)
    for failure in result.failures:
        say(f"error: {failure.error}")
    if output.as_json:
        print_json(result.summary())
    else:
        _print_scores(result)
    return 1 if result.failures else 0


def _print_scores(result: "EvaluationResult") -> None:
    from lora_whisper.evaluation.report import percent

    rows = [
        [
            tag,
            str(score.utterances),
            percent(score.wer),
            percent(score.cer),
            *(str(count) for count in _kinds(score)),
        ]
        for tag, score in result.scores().items()
    ]
    print_table(["language", "utterances", "WER", "CER", "scored in", "S", "D", "I"], rows)
    accuracy = result.language_id_accuracy()
    if accuracy is not None:
        click.echo(f"language recognised: {100 * accuracy:.1f} %")


def _kinds(score: "LanguageScore") -> tuple[str, int, int, int]:
    """The unit that judges a language and its substitutions, deletions and insertions."""
    counts = score.wer_counts if score.unit == "word" else score.cer_counts
    return f"{score.unit}s", counts.substitutions, counts.deletions, counts.insertions
