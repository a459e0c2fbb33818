"""VoxPopuli: the European Parliament, transcribed in sixteen languages (facebook/voxpopuli).

    data/pl/asr_train.tsv                        id, raw_text, normalized_text, speaker_id, split, gender, …
    data/pl/train/train_part_0.tar.gz            train_part_0/ID.wav
    transcribed_data/pl/asr_train.tsv            as its own scripts leave it,
    transcribed_data/pl/2012/ID.ogg              with audio by year
    pl/train/0000.parquet                        in the revision refs/convert/parquet, often only a part

`raw_text` has capitals and punctuation and is empty in places; there `normalized_text` (lower case, numbers
as words) steps in and is counted. The code en_accented is English by speakers of other languages, for tests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lora_whisper.data.corpora.codes import Choice, choose
from lora_whisper.data.corpora.items import Entry, Expected, Item, Row, Skip, gender_of, tidy
from lora_whisper.data.corpora.tables import count_lines, from_archives, read_parquet, read_table, to_items
from lora_whisper.data.corpora.trees import SPLITS, Home, Tree, find_homes, find_parquet
from lora_whisper.data.corpora.writer import Prepared, Progress, Target, Work, write_corpus
from lora_whisper.errors import ManifestError

REPO = "facebook/voxpopuli"

Text = Literal["raw_text", "normalized_text"]

_HOMES = ("data/{}/asr_*.tsv", "*/{}/asr_*.tsv", "{}/asr_*.tsv", "{}/*/*.parquet", "{}/*.parquet")
_ACCENTED = {"en_accented": "en"}
_COLUMNS = ("audio_id", "id", "raw_text", "normalized_text", "speaker_id", "gender")


def prepare_voxpopuli(
    languages: Sequence[str],
    split: str,
    tree: Tree,
    target: Target,
    text: Text = "raw_text",
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of one split in some languages.

    Args:
        languages: tags (pl), codes of VoxPopuli (en_accented), or "all" that the tree has.
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
    homes = {home.code: home for home in _find_homes(tree, languages)}
    choices = choose(languages, list(homes), f"VoxPopuli in {tree.name}", _ACCENTED)
    parts = (read_voxpopuli(tree, homes[choice.code], choice, split, text) for choice in choices)
    request = f"VoxPopuli {split} {','.join(choice.code for choice in choices)} ({text}) of {tree.name}"
    return write_corpus(parts, request, target, work, progress)


def read_voxpopuli(tree: Tree, home: Home, choice: Choice, split: str, text: Text) -> Iterator[Item]:
    """What the corpus offers of one language in one split.

    Raises:
        ManifestError: it cannot be read, or has no such split.
        MissingExtra: pyarrow is not installed, and the tree holds parquet files.
    """

    def convert(row: Row) -> Entry | Skip:
        return _entry(row, choice, text)

    if tree.find(f"{home.folder}asr_{split}.tsv"):
        table = tree.fetch(f"{home.folder}asr_{split}.tsv")
        yield Expected(max(0, count_lines(table) - 1))
        yield from _with_audio(tree, home, split, to_items(_checked(read_table(table), table), convert))
        return
    files = find_parquet(tree, home, SPLITS[split])
    if not files:
        raise ManifestError(
            f"{tree.name}: VoxPopuli has neither {home.folder}asr_{split}.tsv nor parquet files of {split} "
            f"for {home.code}; name the folder that holds them"
        )
    for file in files:
        yield from to_items(read_parquet(tree.fetch(file), _COLUMNS), convert)


def _find_homes(tree: Tree, languages: Sequence[str]) -> tuple[Home, ...]:
    """Like `find_homes`, with accented English, whose code looks like no language."""
    places = ("data/en_accented/", "en_accented/")
    accented = (place for place in places if tree.find(f"{place}*") or tree.find(f"{place}*/*"))
    homes = (*find_homes(tree, _HOMES, languages), *(Home("en_accented", place) for place in accented))
    return tuple({home.code: home for home in homes}.values())


def _checked(rows: Iterator[Row | Skip], table: Path) -> Iterator[Row | Skip]:
    for row in rows:
        missing = {"id", "normalized_text"} - row.cells.keys() if isinstance(row, Row) else None
        if missing:
            raise ManifestError(f"{table}: no column {' or '.join(sorted(missing))}; is this VoxPopuli?")
        yield row


def _with_audio(tree: Tree, home: Home, split: str, items: Iterator[Item]) -> Iterator[Item]:
    archives = tree.find(f"{home.folder}{split}/*.tar*")
    if archives:
        return from_archives(items, tree, archives)
    folder = tree.folder(home.folder)
    if folder and any(folder.glob("[0-9][0-9][0-9][0-9]")):
        return _by_year(items, folder)
    raise ManifestError(
        f"{tree.name}: {home.folder}asr_{split}.tsv has no audio: neither {home.folder}{split}/*.tar.gz nor "
        f"folders such as {home.folder}2012; download or cut it first"
    )


def _by_year(items: Iterator[Item], folder: Path) -> Iterator[Item]:
    """The entries with their audio in folders named after the year, with which each name begins."""
    for item in items:
        if isinstance(item, Entry) and isinstance(item.audio, Path):
            yield replace(item, audio=folder / item.audio.name[:4] / f"{item.audio.name}.ogg")
        else:
            yield item


def _entry(row: Row, choice: Choice, text: Text) -> Entry | Skip:
    name = row.get("audio_id", "id")
    if not name:
        return Skip(row.where, "no id")
    wanted = row.get(text)
    speaker = row.get("speaker_id")
    return Entry(
        id=f"voxpopuli-{choice.code}-{name}",
        audio=row.audio or Path(name),
        text=tidy(wanted or row.get("normalized_text")),
        language=choice.tag,
        speaker=f"voxpopuli-{speaker}" if speaker not in ("", "None") else None,
        gender=gender_of(row.get("gender")),
        note="with normalized_text, for raw_text is empty" if not wanted and text == "raw_text" else None,
    )
