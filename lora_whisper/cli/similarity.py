"""`similarity`: which languages the frozen backbone takes speech for."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_whisper.cli.console import Skipped, print_json, print_table
from lora_whisper.cli.options import (
    FILE,
    BackboneOptions,
    OutputOptions,
    Tags,
    backbone_options,
    flat,
    language_option,
    output_options,
)
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder, write_text

if TYPE_CHECKING:
    from lora_whisper.data.manifest import Utterance
    from lora_whisper.lora.bank import AdapterBank

MOST_SHOWN = 10


MEASURES = ("language-id", "sound", "adapters")


@click.command()
@click.argument("manifest", type=FILE, required=False)
@backbone_options
@click.option(
    "--measure",
    type=click.Choice(MEASURES),
    default="language-id",
    help="Language-identification probabilities, or cosines of encoder outputs or of adapters.",
)
@click.option(
    "--adapters", type=FILE, metavar="DIR", help="Compare with the languages that have an adapter there."
)
@click.option(
    "--languages",
    "candidates",
    type=Tags(),
    multiple=True,
    callback=flat,
    help="Compare with these, as pl,it.  [default: all that the backbone knows]",
)
@language_option("Speech to compare; repeatable.  [default: every language in the manifest]")
@click.option("--report", type=FILE, metavar="FILE", help="Also write the matrix as .html or .md.")
@click.option("--csv", "table", type=FILE, metavar="FILE", help="Also write it as speech,like,similarity.")
@output_options
def similarity(
    manifest: Path | None,
    backbone: BackboneOptions,
    measure: str,
    adapters: Path | None,
    candidates: tuple[str, ...],
    languages: tuple[str, ...],
    report: Path | None,
    table: Path | None,
    output: OutputOptions,
) -> None:
    """Compare the languages of MANIFEST with others.

    By default with the backbone's language-identification probabilities, restricted to the languages to
    compare with and averaged over the utterances; they choose where a new language starts from. The cosines
    compare the languages of MANIFEST, or the adapters, with each other.
    """
    if adapters and candidates:
        raise UsageError("--adapters and --languages both name what to compare with; drop one of them")
    if measure == "adapters" and not adapters:
        raise UsageError("--measure adapters compares adapters; name their folder with --adapters")
    if measure != "adapters" and manifest is None:
        raise UsageError("MANIFEST is missing: the speech to compare")
    for path in filter(None, (report, table)):
        prepare_folder(path.parent)
    skipped = Skipped()
    if measure == "adapters" or manifest is None:
        from lora_whisper.lora.expansion import adapter_similarity

        found = adapter_similarity(backbone.bank(adapters))
    elif measure == "sound":
        found = _by_sound(manifest, languages, backbone, skipped)
    else:
        found = _by_language_id(manifest, languages, backbone.bank(adapters), adapters, candidates, skipped)
    if report is not None:
        _write_report(found, report, measure)
    if table is not None:
        _write_csv(found, table)
    if output.as_json:
        print_json({"measure": measure, "similarity": found, "skipped": skipped.files})
        return
    for tag, shares in found.items():
        rows = [[tag, other, f"{share:.3f}"] for other, share in list(shares.items())[:MOST_SHOWN]]
        print_table(["speech", "like", "similarity"], rows)


def _by_language_id(
    manifest: Path,
    languages: tuple[str, ...],
    bank: "AdapterBank",
    adapters: Path | None,
    candidates: tuple[str, ...],
    skipped: Skipped,
) -> dict[str, dict[str, float]]:
    from lora_whisper import jobs
    from lora_whisper.data.manifest import read_manifest
    from lora_whisper.lora.expansion import adapter_candidates

    against = (
        adapter_candidates(bank) if adapters else _codes(candidates or bank.backbone.tokenizer.languages)
    )
    by_language: dict[str, list[Utterance]] = {}
    for one in read_manifest(manifest, languages=languages):
        by_language.setdefault(one.language, []).append(one)
    return {tag: jobs.similarity(bank.backbone, against, ones, skipped) for tag, ones in by_language.items()}


def _by_sound(
    manifest: Path, languages: tuple[str, ...], backbone: BackboneOptions, skipped: Skipped
) -> dict[str, dict[str, float]]:
    from lora_whisper import jobs
    from lora_whisper.data.manifest import read_manifest

    utterances = read_manifest(manifest, languages=languages)
    return jobs.sound_similarity(backbone.load(), utterances, skipped)


def _codes(tags: tuple[str, ...]) -> dict[str, str]:
    """Whisper's code of each language.

    Raises:
        UsageError: Whisper has no token for one of them.
    """
    from lora_whisper.languages import normalize_tag, whisper_code

    codes: dict[str, str] = {}
    for tag in map(normalize_tag, tags):
        code = whisper_code(tag)
        if code is None:
            raise UsageError(
                f"{tag}: Whisper has no token for it, so it cannot be compared with; leave it out"
            )
        codes[tag] = code
    return codes


def _write_report(found: dict[str, dict[str, float]], path: Path, measure: str) -> None:
    from lora_whisper.evaluation.report import Report, Similarity, write_report

    columns = sorted({column for row in found.values() for column in row})
    chosen = {tag: next(iter(row)) for tag, row in found.items()} if measure == "language-id" else {}
    values = [[row[column] for column in columns] for row in found.values()]
    matrix = Similarity(rows=list(found), columns=columns, values=values, chosen=chosen)
    write_report(Report("Language similarity", f"Measured by {measure}.", similarity=matrix), path)


def _write_csv(found: dict[str, dict[str, float]], path: Path) -> None:
    lines = [f"{tag},{other},{share!r}" for tag, row in found.items() for other, share in row.items()]
    write_text(path, "\n".join(["speech,like,similarity", *lines, ""]))
