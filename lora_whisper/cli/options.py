"""Options that several commands share, gathered into values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lora_whisper.decoding.transcribe import LoraWhisper
    from lora_whisper.jobs import Corpus
    from lora_whisper.lora.bank import AdapterBank
    from lora_whisper.lora.parts import LoRAConfig
    from lora_whisper.model.checkpoint import Backbone, Precision
    from lora_whisper.training.trainer import TrainConfig

Command = Callable[..., Any]

FILE = click.Path(path_type=Path)
"""A path; whoever opens it says what is wrong with it."""


class Tags(click.ParamType[tuple[str, ...]]):
    """One language tag or several with commas between them, normalised."""

    name = "tag"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """The tags of one option value."""
        from lora_whisper.languages import normalize_tag

        return tuple(normalize_tag(tag.strip()) for tag in str(value).split(",") if tag.strip())


class TokenProxy(click.ParamType[tuple[str, str]]):
    """`TAG=CODE`: the Whisper language whose token stands for a language that has none."""

    name = "tag=code"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The tag and the code."""
        from lora_whisper.languages import normalize_tag

        tag, sign, code = str(value).partition("=")
        if not (tag and sign and code):
            self.fail(f"{value!r} is not TAG=CODE, for example gsw=de", param, ctx)
        return normalize_tag(tag), code


def flat(_ctx: click.Context, _option: click.Parameter, tags: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The tags of a repeated option, each once, in order."""
    return tuple(dict.fromkeys(tag for group in tags for tag in group))


@dataclass(frozen=True)
class BackboneOptions:
    """Which frozen Whisper, where it runs, and in how many bits its weights are kept."""

    backbone: str
    device: str
    bits: int | None = None

    def load(self, precision: "Precision" = "fp32") -> "Backbone":
        """The backbone.

        Raises:
            CheckpointError: it cannot be loaded.
            UsageError: there is no such device.
            MissingExtra: few bits are asked for, and bitsandbytes is not installed.
        """
        import torch

        from lora_whisper.model.checkpoint import load_backbone

        found = "cuda" if torch.cuda.is_available() else "cpu"
        device = found if self.device == "auto" else self.device
        return load_backbone(self.backbone, device, precision, self.bits)

    def bank(self, adapters: Path | None) -> "AdapterBank":
        """The backbone with the adapters in a folder, read when they are used; without any if it is None.

        Raises:
            CheckpointError: the backbone cannot be loaded.
            AdapterError: an adapter cannot be opened, or there are none.
        """
        from lora_whisper.lora.bank import AdapterBank

        bank = AdapterBank(self.load())
        if adapters is not None:
            bank.open_all(adapters)
        return bank


@dataclass(frozen=True)
class AdapterOptions:
    """Which adapters to decode with, how much memory they may take up, and in which precision."""

    adapters: Path | None
    adapter_memory: float | None
    precision: "Precision"

    def recogniser(
        self, backbone: BackboneOptions, proxies: Mapping[str, str] | None = None
    ) -> "LoraWhisper":
        """The backbone and the adapters.

        Raises:
            CheckpointError: the backbone cannot be loaded.
            AdapterError: an adapter cannot be opened, or there are none.
        """
        from lora_whisper.decoding.transcribe import LoraWhisper

        memory = None if self.adapter_memory is None else round(self.adapter_memory * 1e9)
        loaded = backbone.load(self.precision)
        return LoraWhisper(loaded, self.adapters, proxies=proxies, adapter_memory_bytes=memory)


@dataclass(frozen=True)
class DataOptions:
    """What to learn from."""

    manifest: Path
    languages: tuple[str, ...]
    also: Path | None
    dev: Path | None

    def corpus(self) -> "Corpus":
        """The utterances of these languages; without a dev manifest some are held out.

        Raises:
            ManifestError: a manifest cannot be read, is faulty, or has nothing in these languages.
        """
        from lora_whisper.data.manifest import read_manifest
        from lora_whisper.jobs import Corpus, hold_out

        utterances = read_manifest(self.manifest, languages=self.languages)
        if self.dev is None:
            corpus = hold_out(utterances)
        else:
            corpus = Corpus(utterances, read_manifest(self.dev, languages=self.languages))
        return corpus.beside(read_manifest(self.also, languages=self.languages)) if self.also else corpus


@dataclass(frozen=True)
class TrainingOptions:
    """How to train."""

    epochs: int
    learning_rate: float
    batch_seconds: float
    precision: Any
    patience: int | None
    perturb: bool
    paces: bool
    spec_augment: bool
    recompute: bool
    timestamped: float
    seed: int

    def config(self) -> "TrainConfig":
        """The trainer's configuration.

        Raises:
            UsageError: a value is out of range.
        """
        from lora_whisper.training.trainer import TrainConfig

        return TrainConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_s=self.batch_seconds,
            precision=self.precision,
            patience=self.patience,
            perturb=self.perturb,
            paces=self.paces,
            spec_augment=self.spec_augment,
            recompute=self.recompute,
            timestamped=self.timestamped,
            seed=self.seed,
        )


@dataclass(frozen=True)
class LoRAOptions:
    """Shape of a new adapter."""

    rank: int
    alpha: float | None
    convolutions: bool

    def config(self) -> "LoRAConfig":
        """The adapter's configuration.

        Raises:
            UsageError: a value is out of range.
        """
        from lora_whisper.lora.parts import LINEAR, MODULES, LoRAConfig

        alpha = float(self.rank) if self.alpha is None else self.alpha
        return LoRAConfig(self.rank, alpha, MODULES if self.convolutions else LINEAR)


@dataclass(frozen=True)
class OutputOptions:
    """What is shown."""

    as_json: bool
    no_progress: bool


def gathered(name: str, kind: type, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """A decorator that adds options to a command and hands them over as one `kind` named `name`."""
    keys = [field.name for field in fields(kind)]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(*arguments: Any, **values: Any) -> Any:
            gathered = kind(**{key: values.pop(key) for key in keys})
            return command(*arguments, **{name: gathered}, **values)

        decorated: Command = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


backbone_options = gathered(
    "backbone",
    BackboneOptions,
    click.option(
        "--backbone",
        required=True,
        metavar="NAME",
        help="Hub name such as openai/whisper-small, local folder, or mini (bundled).",
    ),
    click.option("--device", default="auto", help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one."),
    click.option(
        "--bits",
        type=click.Choice([8, 4]),
        help="Keep the backbone's linear layers in so many bits a weight, for a small GPU.",
    ),
)

training_options = gathered(
    "training",
    TrainingOptions,
    click.option("--epochs", type=int, default=10, help="Passes over the training utterances."),
    click.option("--learning-rate", type=float, default=1e-4, help="Peak learning rate of AdamW."),
    click.option(
        "--batch-seconds",
        type=float,
        default=60.0,
        help="Padded audio of each language a step.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "bf16", "fp32"]),
        default="auto",
        help="auto: bf16 where the hardware multiplies it natively.",
    ),
    click.option(
        "--patience",
        type=int,
        help="Stop after so many epochs without progress.  [default: never]",
    ),
    click.option(
        "--perturb",
        is_flag=True,
        help="Each epoch in another voice, noise, echo, channel, loudness, speed.",
    ),
    click.option(
        "--paces",
        is_flag=True,
        help="--perturb, and other paces and cuts: for other people than those heard.",
    ),
    click.option("--spec-augment", is_flag=True, help="Hide bands and stretches of each spectrogram."),
    click.option("--recompute", is_flag=True, help="Gradient checkpointing: less memory, more time."),
    click.option(
        "--timestamped",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Share of the rows that are learned with times, so that timestamps are not unlearned.",
    ),
    click.option("--seed", type=int, default=0, help="Of new weights, order of data, dropout, perturbation."),
)

lora_options = gathered(
    "lora",
    LoRAOptions,
    click.option("--rank", type=int, default=32, help="Rank of the adapters."),
    click.option("--alpha", type=float, help="Updates are scaled by alpha / rank.  [default: the rank]"),
    click.option(
        "--convolutions",
        is_flag=True,
        help="Adapt the encoder's convolutions, too: for recordings that sound unlike what it knows.",
    ),
)

output_options = gathered(
    "output",
    OutputOptions,
    click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout."),
    click.option("--no-progress", is_flag=True, help="No progress bar."),
)


def language_option(help: str, required: bool = False) -> Callable[[Command], Command]:
    """`--language`, repeatable, as normalised tags."""
    return click.option(
        "--language", "languages", type=Tags(), multiple=True, required=required, callback=flat, help=help
    )


data_options = gathered(
    "data",
    DataOptions,
    click.argument("manifest", type=FILE),
    language_option("Language tag; repeatable.  [default: all in the manifest]"),
    click.option(
        "--also",
        type=FILE,
        metavar="MANIFEST",
        help="Train on these, too, such as synthetic speech beside few recordings; none is held out.",
    ),
    click.option(
        "--dev",
        type=FILE,
        metavar="MANIFEST",
        help="Utterances to choose the best epoch by.  [default: 5 % of the training utterances]",
    ),
)

adapters_option = click.option(
    "--adapters", type=FILE, default=Path("adapters"), help="Folder with one adapter folder per language."
)

proxies_option = click.option(
    "--proxy-token",
    "proxies",
    type=TokenProxy(),
    multiple=True,
    metavar="TAG=CODE",
    help="Let the token of Whisper's language CODE stand for TAG, which has none; repeatable.",
)

run_option = click.option(
    "--run",
    type=FILE,
    metavar="DIR",
    help="Checkpoints and logs; an unfinished run there goes on.  [default: runs/COMMAND-LANGUAGES]",
)


decoding_adapters_options = gathered(
    "adapters",
    AdapterOptions,
    click.option(
        "--adapters", type=FILE, metavar="DIR", help="Adapter folders.  [default: none, the bare backbone]"
    ),
    click.option(
        "--adapter-memory",
        type=click.FloatRange(0),
        metavar="GB",
        help="Keep at most so much of the adapters in memory, the most recently used.  [default: all in use]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="bf16 is much faster where the hardware multiplies it; a few words may come out otherwise.",
    ),
)
beams_option = click.option("--beams", type=int, default=1, help="Hypotheses kept side by side; 1 is greedy.")
candidates_option = click.option(
    "--languages",
    "candidates",
    type=Tags(),
    multiple=True,
    callback=flat,
    help="Languages to recognise among, as pl,it.  [default: those with an adapter, else all]",
)
