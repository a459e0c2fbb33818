"""`doctor`: every fault of some manifests in one report."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_whisper.cli.console import print_json, print_table, progress, say
from lora_whisper.cli.options import FILE, OutputOptions, output_options
from lora_whisper.errors import UsageError
from lora_whisper.files import write_text

if TYPE_CHECKING:
    from lora_whisper.doctor.faults import Examination


@click.command()
@click.argument("manifests", type=FILE, nargs=-1, required=True, metavar="MANIFEST…")
@click.option(
    "--backbone", metavar="NAME", help="Also count tokens and identify languages, by this one: slower."
)
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page.")
@click.option("--fix", type=FILE, metavar="FILE", help="Write the one MANIFEST without its bad lines.")
@output_options
def doctor(
    manifests: tuple[Path, ...],
    backbone: str | None,
    html: Path | None,
    fix: Path | None,
    output: OutputOptions,
) -> int:
    """Find the faults of MANIFESTs: of audio, texts, and what leaks from one to another.

    Give all splits at once. The exit code is 1 if there are errors.
    """
    if fix is not None and len(manifests) > 1:
        raise UsageError("--fix cleans one manifest at a time; name one")
    if len(set(manifests)) < len(manifests):
        raise UsageError("a manifest is named twice; name each split once")
    from lora_whisper.doctor.examination import cleaned, examine
    from lora_whisper.model.checkpoint import load_backbone

    loaded = load_backbone(backbone) if backbone else None
    with progress("listening", not output.no_progress) as advance:
        found = examine(manifests, loaded, advance)
    if html is not None:
        from lora_whisper.doctor.page import to_html

        write_text(html, to_html(found, ", ".join(path.name for path in manifests)))
    fixed = cleaned(manifests[0], found, fix) if fix is not None else None
    if output.as_json:
        print_json(found.to_dict() | ({"kept": fixed[0], "dropped": fixed[1]} if fixed else {}))
    else:
        _print(found)
    if fixed is not None:
        say(f"{fix}: {fixed[0]:,} utterances kept, {fixed[1]:,} left out")
    return 1 if found.count("error") else 0


def _print(found: "Examination") -> None:
    if found.faults:
        rows = [
            [kind.name, kind.severity, f"{len(found.of(kind)):,}", str(found.of(kind)[0].place), kind.remedy]
            for kind in found.found
        ]
        print_table(["fault", "severity", "count", "first", "remedy"], rows)
    click.echo(found.verdict())
    for reason in found.not_done:
        say(f"not done: {reason}")
