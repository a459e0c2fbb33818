"""`demo`: the whole system at work, offline."""

from pathlib import Path

import click

from lora_whisper.cli.console import print_json, print_table, resumable, say
from lora_whisper.cli.options import FILE, OutputOptions, output_options
from lora_whisper.files import prepare_folder


@click.command()
@click.option(
    "--out", type=FILE, default=Path("runs/demo"), metavar="DIR", help="Gets summary.json and report.html."
)
@output_options
def demo(out: Path, output: OutputOptions) -> None:
    """See the whole system at work, offline.

    Synthesises speech, trains adapters for some languages, adds one more from the most similar of them,
    scores old and new, and checks that nothing else has moved by one bit: report.html and summary.json.
    """
    prepare_folder(out)
    from lora_whisper.demo import run_demo

    with resumable(out):
        summary = run_demo(out, say=say)
    if output.as_json:
        print_json(summary)
        return
    rows = [
        [tag, "new" if one["new"] else "", *(_percent(one[when]) for when in ("before", "after"))]
        for tag, one in summary["languages"].items()
    ]
    print_table(["language", "", "CER before", "CER after"], rows)
    click.echo(f"backbone and old adapters unchanged: {'yes' if summary['unchanged'] else 'NO'}")


def _percent(rate: dict[str, float]) -> str:
    return f"{100 * rate['rate']:.1f} % ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})"
