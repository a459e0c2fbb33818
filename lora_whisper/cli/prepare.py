"""`prepare`: speech and text become a manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.cli.console import Advance, print_json, progress, say
from lora_whisper.cli.options import FILE, Command, OutputOptions, gathered, output_options
from lora_whisper.cli.synthesise import spoken, synthetic

if TYPE_CHECKING:
    from lora_whisper.data.corpora.tabular import Hints
    from lora_whisper.data.corpora.trees import Tree
    from lora_whisper.data.corpora.writer import Prepared, Target, Work

_SHOWN_SKIPS = 5


@dataclass(frozen=True)
class CorpusOptions:
    """Which part of a corpus, and where it is."""

    languages: tuple[str, ...]
    splits: tuple[str, ...]
    source: Path | None
    repo: str | None
    revision: str

    def tree(self) -> "Tree":
        """Where the corpus is.

        Raises:
            ManifestError: there is no such folder, or neither folder nor data set is named.
        """
        from lora_whisper.data.corpora.trees import open_tree

        return open_tree(self.source, self.repo, self.revision)

    def wanted(self) -> tuple[str, ...]:
        """The languages, each once; several may stand in one option."""
        return tuple(dict.fromkeys(name for text in self.languages for name in text.split(",") if name))


@dataclass(frozen=True)
class WorkOptions:
    """Where a manifest goes, and how it is made."""

    out: Path
    limit: int | None
    jobs: int
    decode: bool
    overwrite: bool

    def target(self, name: str) -> "Target":
        """Where the manifest of this name goes."""
        from lora_whisper.data.corpora.writer import Target

        return Target(self.out, name, self.overwrite)

    def work(self) -> "Work":
        """How it is made."""
        from lora_whisper.data.corpora.writer import Work

        return Work(self.jobs, self.decode, self.limit)


@dataclass(frozen=True)
class TableOptions:
    """A file of one's own, and what it does not say by itself."""

    path: Path
    language: str | None
    audio_column: str | None
    text_column: str | None
    audio_root: Path | None
    split: str

    def hints(self) -> "Hints":
        """What it does not say."""
        from lora_whisper.data.corpora.tabular import Hints

        return Hints(self.language, self.audio_column, self.text_column, self.audio_root)


def corpus_options(
    *splits: str, more_splits: tuple[str, ...] = (), repo: str | None = None
) -> Callable[[Command], Command]:
    """Options of a public corpus: its splits, some that must be asked for, and its home on the Hub."""
    on_hub = f"  [default: {repo} on the Hub]" if repo else "  [default: none; it has left the Hub]"
    return gathered(
        "corpus",
        CorpusOptions,
        click.option(
            "--language",
            "languages",
            multiple=True,
            required=True,
            metavar="TAG",
            help="Tag (pl) or the corpus's own name; several as pl,it or by repetition; all.",
        ),
        click.option(
            "--split",
            "splits",
            type=click.Choice([*splits, *more_splits]),
            multiple=True,
            default=splits,
            help="Repeatable; each becomes a manifest.",
        ),
        click.option("--source", type=FILE, metavar="DIR", help=f"Folder of the corpus.{on_hub}"),
        click.option("--repo", default=repo, metavar="NAME", help="Another data set on the Hub."),
        click.option(
            "--revision", default="main", help="Of it; refs/convert/parquet is the Hub's own conversion."
        ),
    )


def work_options(out: str) -> Callable[[Command], Command]:
    """Options of everything that writes a manifest."""
    return gathered(
        "work",
        WorkOptions,
        click.option(
            "--out", type=FILE, default=Path(out), metavar="DIR", help="Gets SPLIT.jsonl, audio/, records/."
        ),
        click.option("--limit", type=click.IntRange(1), help="Only the first so many of each language."),
        click.option("--jobs", type=click.IntRange(1), default=4, help="Threads that write and check audio."),
        click.option("--decode", is_flag=True, help="Decode all audio to its end, not only its header."),
        click.option("--overwrite", is_flag=True, help="Replace a manifest that was made otherwise."),
    )


table_options = gathered(
    "table",
    TableOptions,
    click.argument("path", type=FILE, metavar="FILE"),
    click.option("--language", metavar="TAG", help="Of lines that name none."),
    click.option("--audio-column", metavar="NAME", help="[default: its usual names]"),
    click.option("--text-column", metavar="NAME", help="[default: its usual names]"),
    click.option("--audio-root", type=FILE, metavar="DIR", help="Of audio paths.  [default: that of FILE]"),
    click.option("--split", default="train", metavar="NAME", help="Name of the manifest."),
)


@click.group()
def prepare() -> None:
    """Make a manifest: audio, text, language per line.

    Whatever cannot be used is counted, shown and listed with its reason in records/SPLIT.json. Run again, a
    command goes on where it stopped: audio that is there and unchanged is not touched.
    """


prepare.add_command(synthetic)
prepare.add_command(spoken)


@prepare.command()
@corpus_options("train", "dev", "test", repo="google/fleurs")
@click.option(
    "--text",
    type=click.Choice(["raw_transcription", "transcription"]),
    default="raw_transcription",
    help="The former has capitals and punctuation; the latter teaches Whisper to leave them out.",
)
@work_options("runs/fleurs")
@output_options
def fleurs(corpus: CorpusOptions, text: Any, work: WorkOptions, output: OutputOptions) -> None:
    """FLEURS: 102 languages, ten hours each.

    From google/fleurs, or from --source with data/pl_pl/{train.tsv,audio/train.tar.gz} (or the folder
    audio/train/), or with its parquet files.
    """
    from lora_whisper.data.corpora.fleurs import prepare_fleurs

    tree = corpus.tree()

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_fleurs(corpus.wanted(), split, tree, work.target(split), text, work.work(), advance)

    _report(corpus.splits, make, output)


@prepare.command()
@corpus_options("train", "dev", "test", more_splits=("9hr", "1hr"), repo="facebook/multilingual_librispeech")
@work_options("runs/mls")
@output_options
def mls(corpus: CorpusOptions, work: WorkOptions, output: OutputOptions) -> None:
    """Multilingual LibriSpeech: audio books in en de nl fr es it pt pl.

    From facebook/multilingual_librispeech (all but English), or from --source with OpenSLR's
    mls_polish/{train,dev,test}/{audio,transcripts.txt}, flac or opus, or with the Hub's parquet files.
    """
    from lora_whisper.data.corpora.mls import prepare_mls

    tree = corpus.tree()

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_mls(corpus.wanted(), split, tree, work.target(split), work.work(), advance)

    _report(corpus.splits, make, output)


@prepare.command("common-voice")
@corpus_options("train", "dev", "test", more_splits=("validated", "other", "invalidated"))
@work_options("runs/common-voice")
@output_options
def common_voice(corpus: CorpusOptions, work: WorkOptions, output: OutputOptions) -> None:
    """Common Voice: sentences read by volunteers.

    From --source with cv-corpus-…/pl/{train.tsv,clips/}, as Mozilla publishes it, or from a copy of it on the
    Hub with --repo. `validated` contains the test sentences.
    """
    from lora_whisper.data.corpora.common_voice import prepare_common_voice

    tree = corpus.tree()

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_common_voice(corpus.wanted(), split, tree, work.target(split), work.work(), advance)

    _report(corpus.splits, make, output)


@prepare.command()
@corpus_options("train", "dev", "test", repo="facebook/voxpopuli")
@click.option(
    "--text",
    type=click.Choice(["raw_text", "normalized_text"]),
    default="raw_text",
    help="The former has capitals and punctuation; where it is empty, the latter steps in.",
)
@work_options("runs/voxpopuli")
@output_options
def voxpopuli(corpus: CorpusOptions, text: Any, work: WorkOptions, output: OutputOptions) -> None:
    """VoxPopuli: the European Parliament in sixteen languages.

    From facebook/voxpopuli, or from --source with data/pl/{asr_train.tsv,train/*.tar.gz}, or with
    transcribed_data/pl/{asr_train.tsv,2012/*.ogg}, or with parquet files.
    """
    from lora_whisper.data.corpora.voxpopuli import prepare_voxpopuli

    tree = corpus.tree()

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_voxpopuli(corpus.wanted(), split, tree, work.target(split), text, work.work(), advance)

    _report(corpus.splits, make, output)


@prepare.command("folder")
@click.argument("folder", type=FILE, metavar="DIR")
@click.option("--language", metavar="TAG", help="Of everything.  [default: as the folders in DIR are called]")
@click.option("--split", default="train", metavar="NAME", help="Name of the manifest.")
@work_options("runs/folder")
@output_options
def from_folder(
    folder: Path, language: str | None, split: str, work: WorkOptions, output: OutputOptions
) -> None:
    """Audio files with their texts beside them: a.wav and a.txt.

    Also a.lab, and LibriSpeech's *.trans.txt. Audio is used where it lies.
    """
    from lora_whisper.data.corpora.folder import prepare_from_folder

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_from_folder(folder, work.target(split), language, work.work(), advance)

    _report((split,), make, output)


@click.command()
@table_options
@work_options("runs/table")
@output_options
def table(table: TableOptions, work: WorkOptions, output: OutputOptions) -> None:
    """A table with a head, in CSV or TSV.

    A column for audio files and one for texts; language, start, end or duration in seconds, speaker, gender
    and id if there are such. Audio is used where it lies.
    """
    from lora_whisper.data.corpora.tabular import prepare_table

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_table(table.path, work.target(split), table.hints(), work.work(), advance)

    _report((table.split,), make, output)


prepare.add_command(table, "csv")
prepare.add_command(table, "tsv")


@prepare.command()
@table_options
@work_options("runs/jsonl")
@output_options
def jsonl(table: TableOptions, work: WorkOptions, output: OutputOptions) -> None:
    """JSON lines: NeMo, lhotse cuts, Whisper-Finetune, your own.

    Told apart line by line; also gzipped, or as one JSON list. Audio is used where it lies.
    """
    from lora_whisper.data.corpora.foreign import prepare_jsonl

    def make(split: str, advance: Advance) -> "Prepared":
        return prepare_jsonl(table.path, work.target(split), table.hints(), work.work(), advance)

    _report((table.split,), make, output)


def _report(
    splits: tuple[str, ...], make: Callable[[str, Advance], "Prepared"], output: OutputOptions
) -> None:
    """Make the manifests one after the other and tell of each."""
    made: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys(splits):
        with progress(split, not output.no_progress) as advance:
            prepared = make(split, advance)
        made[split] = _described(prepared)
        _tell(prepared)
        if not output.as_json:
            click.echo(prepared.manifest)
    if output.as_json:
        print_json({"splits": made})


def _described(prepared: "Prepared") -> dict[str, Any]:
    return {
        "manifest": str(prepared.manifest),
        "utterances": prepared.utterances,
        "reused": prepared.reused,
        "languages": {a.language: {"utterances": a.utterances, "hours": a.hours} for a in prepared.amounts},
        "remarks": {remark.text: remark.utterances for remark in prepared.remarks},
        "skipped": [vars(skip) for skip in prepared.skipped],
    }


def _tell(prepared: "Prepared") -> None:
    """Say on stderr what there is, what is odd, and what was skipped."""
    amounts = (f"{a.language} {a.utterances} in {a.hours:.2f} h" for a in prepared.amounts)
    say(f"{prepared.manifest.name}: {', '.join(amounts)}; {prepared.reused} were there already")
    for remark in prepared.remarks:
        say(f"{remark.utterances} {remark.text}, kept")
    for skip in prepared.skipped[:_SHOWN_SKIPS]:
        say(f"skipped: {skip.reason if skip.where in skip.reason else f'{skip.where}: {skip.reason}'}")
    if len(prepared.skipped) > _SHOWN_SKIPS:
        record = prepared.manifest.parent / "records" / f"{prepared.manifest.stem}.json"
        say(f"skipped {len(prepared.skipped)} in all; {record} lists them")
