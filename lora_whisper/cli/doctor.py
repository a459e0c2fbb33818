"""`doctor`: every fault of some manifests in one report."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_whisper.cli.console import print_json, print_table, progress, say
from lora_whisper.cli.options import FILE, BackboneOptions, OutputOptions, output_options
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder, write_text

if TYPE_CHECKING:
    from lora_whisper.doctor.faults import Examination


EXAMPLES_SHOWN = 5


@click.command()
@click.argument("manifests", type=FILE, nargs=-1, required=True, metavar="MANIFEST…")
@click.option(
    "--backbone", metavar="NAME", help="Also count tokens and identify languages, by this one: slower."
)
@click.option(
    "--against",
    type=FILE,
    multiple=True,
    metavar="MANIFEST",
    help="Another split: tell only what MANIFESTs share with it; repeatable.",
)
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page.")
@click.option(
    "--fix",
    type=FILE,
    metavar="FILE",
    help="Write the one MANIFEST without its lines with errors, and which these are to FILE.dropped.jsonl.",
)
@output_options
def doctor(
    manifests: tuple[Path, ...],
    backbone: str | None,
    against: tuple[Path, ...],
    html: Path | None,
    fix: Path | None,
    output: OutputOptions,
) -> int:
    """Find the faults of MANIFESTs: of audio, texts, and what leaks from one to another.

    Give all splits at once, or those that are to stay as they are with --against. The exit code is 1 if there
    are errors, also if --fix has left them out of the new manifest.
    """
    from lora_whisper.doctor.examination import cleaned, examine

    _check(manifests, against, html, fix)
    loaded = BackboneOptions(backbone, "auto").load() if backbone else None
    with progress("listening", not output.no_progress) as advance:
        found = examine(manifests, loaded, advance, against=against)
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


def _check(
    manifests: tuple[Path, ...], against: tuple[Path, ...], html: Path | None, fix: Path | None
) -> None:
    """Raise before anything is listened to if the results could not be written, or the question is odd.

    Raises:
        UsageError: a manifest is named twice, or --fix has several to clean, or something to overwrite.
        OutputError: the page cannot be written.
    """
    from lora_whisper.doctor.examination import check_new

    named = [path.resolve() for path in (*manifests, *against)]
    if len(set(named)) < len(named):
        raise UsageError("a manifest is named twice; name each split once")
    if fix is not None and len(manifests) > 1:
        raise UsageError("--fix cleans one manifest at a time; name one, and the others with --against")
    if fix is not None:
        check_new(fix)
    for path in filter(None, (html, fix)):
        prepare_folder(path.parent)


def _print(found: "Examination") -> None:
    """The table, some examples of each kind, and the verdict; what was left out goes to stderr."""
    if found.faults:
        rows = [[kind.name, kind.severity, f"{len(found.of(kind)):,}", kind.remedy] for kind in found.found]
        print_table(["fault", "severity", "count", "remedy"], rows)
    for kind in found.found:
        click.echo(f"\n{kind.name}: {kind.about}")
        for one in found.of(kind)[:EXAMPLES_SHOWN]:
            click.echo(f"  {_printable(f'{one.place}  {one.detail}')}")
    click.echo(f"\n{found.verdict()}" if found.faults else found.verdict())
    for reason in found.not_done:
        say(f"not done: {reason}")


def _printable(text: str) -> str:
    """The text without what would move a terminal's cursor: it comes from faulty files."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
