"""One utterance at a time: its audio is written out, checked and measured, unless that was done before."""

import hashlib
import json
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_whisper.audio import SAMPLE_RATE, audio_duration_s, load_audio
from lora_whisper.data.corpora.items import Blob, Entry
from lora_whisper.errors import AudioError, OutputError

_SLACK_S = 0.1  # corpora round their times


@dataclass(frozen=True)
class Task:
    """An entry, and where its audio is or is to be."""

    entry: Entry
    path: Path


@dataclass(frozen=True)
class Known:
    """What was found out about an audio file.

    Attributes:
        size: in bytes.
        file_s: length in seconds.
        decoded: whether it was decoded to its end.
        sha256: checksum, of a file that was written out.
        changed_ns: when it was last changed, of a file that is used where it lies.
    """

    size: int
    file_s: float
    decoded: bool
    sha256: str | None = None
    changed_ns: int | None = None


@dataclass(frozen=True)
class Finding:
    """What became of an entry.

    Attributes:
        entry: the entry; its audio is a path now.
        path: audio file.
        duration_s: length of the utterance.
        known: what was found out about the file, None if it cannot be used.
        reused: whether the file was there already, unchanged.
        fault: why the entry cannot be used, None if it can.
    """

    entry: Entry
    path: Path
    duration_s: float = 0.0
    known: Known | None = None
    reused: bool = False
    fault: str | None = None


class Inspector:
    """Checks entries, from any number of threads.

    Args:
        record: file with the findings of an earlier run, if there was one.
        decode: decode audio to its end, instead of trusting its header.
    """

    def __init__(self, record: Path, decode: bool):
        self._folder = record.parent
        self._decode = decode
        self._known = _read_record(record)

    def check(self, task: Task) -> Finding:
        """What became of the entry.

        Raises:
            OutputError: its audio cannot be written.
        """
        entry, path = task.entry, task.path
        bare = replace(entry, audio=path)  # lets the bytes go
        try:
            if isinstance(entry.audio, Blob):
                known, reused = self._written(path, entry.audio.data)
            else:
                known, reused = self._in_place(path)
            return _placed(Finding(bare, path, known=known, reused=reused), known.file_s)
        except AudioError as error:
            return Finding(bare, path, fault=str(error))

    def line(self, finding: Finding) -> str:
        """The finding as a line of the record."""
        entry = finding.entry
        row: dict[str, Any] = {"id": entry.id, "audio": self._key(finding.path)}
        row |= vars(finding.known) if finding.known else {"fault": finding.fault}
        row |= {"gender": entry.gender, "sentence": entry.sentence}
        return json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)

    def _written(self, path: Path, data: bytes) -> tuple[Known, bool]:
        digest = hashlib.sha256(data).hexdigest()
        known = self._known.get(self._key(path))
        if known and known.sha256 == digest and self._suffices(known) and _sha256(path) == digest:
            return known, True
        _write_bytes(path, data)
        try:
            return self._learnt(path, len(data), sha256=digest), False
        except AudioError:
            path.unlink(missing_ok=True)
            raise

    def _in_place(self, path: Path) -> tuple[Known, bool]:
        known = self._known.get(self._key(path))
        try:
            status = path.stat()
        except OSError:
            audio_duration_s(path)  # says what is wrong
            raise AudioError(f"{path}: cannot be read; check the path") from None
        same = known and (known.size, known.changed_ns) == (status.st_size, status.st_mtime_ns)
        if known and same and self._suffices(known):
            return known, True
        return self._learnt(path, status.st_size, changed_ns=status.st_mtime_ns), False

    def _learnt(
        self, path: Path, size: int, sha256: str | None = None, changed_ns: int | None = None
    ) -> Known:
        file_s = len(load_audio(path)) / SAMPLE_RATE if self._decode else audio_duration_s(path)
        if not file_s > 0:
            raise AudioError(f"{path}: holds no audio (0 s); replace or remove it")
        known = Known(size, round(file_s, 4), self._decode, sha256, changed_ns)
        self._known[self._key(path)] = known
        return known

    def _suffices(self, known: Known) -> bool:
        return known.decoded or not self._decode

    def _key(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._folder)).as_posix()


def _placed(finding: Finding, file_s: float) -> Finding:
    """The finding with the length of its utterance, which may be a part of the file.

    Raises:
        AudioError: the utterance begins beyond the end of the file.
    """
    entry = finding.entry
    rest_s = file_s - entry.start_s
    if rest_s <= 0:
        raise AudioError(f"{finding.path}: start_s {entry.start_s:g} lies beyond the end ({file_s:.2f} s)")
    wanted_s = rest_s if entry.duration_s is None else entry.duration_s
    if wanted_s > rest_s + _SLACK_S:
        entry = replace(entry, note="reaching beyond the end of the audio")
    return replace(finding, entry=entry, duration_s=round(min(wanted_s, rest_s), 4))


def _read_record(record: Path) -> dict[str, Known]:
    """What is known of each file; lines that were cut off say nothing."""
    known: dict[str, Known] = {}
    try:
        lines = record.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return known
    for line in lines:
        try:
            row = json.loads(line)
            known[row["audio"]] = Known(
                row["size"], row["file_s"], row["decoded"], row.get("sha256"), row.get("changed_ns")
            )
        except (ValueError, KeyError, TypeError):
            continue
    return known


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; a crash of the machine shows in its checksum.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
