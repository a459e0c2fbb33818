"""`prepare`: speech and text become a manifest."""

from pathlib import Path

import click

from lora_whisper.cli.console import print_json, progress
from lora_whisper.cli.options import FILE, OutputOptions, Tags, flat, language_option, output_options


@click.group()
def prepare() -> None:
    """Make a manifest: audio, text, language per line."""


@prepare.command()
@language_option("Language tag; several as pl,it or by repetition.", required=True)
@click.argument("more", type=Tags(), nargs=-1, callback=flat, metavar="")
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test"]),
    default="train",
    help="Share neither text nor voice.",
)
@click.option("--utterances", type=int, default=200, help="How many of each language.")
@click.option(
    "--domain", type=click.Choice(["general", "field"]), default="general", help="Texts, voices and noise."
)
@click.option(
    "--perturb", is_flag=True, help="Random noise, echo, channel, loudness and speed, not the domain's."
)
@click.option("--seed", type=int, default=0, help="Another seed, other utterances.")
@click.option(
    "--out", type=FILE, default=Path("runs/synthetic"), metavar="DIR", help="Gets SPLIT.jsonl and audio/."
)
@output_options
def synthetic(
    languages: tuple[str, ...],
    more: tuple[str, ...],
    split: str,
    utterances: int,
    domain: str,
    perturb: bool,
    seed: int,
    out: Path,
    output: OutputOptions,
) -> None:
    """Synthesise speech (espeak-ng) from CLDR texts, in over thirty languages, offline."""
    from lora_whisper.data.synthetic import prepare_synthetic

    tags = tuple(dict.fromkeys([*languages, *more]))
    with progress("synthesising", not output.no_progress) as advance:
        manifest = prepare_synthetic(tags, split, utterances, seed, out, domain, advance, perturb)
    if output.as_json:
        print_json({"manifest": str(manifest), "languages": tags, "utterances": utterances * len(tags)})
    else:
        click.echo(manifest)
