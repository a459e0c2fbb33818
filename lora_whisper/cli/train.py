"""`train`: from a manifest to adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.cli.console import Skipped, print_json, print_table, resumable, say
from lora_whisper.cli.options import (
    BackboneOptions,
    DataOptions,
    LoRAOptions,
    OutputOptions,
    TrainingOptions,
    adapters_option,
    backbone_options,
    data_options,
    lora_options,
    output_options,
    proxies_option,
    run_option,
    training_options,
)
from lora_whisper.errors import AdapterError
from lora_whisper.files import prepare_folder

if TYPE_CHECKING:
    from lora_whisper.lora.bank import AdapterBank
    from lora_whisper.training.monitor import Monitor
    from lora_whisper.training.state import TrackState


@click.command()
@data_options
@backbone_options
@adapters_option
@run_option
@lora_options
@training_options
@proxies_option
@output_options
def train(
    data: DataOptions,
    backbone: BackboneOptions,
    adapters: Path,
    run: Path | None,
    lora: LoRAOptions,
    training: TrainingOptions,
    proxies: tuple[tuple[str, str], ...],
    output: OutputOptions,
) -> None:
    """Train one adapter per language of MANIFEST."""
    corpus = data.corpus()
    tags = data.languages or tuple(corpus.languages)
    check_free(adapters, tags)
    run = prepare_folder(run or Path("runs") / f"train-{'+'.join(tags)}")
    from lora_whisper.jobs import train_adapters

    config, shape, tokens, skipped = training.config(), lora.config(), dict(proxies), Skipped()
    bank = backbone.bank(None)
    new = [bank.add(tag, shape, seed=training.seed, token_language=tokens.get(tag)) for tag in tags]
    with resumable(run):
        told = monitor(run, output)
        states = train_adapters(bank, new, corpus, config, run, monitor=told, report=skipped)
    finish(bank, adapters, states, {"skipped": skipped.files}, output)


def check_free(adapters: Path, tags: Sequence[str]) -> None:
    """Prove before any work that the new adapters can be saved and that there are none in their place."""
    prepare_folder(adapters)
    for tag in tags:
        if (adapters / tag).exists():
            raise AdapterError(
                f"{adapters / tag}: there is an adapter already; run `lora-whisper adapters remove {tag} "
                f"--adapters {adapters}` first, or choose another --adapters"
            )


def monitor(run: Path, output: OutputOptions) -> "Monitor":
    """What is told of the training: a log, TensorBoard if it is installed, a progress bar if it is wanted."""
    from lora_whisper.errors import MissingExtra
    from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitors, TensorBoardMonitor

    monitors: list[Monitor] = [LogMonitor(run)]
    if not output.no_progress:
        monitors.append(ConsoleMonitor())
    try:
        monitors.append(TensorBoardMonitor(run / "tensorboard"))
    except MissingExtra as error:
        say(f"no TensorBoard files: {error}")
    return Monitors(*monitors)


def finish(
    bank: "AdapterBank",
    folder: Path,
    states: "dict[str, TrackState]",
    about: dict[str, Any],
    output: OutputOptions,
) -> None:
    """Save the new adapters and print what they are."""
    for tag in states:
        bank.save(tag, folder / tag)
    if output.as_json:
        made = {
            tag: {
                "folder": str(folder / tag),
                "fingerprint": bank[tag].fingerprint,
                "parameters": bank[tag].n_parameters,
                "epochs": len(state.epochs),
                "scores": dict(bank[tag].info.scores),
            }
            for tag, state in states.items()
        }
        print_json({"adapters": made, **about})
        return
    scores = [bank[tag].info.scores for tag in states]
    names = list(dict.fromkeys(name for row in scores for name in row))
    rows = [
        [
            tag,
            str(len(state.epochs)),
            *(f"{row[name]:.4f}" if name in row else "" for name in names),
            str(folder / tag),
        ]
        for (tag, state), row in zip(states.items(), scores, strict=True)
    ]
    print_table(["language", "epochs", *names, "adapter"], rows)
