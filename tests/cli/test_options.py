"""Options of commands as the values that they stand for."""

import click
from click.testing import CliRunner

from lora_whisper.cli.options import LoRAOptions, lora_options
from lora_whisper.lora.parts import LINEAR, MODULES, LoRAConfig


def shape(*arguments: str) -> LoRAConfig:
    found: list[LoRAConfig] = []

    @click.command()
    @lora_options
    def command(lora: LoRAOptions) -> None:
        found.append(lora.config())

    CliRunner().invoke(command, arguments, catch_exceptions=False)
    return found[0]


def test_shapes_of_adapters() -> None:
    assert shape() == LoRAConfig(32, 32.0, LINEAR)  # the paper's
    assert shape("--rank", "8") == LoRAConfig(8, 8.0, LINEAR)
    assert shape("--rank", "8", "--alpha", "4", "--convolutions") == LoRAConfig(8, 4.0, MODULES)
