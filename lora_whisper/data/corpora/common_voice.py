"""Common Voice: sentences read by volunteers, in over a hundred languages (Mozilla Data Collective).

    cv-corpus-…/pl/train.tsv, dev.tsv, test.tsv, validated.tsv, other.tsv, invalidated.tsv
    cv-corpus-…/pl/clips/common_voice_pl_….mp3

It has left the Hugging Face Hub: download it and name its folder. Copies on the Hub are read too, be they
tables with archives (transcript/pl/train.tsv, audio/pl/train/*.tar) or parquet files. `validated` contains
train, dev and test: who trains on it trains on the test sentences.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

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

_HOMES = ("{}/*.tsv", "*/{}/*.tsv", "{}/*.parquet", "{}/*/*.parquet", "*/{}/*.parquet")
_COLUMNS = ("client_id", "path", "sentence", "sentence_id", "gender")


def prepare_common_voice(
    languages: Sequence[str],
    split: str,
    tree: Tree,
    target: Target,
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of one split in some languages.

    Args:
        languages: tags (sv), codes of Common Voice (sv-SE), or "all" that the tree has.
        split: "train", "dev", "test", "validated", "other" or "invalidated".
        tree: where the corpus is.
        target: where the manifest goes.
        work: how to go about it.
        progress: called with the number of utterances done, and of those known of.

    Raises:
        UnknownLanguage: a language is not there.
        ManifestError: the corpus cannot be read, or has no such split.
        MissingExtra: pyarrow is not installed, and the tree holds parquet files.
        OutputError: the target cannot be written.
    """
    homes = {home.code: home for home in find_homes(tree, _HOMES, languages)}
    choices = choose(languages, list(homes), f"Common Voice in {tree.name}")
    parts = (read_common_voice(tree, homes[choice.code], choice, split) for choice in choices)
    request = f"Common Voice {split} {','.join(choice.tag for choice in choices)} of {tree.name}"
    return write_corpus(parts, request, target, work, progress)


def read_common_voice(tree: Tree, home: Home, choice: Choice, split: str) -> Iterator[Item]:
    """What the corpus offers of one language in one split.

    Raises:
        ManifestError: it cannot be read, or has no such split.
        MissingExtra: pyarrow is not installed, and the tree holds parquet files.
    """

    def convert(row: Row) -> Entry | Skip:
        return _entry(row, choice)

    if tree.find(f"{home.folder}{split}.tsv"):
        table = tree.fetch(f"{home.folder}{split}.tsv")
        yield Expected(max(0, count_lines(table) - 1))
        items = to_items(_checked(read_table(table), table), convert)
        yield from _with_audio(tree, home, split, items)
        return
    files = find_parquet(tree, home, SPLITS.get(split, (split,)))
    if not files:
        raise ManifestError(
            f"{tree.name}: Common Voice has neither {home.folder}{split}.tsv nor parquet files of {split}; "
            f"name the folder that holds {home.code}/clips"
        )
    for file in files:
        yield from to_items(read_parquet(tree.fetch(file), _COLUMNS), convert)


def _checked(rows: Iterator[Row | Skip], table: Path) -> Iterator[Row | Skip]:
    for row in rows:
        missing = {"path", "sentence"} - row.cells.keys() if isinstance(row, Row) else None
        if missing:
            raise ManifestError(f"{table}: no column {' or '.join(sorted(missing))}; is this Common Voice?")
        yield row


def _with_audio(tree: Tree, home: Home, split: str, items: Iterator[Item]) -> Iterator[Item]:
    clips = tree.folder(f"{home.folder}clips")
    if clips:
        return from_folder(items, clips)
    places = (f"{home.folder}clips*.tar*", f"audio/{home.code}/{split}/*.tar*")
    archives = next((found for place in places if (found := tree.find(place))), None)
    if not archives:
        raise ManifestError(
            f"{tree.name}: {home.folder}{split}.tsv has no audio: neither the folder {home.folder}clips nor "
            "archives of it; unpack it there"
        )
    return from_archives(items, tree, archives)


def _entry(row: Row, choice: Choice) -> Entry | Skip:
    name = Path(row.get("path") or (row.audio.name if row.audio else "")).name
    if not name:
        return Skip(row.where, "no path")
    return Entry(
        id=f"cv-{choice.code}-{Path(name).stem}",
        audio=row.audio or Path(name if Path(name).suffix else f"{name}.mp3"),
        text=tidy(row.get("sentence")),
        language=choice.tag,
        speaker=row.get("client_id") or None,
        gender=gender_of(row.get("gender")),
        sentence=row.get("sentence_id") or None,
    )
