"""`transcribe` and `evaluate`: from audio to text, and to error rates."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lora_whisper.cli.console import print_json, print_table, progress, say
from lora_whisper.cli.options import (
    FILE,
    BackboneOptions,
    OutputOptions,
    Tags,
    backbone_options,
    flat,
    output_options,
    proxies_option,
)
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder, write_text
from lora_whisper.languages import normalize_tag

if TYPE_CHECKING:
    from lora_whisper.decoding.transcribe import Outcome
    from lora_whisper.decoding.transcript import Transcript
    from lora_whisper.evaluation.results import EvaluationResult, LanguageScore

FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
"""Output formats and the suffix of their files."""

adapters_option = click.option(
    "--adapters", type=FILE, metavar="DIR", help="Adapter folders.  [default: none, the bare backbone]"
)
candidates_option = click.option(
    "--languages",
    "candidates",
    type=Tags(),
    multiple=True,
    callback=flat,
    help="Languages to recognise among, as pl,it.  [default: those with an adapter, else all]",
)


@click.command()
@click.argument("audio", type=FILE, nargs=-1, required=True)
@backbone_options
@adapters_option
@click.option("--language", default="auto", metavar="auto|TAG", help="auto: recognised by the bare backbone.")
@candidates_option
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), default="text", help="Of the transcripts."
)
@click.option("--output-dir", type=FILE, metavar="DIR", help="Write files there.  [default: stdout]")
@output_options
def transcribe(
    audio: tuple[Path, ...],
    backbone: BackboneOptions,
    adapters: Path | None,
    language: str,
    candidates: tuple[str, ...],
    form: str,
    output_dir: Path | None,
    output: OutputOptions,
) -> int:
    """Transcribe AUDIO files.

    They may be in any mixture of languages. A file that cannot be used is reported, and the others go on.
    """
    if len(audio) > 1 and form != "text" and output_dir is None:
        raise UsageError(
            f"several files as {form} need --output-dir (or --json for one object with all of them)"
        )
    _check_names(audio, output_dir)
    tag = None if language == "auto" else normalize_tag(language)
    from lora_whisper.decoding.clips import Clip
    from lora_whisper.decoding.transcribe import LoraWhisper
    from lora_whisper.decoding.transcript import to_dict

    asr = LoraWhisper(backbone.load(), adapters)
    outcomes: dict[int, Outcome] = {}
    with progress("transcribing", not output.no_progress) as advance:
        for outcome in asr.transcribe_batch([Clip(path, tag) for path in audio], candidates or None):
            outcomes[outcome.index] = outcome
            advance(len(outcomes), len(audio))
            if output_dir is not None and outcome.transcript is not None:
                write_text(
                    _output_path(audio[outcome.index], output_dir, form), _rendered(outcome.transcript, form)
                )
    ordered = [outcomes[index] for index in range(len(audio))]
    failures = [
        {"audio": str(path), "error": str(one.error)}
        for path, one in zip(audio, ordered, strict=True)
        if one.error
    ]
    transcripts = [one.transcript for one in ordered if one.transcript is not None]
    for failure in failures:
        say(f"error: {failure['error']}")
    if output.as_json:
        print_json({"transcripts": [to_dict(one) for one in transcripts], "failures": failures})
    elif output_dir is None:
        _print_transcripts(transcripts, form, named=len(audio) > 1)
    return 1 if failures else 0


@click.command()
@click.argument("manifest", type=FILE)
@backbone_options
@adapters_option
@click.option(
    "--language",
    type=click.Choice(["oracle", "auto"]),
    default="oracle",
    help="oracle: the manifest tells the language; auto: it is recognised, and the accuracy reported.",
)
@candidates_option
@proxies_option
@click.option("--normalizer", default="lora-whisper-v1", help="raw, lora-whisper-v1 or whisper-basic.")
@click.option("--out", type=FILE, metavar="FILE", help="Also write the result file, with every hypothesis.")
@output_options
def evaluate(
    manifest: Path,
    backbone: BackboneOptions,
    adapters: Path | None,
    language: Literal["oracle", "auto"],
    candidates: tuple[str, ...],
    proxies: tuple[tuple[str, str], ...],
    normalizer: str,
    out: Path | None,
    output: OutputOptions,
) -> int:
    """Score every language in MANIFEST.

    WER and CER with 95 % intervals, and the kinds of errors in the unit that judges the language.
    """
    from lora_whisper.data.manifest import read_manifest
    from lora_whisper.evaluation.normalizers import normalize

    normalize("", "en", normalizer)
    utterances = read_manifest(manifest)
    if out is not None:
        prepare_folder(out.parent)
    from lora_whisper.decoding.transcribe import LoraWhisper
    from lora_whisper.evaluation.evaluate import evaluate as score

    asr = LoraWhisper(backbone.load(), adapters, proxies=dict(proxies))
    with progress("evaluating", not output.no_progress) as advance:
        result = score(
            asr,
            utterances,
            manifest=str(manifest),
            language=language,
            languages=candidates or None,
            normalizer=normalizer,
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


def _check_names(audio: Sequence[Path], folder: Path | None) -> None:
    """Refuse an output folder that cannot be written, and files that would overwrite each other there."""
    if folder is None:
        return
    prepare_folder(folder)
    seen: dict[str, Path] = {}
    for path in audio:
        if seen.setdefault(path.stem, path) != path:
            raise UsageError(f"{seen[path.stem]} and {path} would both be written to {folder / path.stem}.*")


def _output_path(audio: Path, folder: Path, form: str) -> Path:
    return folder / f"{audio.stem}{FORMATS[form]}"


def _rendered(transcript: "Transcript", form: str) -> str:
    from lora_whisper.decoding import transcript as writers

    write = {
        "text": writers.to_text,
        "json": writers.to_json,
        "srt": writers.to_srt,
        "vtt": writers.to_vtt,
    }
    return write[form](transcript).rstrip("\n") + "\n"


def _print_transcripts(transcripts: Sequence["Transcript"], form: str, named: bool) -> None:
    for transcript in transcripts:
        if named:
            click.echo(f"{transcript.audio} ({transcript.language}):")
        click.echo(_rendered(transcript, form), nl=False)


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
