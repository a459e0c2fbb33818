"""`compare`: whether one result is really better than another."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_whisper.cli.console import print_json, print_table, say
from lora_whisper.cli.options import FILE, OutputOptions, output_options

if TYPE_CHECKING:
    from lora_whisper.evaluation.metrics import Rate
    from lora_whisper.evaluation.significance import LanguageComparison

HEAD = (
    "language",
    "rate",
    "utterances",
    "first",
    "second",
    "relative gain",
    "p bootstrap",
    "p pairs",
    "p Holm",
)


@click.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@output_options
def compare(first: Path, second: Path, output: OutputOptions) -> None:
    """Compare the result files FIRST and SECOND, language by language.

    Relative gain of the second with its 95 % interval (paired bootstrap over speakers where known), and the
    matched-pairs test with Holm's correction for the number of languages.
    """
    from lora_whisper.evaluation.results import EvaluationResult
    from lora_whisper.evaluation.significance import compare_results

    results = [EvaluationResult.load(path) for path in (first, second)]
    found = compare_results(*results)
    common = sum(one.utterances for one in found)
    left_out = [len(result.utterances) - common for result in results]
    for path, count in zip((first, second), left_out, strict=True):
        if count:
            say(f"{path}: utterances that are not in the other, left out: {count:,}")
    if output.as_json:
        counts = dict(zip(("first", "second"), left_out, strict=True))
        print_json({"languages": [asdict(one) for one in found], "left_out": counts})
    else:
        print_table(HEAD, [_cells(one) for one in found])


def _cells(one: "LanguageComparison") -> list[str]:
    """The cells of one language below `HEAD`."""
    return [
        one.language,
        "WER" if one.unit == "word" else "CER",
        f"{one.utterances:,}",
        f"{100 * one.first:.1f} %",
        f"{100 * one.second:.1f} %",
        _gain(one.gain),
        f"{one.difference.p_value:.3f}",
        f"{one.test.p:.2g}",
        f"{one.p_adjusted:.2g}",
    ]


def _gain(gain: "Rate | None") -> str:
    if gain is None:
        return "—"
    return f"{100 * gain.rate:+.1f} % ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
