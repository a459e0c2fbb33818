"""The command line: one sub-command per stage, each parses, calls and prints.

Commands import what they need when they run, so that `--help` answers at once. Results go to stdout, progress
and messages to stderr; the exit code is 0 when the work is done, 1 when it failed, 2 for wrong use.
"""

import sys

import click

from lora_whisper import __version__
from lora_whisper.cli.adapters import adapters
from lora_whisper.cli.add_language import add_language
from lora_whisper.cli.compare import compare
from lora_whisper.cli.console import say
from lora_whisper.cli.demo import demo
from lora_whisper.cli.doctor import doctor
from lora_whisper.cli.evaluate import evaluate
from lora_whisper.cli.prepare import prepare
from lora_whisper.cli.report import report
from lora_whisper.cli.similarity import similarity
from lora_whisper.cli.study import study
from lora_whisper.cli.train import train
from lora_whisper.cli.transcribe import transcribe
from lora_whisper.errors import LoraWhisperError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect: 128 + SIGINT."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
)
@click.version_option(__version__, message="lora-whisper %(version)s")
def cli() -> None:
    """One frozen Whisper, one small LoRA adapter per language."""


for command in (
    demo,
    prepare,
    doctor,
    train,
    add_language,
    similarity,
    evaluate,
    compare,
    report,
    transcribe,
    adapters,
    study,
):
    cli.add_command(command)


def main() -> None:
    """Run the command of `sys.argv` and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command, run to its end; errors become one line on stderr."""
    try:
        return int(cli.main(arguments, "lora-whisper", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        say(f"error: {error.format_message()}{hint}")
        return error.exit_code
    except LoraWhisperError as error:
        say(f"error: {error}")
        return error.exit_code
    except click.Abort as abort:  # click's answer to Ctrl-C, and to a question that was declined
        interrupted = isinstance(abort.__cause__, KeyboardInterrupt)
        say(str(abort.__cause__ or "") or ("interrupted" if interrupted else "nothing done"))
        return INTERRUPTED if interrupted else 1
