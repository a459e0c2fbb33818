"""FLEURS: 102 languages, about ten hours each, read sentences of Wikipedia (google/fleurs).

    data/pl_pl/train.tsv            id, file, raw_transcription, transcription, characters, samples, gender
    data/pl_pl/audio/train.tar.gz   train/FILE; or the folder audio/train/, unpacked
    pl_pl/train/0000.parquet        the same in the revision refs/convert/parquet

`raw_transcription` is what the speakers read, with capitals and punctuation. `transcription` is the same in
lower case and without punctuation: training on it makes Whisper forget how to write, so it must be asked for.
Scores hardly tell the two apart, for texts are normalised first. Several speakers read each sentence.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from lora_whisper.data.corpora.codes import Choice, choose
from lora_whisper.data.corpora.items import Entry, Expected, Item, Row, Skip, gender_of, tidy
from lora_whisper.data.corpora.tables import (
    count_lines,
    from_archives,
    from_folder,
    read_parquet,
    read_table,
    to_items,
)
from lora_whisper.data.corpora.trees import SPLITS, Home, Tree, find_homes, find_parquet
from lora_whisper.data.corpora.writer import Prepared, Progress, Target, Work, write_corpus
from lora_whisper.errors import ManifestError

REPO = "google/fleurs"

Text = Literal["raw_transcription", "transcription"]

_HOMES = ("data/{}/*.tsv", "{}/*.tsv", "{}/*/*.parquet", "{}/*.parquet", "*/{}/*.parquet", "*/{}/*/*.parquet")
_COLUMNS = ("id", "path", "raw_transcription", "transcription", "characters", "num_samples", "gender")


def prepare_fleurs(
    languages: Sequence[str],
    split: str,
    tree: Tree,
    target: Target,
    text: Text = "raw_transcription",
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of one split in some languages.

    Args:
        languages: tags (pl), codes of FLEURS (pl_pl), or "all" that the tree has.
        split: "train", "dev" or "test".
        tree: where the corpus is.
        target: where the manifest goes.
        text: which of the two transcripts.
        work: how to go about it.
        progress: called with the number of utterances done, and of those known of.

    Raises:
        UnknownLanguage: a language is not there.
        ManifestError: the corpus cannot be read, or has no such split.
        MissingExtra: pyarrow is not installed, and the tree holds parquet files.
        OutputError: the target cannot be written.
    """
    homes = {home.code: home for home in find_homes(tree, _HOMES, languages)}
    choices = choose(languages, list(homes), f"FLEURS in {tree.name}")
    parts = (read_fleurs(tree, homes[choice.code], choice, split, text) for choice in choices)
    request = f"FLEURS {split} {','.join(choice.tag for choice in choices)} ({text}) of {tree.name}"
    return write_corpus(parts, request, target, work, progress)


def read_fleurs(tree: Tree, home: Home, choice: Choice, split: str, text: Text) -> Iterator[Item]:
    """What the corpus offers of one language in one split.

    Raises:
        ManifestError: it cannot be read, or has no such split.
        MissingExtra: pyarrow is not installed, and the tree holds parquet files.
    """

    def convert(row: Row) -> Entry | Skip:
        return _entry(row, choice, text)

    if tree.find(f"{home.folder}{split}.tsv"):
        table = tree.fetch(f"{home.folder}{split}.tsv")
        yield Expected(count_lines(table))
        yield from _with_audio(tree, home, split, to_items(read_table(table, _COLUMNS), convert))
        return
    files = find_parquet(tree, home, SPLITS[split])
    if not files:
        raise ManifestError(
            f"{tree.name}: FLEURS has neither {home.folder}{split}.tsv nor parquet files of {split} for "
            f"{home.code}; on the Hub, --revision refs/convert/parquet has those"
        )
    for file in files:
        yield from to_items(read_parquet(tree.fetch(file), _COLUMNS), convert)


def _with_audio(tree: Tree, home: Home, split: str, items: Iterator[Item]) -> Iterator[Item]:
    for place in (f"{home.folder}audio/{split}", f"{home.folder}{split}"):
        folder = tree.folder(place)
        if folder:
            return from_folder(items, folder)
    archives = tree.find(f"{home.folder}audio/{split}.tar*") or tree.find(f"{home.folder}{split}.tar*")
    if not archives:
        raise ManifestError(
            f"{tree.name}: {home.folder}{split}.tsv has no audio: neither {home.folder}audio/{split}.tar.gz "
            f"nor the folder {home.folder}audio/{split}; download or unpack it there"
        )
    return from_archives(items, tree, archives)


def _entry(row: Row, choice: Choice, text: Text) -> Entry | Skip:
    name = Path(row.audio.name if row.audio and row.audio.name else row.get("path")).name
    sentence = row.get("id")
    if not name or not sentence:
        return Skip(row.where, "no file name or no number of the sentence")
    return Entry(
        id=f"fleurs-{choice.code}-{sentence}-{Path(name).stem}",
        audio=row.audio or Path(name),
        text=tidy(row.get(text)),
        language=choice.tag,
        gender=gender_of(row.get("gender")),
        sentence=sentence,
    )
