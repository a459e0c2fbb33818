"""Manifests: one utterance a line, as JSON, with audio paths relative to the manifest."""

import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_whisper.errors import LoraWhisperError, ManifestError, UnknownLanguage
from lora_whisper.files import write_text
from lora_whisper.languages import normalize_tag

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SHOWN_FAULTS = 5
_LONGEST_S = 1e9  # thirty years; also refuses NaN and infinity, which Python's JSON reader lets in


@dataclass(frozen=True)
class TimedText:
    """A stretch of text with its place, in seconds from the start of the utterance."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Utterance:
    """Speech and what was said in it.

    Attributes:
        audio: audio file.
        text: transcript, NFC; empty where nothing was said.
        language: normalised BCP-47 tag.
        start_s: where in the file the utterance begins.
        duration_s: how long it is, None for all the rest of the file.
        speaker: anything that tells speakers apart.
        id: name of the utterance; `read_manifest` always sets it.
        segments: the text in timed pieces, if known.
    """

    audio: Path
    text: str
    language: str
    start_s: float = 0.0
    duration_s: float | None = None
    speaker: str | None = None
    id: str | None = None
    segments: tuple[TimedText, ...] = ()

    def load(self) -> "npt.NDArray[np.float32]":
        """The samples (n_samples,), mono at 16 kHz.

        Raises:
            AudioError: the audio cannot be used.
        """
        from lora_whisper.audio import load_audio

        return load_audio(self.audio, self.start_s, self.duration_s)


def read_manifest(path: str | Path, *, languages: Sequence[str] | None = None) -> list[Utterance]:
    """The utterances of a manifest, in its order; only those of `languages` if any (exact tags).

    Audio files are not opened: a missing one is reported by whoever needs it.

    Raises:
        ManifestError: the file cannot be read, has faulty lines (all named at once) or nothing to offer.
        UnknownLanguage: one of `languages` is no language tag.
    """
    path = Path(path)
    utterances: list[Utterance] = []
    faults: list[str] = []
    for number, row in read_lines(path):
        if isinstance(row, Utterance):
            utterances.append(row)
        else:
            faults.append(f"line {number}: {row}")
    if faults:
        raise ManifestError(_describe_faults(path, faults))
    if not utterances:
        raise ManifestError(
            f"{path}: no utterances; write one JSON object a line with audio, text and language"
        )
    return _only(utterances, languages, path) if languages else utterances


def read_lines(path: Path) -> Iterator[tuple[int, Utterance | LoraWhisperError]]:
    """Number and utterance of each line that is not empty, or what is wrong with it.

    Raises:
        ManifestError: the file cannot be read.
    """
    for number, line in enumerate(_read_lines(path), start=1):
        if line.strip():
            try:
                yield number, _parse_line(line, path.parent)
            except (ManifestError, UnknownLanguage) as error:
                yield number, error


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> Path:
    """Write a manifest that `read_manifest` reads back to the same utterances.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    rows = (json.dumps(_to_row(utterance, path.parent), ensure_ascii=False) for utterance in utterances)
    return write_text(path, "".join(f"{row}\n" for row in rows))


def _read_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise ManifestError(f"{path}: is a folder; name the manifest file in it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; check the path") from None
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: not UTF-8 text (byte {error.start}); a manifest is one JSON object a line"
        ) from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check it") from None
    return text.split("\n")  # not splitlines(): JSON strings may hold U+2028 and the like


def _describe_faults(path: Path, faults: list[str]) -> str:
    shown = "; ".join(faults[:_SHOWN_FAULTS])
    more = len(faults) - _SHOWN_FAULTS
    tail = f"; and {more} more" if more > 0 else ""
    lines = "1 faulty line" if len(faults) == 1 else f"{len(faults)} faulty lines"
    return f"{path}: {lines}, correct or remove: {shown}{tail}"


def _only(utterances: list[Utterance], languages: Sequence[str], path: Path) -> list[Utterance]:
    wanted = {normalize_tag(tag) for tag in languages}
    kept = [utterance for utterance in utterances if utterance.language in wanted]
    if not kept:
        present = ", ".join(sorted({utterance.language for utterance in utterances}))
        raise ManifestError(f"{path}: no utterances in {', '.join(sorted(wanted))}; it has {present}")
    return kept


def _parse_line(line: str, folder: Path) -> Utterance:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not JSON ({getattr(error, 'msg', error)})") from None
    if not isinstance(row, dict):
        raise ManifestError(f"not a JSON object but {_shown(row)}")
    audio = _text(row, "audio")
    if not audio.strip() or "\0" in audio:
        raise ManifestError("`audio` is empty or no path")
    start_s = _seconds(row, "start_s") or 0.0
    return Utterance(
        audio=folder / audio,
        text=unicodedata.normalize("NFC", _text(row, "text")),
        language=normalize_tag(_text(row, "language")),
        start_s=start_s,
        duration_s=_seconds(row, "duration_s"),
        speaker=_optional_name(row, "speaker"),
        id=_optional_name(row, "id") or _default_id(audio, start_s),
        segments=_segments(row),
    )


def _default_id(audio: str, start_s: float) -> str:
    """The audio path without its suffix, and the start where one file holds several utterances."""
    stem = Path(audio).with_suffix("").as_posix()
    return f"{stem}@{start_s:g}" if start_s else stem


def _text(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        raise ManifestError(f"`{key}` is missing")
    value = row[key]
    if not isinstance(value, str):
        raise ManifestError(f"`{key}` is not a string but {_shown(value)}")
    if not value.isprintable() and any("\ud800" <= char <= "\udfff" for char in value):
        raise ManifestError(f"`{key}` holds half of a surrogate pair, {ascii(value)[:40]}")
    return value


def _optional_name(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):  # corpora number their speakers
        return str(value)
    raise ManifestError(f"`{key}` is not a string but {_shown(value)}")


def _seconds(row: Mapping[str, Any], key: str) -> float | None:
    """A number of seconds; a start may be zero, a duration may not.  None if absent."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LONGEST_S:
        raise ManifestError(f"`{key}` is not a number of seconds but {_shown(value)}")
    if value < 0 or (value == 0 and key == "duration_s"):
        raise ManifestError(
            f"`{key}` is {value} but must be {'positive' if key == 'duration_s' else 'at least 0'}"
        )
    return float(value)


def _segments(row: Mapping[str, Any]) -> tuple[TimedText, ...]:
    segments = row.get("segments") or []
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise ManifestError(f"`segments` is not a list of objects but {_shown(segments)}")
    pieces = tuple(_segment(segment) for segment in segments)
    if any(piece.end_s < piece.start_s for piece in pieces):
        raise ManifestError("`segments` holds one that ends before it starts")
    return pieces


def _segment(row: Mapping[str, Any]) -> TimedText:
    end_s = _seconds(row, "end_s")
    if end_s is None:
        raise ManifestError("`segments` holds one without `end_s`")
    text = unicodedata.normalize("NFC", _text(row, "text"))
    return TimedText(start_s=_seconds(row, "start_s") or 0.0, end_s=end_s, text=text)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _to_row(utterance: Utterance, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "audio": _relative(utterance.audio, folder),
        "text": utterance.text,
        "language": utterance.language,
    }
    if utterance.start_s:
        row["start_s"] = utterance.start_s
    for key in ("duration_s", "speaker", "id"):
        if (value := getattr(utterance, key)) is not None:
            row[key] = value
    if utterance.segments:
        row["segments"] = [vars(segment) for segment in utterance.segments]
    return row


def _relative(audio: Path, folder: Path) -> str:
    """`audio` relative to the manifest's folder, so that both can move together."""
    try:
        return Path(os.path.relpath(audio, folder)).as_posix()
    except ValueError:  # another drive
        return str(audio.resolve())
