"""`study`: the paper's tables and its open questions, as resumable grids of runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_whisper.cli.console import print_json, resumable, say
from lora_whisper.cli.options import FILE, OutputOptions, gathered, output_options
from lora_whisper.files import prepare_folder

if TYPE_CHECKING:
    from lora_whisper.studies.grid import Size

ALL = "all"
MOST_BESIDE = 4
"""Runs beside each other unless somebody asks for more: each takes up 2 to 3 GB."""


@dataclass(frozen=True)
class SizeOptions:
    """How large the studies are and how they learn."""

    quick: bool
    seeds: int | None
    learning_rate: float | None
    full_learning_rate: float | None
    most_languages: int | None

    def size(self, recorded: bool) -> "Size":
        """The same as a value, for recordings or for synthetic speech."""
        from lora_whisper.studies.grid import FULL, QUICK, WHOLE

        size = QUICK if self.quick else WHOLE if recorded else FULL
        training = replace(size.training, learning_rate=self.learning_rate or size.training.learning_rate)
        return replace(
            size,
            seeds=tuple(range(self.seeds)) if self.seeds else size.seeds,
            training=training,
            counts=tuple(n for n in size.counts if n <= (self.most_languages or n)),
            full_learning_rate=self.full_learning_rate or size.full_learning_rate,
        )


size_options = gathered(
    "size",
    SizeOptions,
    click.option("--quick", is_flag=True, help="The whole grid, small and with one seed: for a look only."),
    click.option(
        "--seeds", type=click.IntRange(1), help="How many; more can be added later.  [default: 3, --quick: 1]"
    ),
    click.option(
        "--learning-rate", type=float, help="Of adapters.  [default: 2e-3, fit for mini; recordings: 1e-4]"
    ),
    click.option(
        "--full-learning-rate",
        type=float,
        help="Of full fine-tuning.  [default: 5e-4, fit for mini; recordings: 1e-5]",
    ),
    click.option(
        "--most-languages", type=click.IntRange(4), help="Of the study scaling, which has up to 24."
    ),
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--out", type=FILE, metavar="DIR", help="Gets the runs.  [default: runs/studies, or …-quick]")
@click.option(
    "--report",
    type=FILE,
    metavar="DIR",
    help="Gets studies.md, studies.json and plots.  [default: docs/results; with --quick OUT/report]",
)
@click.option("--backbone", default="mini", help="Hub name, folder or mini.")
@click.option(
    "--manifests",
    type=FILE,
    multiple=True,
    metavar="DIR",
    help="train.jsonl, dev.jsonl and test.jsonl of recordings, may be repeated; else speech is synthesised.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Runs beside each other.  [default: with mini one on each core, at most 4, else 1]",
)
@size_options
@output_options
def study(
    names: tuple[str, ...],
    out: Path | None,
    report: Path | None,
    backbone: str,
    manifests: tuple[Path, ...],
    processes: int | None,
    size: SizeOptions,
    output: OutputOptions,
) -> None:
    """Run studies and write their report.

    They are multilingual, capacity, expansion, similarity, moe-cost, scaling; or all.
    Interrupted, it goes on where it stopped when it is run again.
    """
    import torch

    from lora_whisper.studies.grid import NAMES, do, parts
    from lora_whisper.studies.report import write_report

    chosen = NAMES if ALL in names else names
    planned = parts(chosen, size.size(bool(manifests)), backbone, manifests)
    out = prepare_folder(out or Path("runs") / ("studies-quick" if size.quick else "studies"))
    report = report or (out / "report" if size.quick else Path("docs") / "results")
    with resumable(out):
        one_each = min(torch.get_num_threads(), MOST_BESIDE) if backbone == "mini" else 1
        do(planned, out, say, processes or one_each)
    found = write_report(planned, chosen, out, report)
    if output.as_json:
        print_json(found)
    else:
        click.echo(f"{report / 'studies.md'}")
