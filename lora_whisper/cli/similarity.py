"""`similarity`: which languages the frozen backbone takes speech for."""

from pathlib import Path

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
from lora_whisper.files import prepare_folder

MOST_SHOWN = 10


@click.command()
@click.argument("manifest", type=FILE)
@backbone_options
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
@output_options
def similarity(
    manifest: Path,
    backbone: BackboneOptions,
    adapters: Path | None,
    candidates: tuple[str, ...],
    languages: tuple[str, ...],
    report: Path | None,
    output: OutputOptions,
) -> None:
    """Compare the languages of MANIFEST with others.

    The backbone's language-identification probabilities, restricted to the languages to compare with and
    averaged over the utterances.
    """
    if adapters and candidates:
        raise UsageError("--adapters and --languages both name what to compare with; drop one of them")
    from lora_whisper.data.manifest import read_manifest

    utterances = read_manifest(manifest, languages=languages)
    if report is not None:
        prepare_folder(report.parent)
    from lora_whisper import jobs
    from lora_whisper.lora.expansion import adapter_candidates

    bank = backbone.bank(adapters)
    skipped = Skipped()
    against = (
        adapter_candidates(bank) if adapters else _codes(candidates or bank.backbone.tokenizer.languages)
    )
    found = {
        tag: jobs.similarity(
            bank.backbone, against, [one for one in utterances if one.language == tag], skipped
        )
        for tag in dict.fromkeys(one.language for one in utterances)
    }
    if report is not None:
        _write(found, report)
    if output.as_json:
        print_json({"similarity": found, "skipped": skipped.files})
        return
    for tag, shares in found.items():
        rows = [[tag, other, f"{share:.3f}"] for other, share in list(shares.items())[:MOST_SHOWN]]
        print_table(["speech", "like", "similarity"], rows)


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


def _write(found: dict[str, dict[str, float]], path: Path) -> None:
    from lora_whisper.evaluation.report import Report, Similarity, write_report

    columns = sorted({column for row in found.values() for column in row})
    matrix = Similarity(
        rows=list(found),
        columns=columns,
        values=[[row[column] for column in columns] for row in found.values()],
        chosen={tag: next(iter(row)) for tag, row in found.items()},
    )
    write_report(Report("Language similarity", "As the frozen backbone hears it.", similarity=matrix), path)
