"""Tables of text and parquet files, read line by line, and the archives that their audio lies in."""

import csv
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from lora_whisper.data.corpora.items import Blob, Entry, Expected, Item, Row, Skip
from lora_whisper.data.corpora.trees import Tree
from lora_whisper.errors import ManifestError, MissingExtra

_BATCH = 16  # rows of a parquet file in memory at a time
_AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a"}


def read_table(
    path: Path, columns: Sequence[str] = (), delimiter: str = "\t", quoted: bool = False
) -> Iterator[Row | Skip]:
    """The lines of a table; those that have another number of cells than it has columns are skipped.

    Args:
        path: file in UTF-8.
        columns: names of the columns; without them the first line has them.
        delimiter: between cells.
        quoted: whether cells may stand in quotation marks; those of public corpora do not.

    Raises:
        ManifestError: the file cannot be read.
    """
    lines = _cells(path, delimiter, quoted)
    if not columns:
        columns = [name.strip() for name in next(lines, (0, [""]))[1]]
    for number, cells in lines:
        where = f"{path}:{number}"
        if len(cells) != len(columns):
            yield Skip(where, f"{_count(len(cells), 'column')} instead of {len(columns)}")
        else:
            yield Row(where, dict(zip(columns, cells, strict=True)))


def _cells(path: Path, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="" if quoted else "\n") as file:
            if quoted:
                table = csv.reader(file, delimiter=delimiter)
                yield from ((table.line_num, cells) for cells in table if cells)
                return
            lines = (line.rstrip("\r\n") for line in file)
            yield from ((number, line.split(delimiter)) for number, line in enumerate(lines, 1) if line)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: no table in UTF-8 ({error}); export it again") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check it") from None


def count_lines(path: Path) -> int:
    """How many lines a file has, roughly: for progress.

    Raises:
        ManifestError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check it") from None


def read_parquet(path: Path, columns: Sequence[str] = ()) -> Iterator[Row | Skip | Expected]:
    """The rows of a parquet file, few at a time, with the audio as it is: nothing is decoded.

    Args:
        path: file with a column `audio` of bytes and path, as data sets on the Hub have.
        columns: which of the others are wanted; those that are not there stay empty.

    Raises:
        ManifestError: it cannot be read, or has no such column.
        MissingExtra: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise MissingExtra("parquet files need pyarrow: pip install 'lora-whisper[corpora]'") from None
    number = 0
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "audio" not in names:
                raise ManifestError(f"{path}: no column audio but {', '.join(names)}; take another file")
            yield Expected(file.metadata.num_rows)
            wanted = ["audio", *(name for name in columns if name in names)]
            for batch in file.iter_batches(_BATCH, columns=wanted):
                for values in batch.to_pylist():
                    number += 1
                    yield _row(f"{path}:{number}", path, values)
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ManifestError(f"{path}: damaged, or no parquet file ({reason}); download it again") from None


def _row(where: str, path: Path, values: Mapping[str, Any]) -> Row | Skip:
    cells = {name: _text(value) for name, value in values.items() if name != "audio"}
    audio = values["audio"]
    if isinstance(audio, bytes):
        return Row(where, cells, Blob("", audio))
    if not isinstance(audio, Mapping):
        return Skip(where, "no audio in this row")
    data, name = audio.get("bytes"), audio.get("path") or ""
    if data is None and name and (path.parent / name).is_file():
        data = (path.parent / name).read_bytes()
    return Row(where, cells, Blob(name, data)) if data else Skip(where, "no audio in this row")


def _text(value: object) -> str:
    return "" if value is None else str(value)


def from_archives(items: Iterable[Item], tree: Tree, archives: Sequence[str]) -> Iterator[Item]:
    """The entries with their audio from tar archives, in the archives' order; found by name without suffix.

    Whatever has a line and no audio, or audio and no line, is skipped.

    Raises:
        ManifestError: an archive cannot be had or is damaged.
    """
    waiting: dict[str, list[Entry]] = {}
    for item in items:
        if isinstance(item, Entry):
            waiting.setdefault(_stem(item.audio), []).append(item)
        else:
            yield item
    for archive in archives:
        path = tree.fetch(archive)
        for blob in _members(path):
            entries = waiting.pop(_stem(blob), ())
            yield from (replace(entry, audio=blob) for entry in entries)
            if not entries:
                yield Skip(f"{path}: {blob.name}", "audio without a line in the table")
    names = ", ".join(PurePosixPath(archive).name for archive in archives)
    for entry in (entry for entries in waiting.values() for entry in entries):
        yield Skip(entry.id, f"no audio {_stem(entry.audio)} in {names}")


def _members(path: Path) -> Iterator[Blob]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and PurePosixPath(name).suffix.lower() in _AUDIO_SUFFIXES:
                    file = archive.extractfile(member)
                    yield Blob(name, file.read() if file else b"")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ManifestError(
            f"{path}: damaged, cut off or no tar archive ({error}); download it again"
        ) from None


def _stem(audio: Path | Blob) -> str:
    return PurePosixPath(audio.name).stem


def from_folder(items: Iterable[Item], folder: Path) -> Iterator[Item]:
    """The entries with their audio in a folder; whether it is there shows when it is opened."""
    for item in items:
        if isinstance(item, Entry) and isinstance(item.audio, Path):
            yield replace(item, audio=folder / item.audio)
        else:
            yield item


def to_items(rows: Iterable[Row | Skip | Expected], convert: Callable[[Row], Entry | Skip]) -> Iterator[Item]:
    """The rows as entries."""
    return (convert(row) if isinstance(row, Row) else row for row in rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
