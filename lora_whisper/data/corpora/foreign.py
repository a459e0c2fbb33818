"""JSON lines of other projects, told apart line by line.

    NeMo              {"audio_filepath": "a.wav", "text": "…", "duration": 3.2, "offset": 0, "lang": "pl"}
    Whisper-Finetune  {"audio": {"path": "a.wav", "start_time": 0, "end_time": 2.4}, "sentence": "…",
                       "sentences": [{"start": 0, "end": 2.4, "text": "…"}], "language": "Polish", …}
    lhotse            cuts; see `cuts`
    anything else     the usual names of columns, as in `tabular`

A file may be gzipped, or hold one JSON list instead of lines. Paths are relative to the file.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_whisper.data.corpora.cuts import cut_entry, is_cut
from lora_whisper.data.corpora.items import Entry, Expected, Item, Row, Skip, tidy
from lora_whisper.data.corpora.tables import count_lines
from lora_whisper.data.corpora.tabular import AUDIO, TEXT, Hints, row_entry, tag_of_hint
from lora_whisper.data.corpora.writer import Prepared, Progress, Target, Work, write_corpus
from lora_whisper.data.manifest import TimedText
from lora_whisper.errors import ManifestError

_TRANSLATIONS = {"ast", "s2t_translation", "translate"}


def prepare_jsonl(
    path: Path,
    target: Target,
    hints: Hints | None = None,
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of JSON lines as NeMo, Whisper-Finetune, lhotse or anybody writes them.

    Raises:
        ManifestError: the file cannot be read, or nothing in it can be used.
        UnknownLanguage: the language of the hints is none.
        OutputError: the target cannot be written.
    """
    hints = hints or Hints()
    return write_corpus([read_jsonl(path, hints)], hints.request(path), target, work, progress)


def read_jsonl(path: Path, hints: Hints) -> Iterator[Item]:
    """What the file offers; lines that are no JSON, or say nothing usable, are skipped.

    Raises:
        ManifestError: the file cannot be read.
        UnknownLanguage: the language of the hints is none.
    """
    language = tag_of_hint(hints)
    root = hints.root or path.parent
    if path.is_file() and path.suffix != ".gz":
        yield Expected(count_lines(path))
    for where, value in _values(path):
        if isinstance(value, Skip):
            yield value
        elif not isinstance(value, dict):
            yield Skip(where, "no JSON object")
        elif is_cut(value):
            yield cut_entry(where, value, language, root)
        elif isinstance(value.get("audio"), dict):
            yield _finetune(where, value, language, root)
        else:
            yield _plain(where, value, language, replace(hints, root=root))


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Each JSON value with its place; a Skip where there is none."""
    lines = _lines(path)
    first = next(lines, (1, ""))
    if first[1].lstrip().startswith("["):
        text = "\n".join([first[1], *(line for _, line in lines)])
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{path}: not JSON ({getattr(error, 'msg', error)}); export it again"
            ) from None
        yield from (
            (f"{path}[{index}]", _sound(f"{path}[{index}]", value)) for index, value in enumerate(values)
        )
        return
    for number, line in (first, *lines) if first[1] else lines:
        where = f"{path}:{number}"
        try:
            yield where, _sound(where, json.loads(line))
        except (ValueError, RecursionError) as error:
            yield where, Skip(where, f"not JSON ({getattr(error, 'msg', error)})")


def _sound(where: str, value: object) -> object:
    """The value, or a Skip if it holds half of a surrogate pair, which no file in UTF-8 can."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Skip(where, "holds half of a surrogate pair")
    return value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, and their numbers."""
    if path.is_dir():
        raise ManifestError(f"{path}: is a folder; name the file in it")
    unzip: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with unzip(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; check the path") from None
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ManifestError(f"{path}: no text in UTF-8, or cut off ({error}); export it again") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check it") from None


def _plain(where: str, value: Mapping[str, Any], language: str | None, hints: Hints) -> Entry | Skip:
    source, goal = value.get("source_lang"), value.get("target_lang")
    task = str(value.get("taskname") or value.get("task") or "").casefold()
    if task in _TRANSLATIONS or (source and goal and source != goal):
        return Skip(where, "a translation, no transcript")
    if "shard_id" in value:
        return Skip(where, "audio within a tar shard; unpack the shards and name the manifest of their files")
    scalars = {key: cell for key, cell in value.items() if isinstance(cell, str | int | float)}
    row = Row(where, {key: str(cell) for key, cell in scalars.items()})
    audio = hints.audio or next((key for key in AUDIO if row.get(key)), "")
    text = hints.text or next((key for key in TEXT if key in row.cells), "")
    if not text and "audio_filepath" not in value:  # NeMo takes a missing text for an empty one
        return Skip(where, f"no text among {', '.join(value)}")
    entry = row_entry(row, (audio, text), language, hints.root or Path())
    return replace(entry, segments=_segments(value.get("segments"))) if isinstance(entry, Entry) else entry


def _finetune(where: str, value: Mapping[str, Any], language: str | None, root: Path) -> Entry | Skip:
    audio = value["audio"]
    sentences = _segments(value.get("sentences"))
    text = value.get("sentence")
    cells = {
        "audio": audio.get("path"),
        "text": text if isinstance(text, str) else " ".join(piece.text for piece in sentences),
        "language": value.get("language"),
        "start": audio.get("start_time"),
        "end": audio.get("end_time"),
        "speaker": value.get("speaker"),
    }
    row = Row(where, {key: str(cell) for key, cell in cells.items() if cell is not None})
    entry = row_entry(row, ("audio", "text"), language, root)
    return replace(entry, segments=sentences) if isinstance(entry, Entry) else entry


def _segments(value: object) -> tuple[TimedText, ...]:
    """Timed pieces, where there are any that make sense."""
    pieces = [piece for piece in value if isinstance(piece, dict)] if isinstance(value, list) else []
    try:
        return tuple(
            TimedText(
                start_s=float(piece["start"] if "start" in piece else piece["start_s"]),
                end_s=float(piece["end"] if "end" in piece else piece["end_s"]),
                text=tidy(str(piece["text"])),
            )
            for piece in pieces
        )
    except (KeyError, TypeError, ValueError):
        return ()
