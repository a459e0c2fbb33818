"""`prepare synthetic` and `prepare spoken`: speech that espeak-ng makes."""

from dataclasses import asdict, dataclass
from pathlib import Path

import click

from lora_whisper.cli.console import print_json, progress
from lora_whisper.cli.options import (
    FILE,
    OutputOptions,
    Tags,
    flat,
    gathered,
    language_option,
    output_options,
)


@dataclass(frozen=True)
class SpeechOptions:
    """Which synthetic speech, as arguments of `prepare_synthetic`."""

    split: str
    utterances: int
    domain: str
    perturbed: bool
    words: str
    seed: int


speech_options = gathered(
    "speech",
    SpeechOptions,
    click.option(
        "--split",
        type=click.Choice(["train", "dev", "test"]),
        default="train",
        help="Share neither text nor voice.",
    ),
    click.option("--utterances", type=int, default=200, help="How many of each language."),
    click.option(
        "--domain",
        type=click.Choice(["general", "field"]),
        default="general",
        help="Texts, voices and noise.",
    ),
    click.option(
        "--perturb",
        "perturbed",
        is_flag=True,
        help="Random voice, noise, echo, channel, loudness, speed, not the domain's.",
    ),
    click.option(
        "--words",
        type=click.Choice(["new", "known"]),
        default="new",
        help="Names, numbers and dates that no other split has, or those of train in new combinations.",
    ),
    click.option("--seed", type=int, default=0, help="Another seed, other utterances."),
)


@click.command()
@language_option("Language tag; several as pl,it or by repetition.", required=True)
@click.argument("more", type=Tags(), nargs=-1, callback=flat, metavar="")
@speech_options
@click.option(
    "--out", type=FILE, default=Path("runs/synthetic"), metavar="DIR", help="Gets SPLIT.jsonl and audio/."
)
@output_options
def synthetic(
    languages: tuple[str, ...], more: tuple[str, ...], speech: SpeechOptions, out: Path, output: OutputOptions
) -> None:
    """Synthesise speech (espeak-ng) from CLDR texts, in over thirty languages, offline."""
    from lora_whisper.data.synthetic import prepare_synthetic

    tags = tuple(dict.fromkeys([*languages, *more]))
    with progress("synthesising", not output.no_progress) as advance:
        manifest = prepare_synthetic(tags, **asdict(speech), out=out, progress=advance)
    if output.as_json:
        print_json(
            {"manifest": str(manifest), "languages": tags, "utterances": speech.utterances * len(tags)}
        )
    else:
        click.echo(manifest)


@click.command()
@click.argument("manifest", type=FILE)
@click.option("--copies", type=int, default=5, help="In how many voices each text is spoken.")
@click.option(
    "--recorded",
    type=float,
    default=0.0,
    metavar="SHARE",
    help="Share of the copies in voices made from recordings of people (de, en, es, fr, it).",
)
@click.option(
    "--kokoro",
    type=FILE,
    metavar="DIR",
    help="ONNX release of Kokoro-82M, of whose voices others are mixed (en, es, fr, hi, it, pt).",
)
@click.option(
    "--neural", type=float, metavar="SHARE", help="Of the copies, by it.  [default: 0.5 with --kokoro]"
)
@click.option(
    "--sample-rate",
    type=int,
    default=16_000,
    metavar="HZ",
    show_default=True,
    help="Of the recordings, if it is less: what they cannot hold the copies have not, either.",
)
@click.option("--seed", type=int, default=0, help="Another seed, other voices.")
@click.option(
    "--out", type=FILE, default=Path("runs/spoken"), metavar="DIR", help="Gets spoken.jsonl and audio/."
)
@output_options
def spoken(
    manifest: Path,
    copies: int,
    recorded: float,
    kokoro: Path | None,
    neural: float | None,
    sample_rate: int,
    seed: int,
    out: Path,
    output: OutputOptions,
) -> None:
    """Speak the texts of MANIFEST in many voices (espeak-ng), to train on beside recordings of few people."""
    from lora_whisper.data.kokoro import Kokoro
    from lora_whisper.data.manifest import read_manifest
    from lora_whisper.data.spoken import prepare_spoken

    utterances = read_manifest(manifest)
    voices = Kokoro(kokoro) if kokoro else None
    share = (0.5 if voices else 0.0) if neural is None else neural
    with progress("synthesising", not output.no_progress) as advance:
        written = prepare_spoken(utterances, copies, seed, out, advance, recorded, sample_rate, voices, share)
    if output.as_json:
        print_json({"manifest": str(written), "copies": copies})
    else:
        click.echo(written)
