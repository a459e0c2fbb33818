"""`compare`: whether one result is really better than another."""

from dataclasses import asdict
from pathlib import Path

import click

from lora_whisper.cli.console import print_json, print_table, say
from lora_whisper.cli.options import FILE, OutputOptions, output_options


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
    for path, result in zip((first, second), results, strict=True):
        if len(result.utterances) > common:
            say(f"{path}: {len(result.utterances) - common:,} utterances are not in the other one; left out")
    if output.as_json:
        print_json({"languages": [asdict(one) for one in found]})
        return
    rows = [
        [
            one.language,
            "WER" if one.unit == "word" else "CER",
            f"{one.utterances:,}",
            f"{100 * one.first:.1f} %",
            f"{100 * one.second:.1f} %",
            f"{100 * one.gain.rate:+.1f} % ({100 * one.gain.low:+.1f} to {100 * one.gain.high:+.1f})",
            f"{one.difference.p_value:.3f}",
            f"{one.test.p:.2g}",
            f"{one.p_adjusted:.2g}",
        ]
        for one in found
    ]
    head = [
        "language",
        "rate",
        "utterances",
        "first",
        "second",
        "relative gain",
        "p bootstrap",
        "p pairs",
        "p Holm",
    ]
    print_table(head, rows)
