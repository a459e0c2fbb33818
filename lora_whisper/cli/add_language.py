"""`add-language`: one more language beside the others, and proof that these stay as they are."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.cli.console import Skipped, print_table, resumable, say
from lora_whisper.cli.options import (
    FILE,
    BackboneOptions,
    DataOptions,
    OutputOptions,
    TrainingOptions,
    adapters_option,
    backbone_options,
    data_options,
    gathered,
    output_options,
    proxies_option,
    run_option,
    training_options,
)
from lora_whisper.cli.train import check_free, finish, monitor
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder

if TYPE_CHECKING:
    from lora_whisper.doctor.faults import Examination
    from lora_whisper.new_language import Beginning, Change, Expansion


@dataclass(frozen=True)
class BeginningOptions:
    """How the new adapter begins."""

    method: str
    start: str | None
    rank: int | None
    experts: int
    threshold: float
    gating: Any
    own: bool

    def beginning(self) -> "Beginning":
        """The same as a value; `method` "auto" leaves the method open.

        Raises:
            UsageError: options contradict each other or are out of range.
        """
        from lora_whisper.new_language import Beginning

        if self.start and self.method == "scratch":
            raise UsageError("--start and --method scratch contradict each other; drop one of them")
        if self.rank and self.method == "warm-start":
            raise UsageError(
                "--rank: a warm start has the rank of its source; drop it or choose another --method"
            )
        if self.experts < 1 or not 0 <= self.threshold <= 1:
            raise UsageError("--experts must be 1 or more, and --threshold a probability")
        method: Any = "warm-start" if self.method == "auto" else self.method
        return Beginning(method, self.start, self.rank, self.experts, self.threshold, self.gating, self.own)


beginning_options = gathered(
    "begin",
    BeginningOptions,
    click.option(
        "--method",
        type=click.Choice(["warm-start", "scratch", "moe", "auto"]),
        default="warm-start",
        help="A copy of the most similar adapter; a fresh one; a fresh one beside the most similar ones, "
        "which it borrows (LoRA mixture of experts); or the best of the three on development data.",
    ),
    click.option(
        "--start", metavar="TAG", help="Language to copy or borrow.  [default: the most similar one]"
    ),
    click.option(
        "--rank",
        type=click.IntRange(1),
        help="Rank of a fresh adapter, which else is shaped like the most similar one.  [default: its rank]",
    ),
    click.option("--experts", type=int, default=2, help="Adapters that a mixture borrows at most."),
    click.option(
        "--threshold", type=float, default=0.0, help="Least similarity of what is copied or borrowed."
    ),
    click.option(
        "--gating",
        type=click.Choice(["fixed", "layer", "token"]),
        default="fixed",
        help="Who weighs the experts: similarity, each layer, or a router at every position.",
    ),
    click.option("--own/--no-own", default=True, help="Whether a mixture trains a LoRA of its own."),
)


@click.command("add-language")
@data_options
@backbone_options
@adapters_option
@run_option
@beginning_options
@proxies_option
@click.option(
    "--test", type=FILE, metavar="MANIFEST", help="Score old and new languages on it, before and after."
)
@training_options
@output_options
def add_language(
    data: DataOptions,
    backbone: BackboneOptions,
    adapters: Path,
    run: Path | None,
    begin: BeginningOptions,
    proxies: tuple[tuple[str, str], ...],
    test: Path | None,
    training: TrainingOptions,
    output: OutputOptions,
) -> None:
    """Add one language of MANIFEST to the others.

    The other adapters and the backbone stay as they are, byte for byte.
    """
    beginning = begin.beginning()
    corpus = data.corpus()
    tag, *others = data.languages or corpus.languages
    if others:
        raise UsageError(f"one language at a time: choose with --language {tag} or {others[0]}")
    beginning = replace(beginning, token_language=dict(proxies).get(tag))
    check_free(adapters, [tag])
    run = prepare_folder(run or Path("runs") / f"add-{tag}")
    from lora_whisper import new_language
    from lora_whisper.data.manifest import read_manifest

    tests = read_manifest(test) if test else []
    config, skipped = training.config(), Skipped()
    found = _examined(data, tag)
    bank = backbone.bank(adapters)
    before = new_language.scores(bank, tests, beginning.token_language)
    add = new_language.add_language_the_best_way if begin.method == "auto" else new_language.add_language
    with resumable(run):
        told = monitor(run, output)
        expansion = add(bank, tag, corpus, config, run, beginning=beginning, monitor=told, report=skipped)
    changes = new_language.changes(before, new_language.scores(bank, tests, None))
    say(_story(tag, expansion))
    for warning in new_language.warnings(bank, expansion, changes):
        say(f"warning: {warning}")
    if changes and not output.as_json:
        _print_changes(tag, changes)
    source = expansion.adapter.info.start
    about = {
        "start": source and source.language,
        "experts": [asdict(expert) for expert in expansion.adapter.info.experts],
        "similarity": dict(expansion.similarity),
        "tried": dict(expansion.tried),
        "changes": [asdict(change) for change in changes],
        "skipped": skipped.files,
        "doctor": found.to_dict(),
    }
    finish(bank, adapters, {tag: expansion.state}, about, output)


def _examined(data: DataOptions, tag: str) -> "Examination":
    """What the doctor finds in the speech of the new language; told, but no reason to stop."""
    from lora_whisper.doctor.examination import examine

    splits = dict.fromkeys([data.manifest, data.dev or data.manifest])
    found = examine(list(splits), languages=[tag])
    for kind in found.found:
        if kind.severity != "note":
            say(
                f"doctor: {len(found.of(kind)):,} × {kind.name} ({kind.remedy}), as {found.of(kind)[0].place}"
            )
    return found


def _story(tag: str, expansion: "Expansion") -> str:
    info = expansion.adapter.info
    token = "" if info.token_language == tag else f", with the token of {info.token_language}"
    if info.experts:
        borrowed = ", ".join(f"{expert.language} ({expert.weight:.2f})" for expert in info.experts)
        return f"{tag} borrows {borrowed}{token}"
    return f"{tag} started from {info.start.language if info.start else 'scratch'}{token}"


def _print_changes(tag: str, changes: "list[Change]") -> None:
    rows = [
        [
            f"{one.language} (new)" if one.language == tag else one.language,
            one.unit,
            "" if one.before is None else f"{100 * one.before:.1f} %",
            f"{100 * one.after:.1f} %",
            "yes" if one.same_text else "no",
        ]
        for one in changes
    ]
    print_table(["language", "errors in", "before", "after", "same text"], rows)
