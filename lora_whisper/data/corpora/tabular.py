"""Tables that name audio files and texts: CSV, TSV, and the metadata.csv of an audio folder for the Hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_whisper.data.corpora.codes import tag_of
from lora_whisper.data.corpora.items import Entry, Expected, Item, Row, Skip, gender_of, tidy
from lora_whisper.data.corpora.tables import count_lines, read_table
from lora_whisper.data.corpora.writer import Prepared, Progress, Target, Work, write_corpus
from lora_whisper.errors import ManifestError, UnknownLanguage, UsageError

AUDIO = ("audio", "audio_filepath", "audio_path", "file_name", "filename", "path", "file", "wav")
TEXT = ("text", "sentence", "transcription", "transcript", "raw_transcription", "label")
LANGUAGE = ("language", "lang", "locale", "source_lang")
START = ("start_s", "start", "start_time", "offset")
END = ("end_s", "end", "end_time")
DURATION = ("duration_s", "duration")
SPEAKER = ("speaker", "speaker_id", "client_id")
ID = ("id", "utt_id", "utterance_id")


@dataclass(frozen=True)
class Hints:
    """What a table of one's own does not say by itself.

    Attributes:
        language: of all rows that name none.
        audio: column of the audio file; found by its usual names without it.
        text: column of the transcript; likewise.
        root: folder that audio paths are relative to; that of the table without it.
    """

    language: str | None = None
    audio: str | None = None
    text: str | None = None
    root: Path | None = None

    def request(self, path: Path) -> str:
        """What is asked for, in one line: the file and the hints that there are."""
        hints = (f"{key} {value}" for key, value in vars(self).items() if value is not None)
        return ", ".join([str(path.resolve()), *hints])


def prepare_table(
    path: Path,
    target: Target,
    hints: Hints | None = None,
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of a table with a head: a column each for audio and text, others if there are any.

    Known beside those are language, start and end or duration in seconds, speaker, gender and id.

    Raises:
        ManifestError: the table cannot be read, or lacks a column.
        UnknownLanguage: the language of the hints is none.
        OutputError: the target cannot be written.
    """
    hints = hints or Hints()
    return write_corpus([read_own_table(path, hints)], hints.request(path), target, work, progress)


def read_own_table(path: Path, hints: Hints) -> Iterator[Item]:
    """What the table offers.

    Raises:
        ManifestError: it cannot be read, or lacks a column.
        UnknownLanguage: the language of the hints is none.
    """
    language = tag_of_hint(hints)
    delimiter = find_delimiter(path)
    columns: tuple[str, str] | None = None
    yield Expected(max(0, count_lines(path) - 1))
    quoted = delimiter != "\t"  # a stray quotation mark must not swallow lines
    for line in read_table(path, delimiter=delimiter, quoted=quoted):
        if isinstance(line, Skip):
            yield line
            continue
        row = line if quoted else _unquoted(line)
        columns = columns or (
            _column(path, row, hints.audio, AUDIO, "audio"),
            _column(path, row, hints.text, TEXT, "text"),
        )
        yield row_entry(row, columns, language, hints.root or path.parent)


def tag_of_hint(hints: Hints) -> str | None:
    """The tag of the language that holds for all rows, None if there is none.

    Raises:
        UnknownLanguage: it is no language.
    """
    from lora_whisper.languages import normalize_tag

    return normalize_tag(hints.language) if hints.language else None


def find_delimiter(path: Path) -> str:
    """What stands between the cells of a table: a tab in .tsv; else what the first line has most of.

    Raises:
        ManifestError: the table cannot be read.
    """
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline()
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such table; check the path") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check it") from None
    return max(",\t;|", key=head.count)


def row_entry(row: Row, columns: tuple[str, str], language: str | None, root: Path) -> Entry | Skip:
    """The entry in a row whose columns of audio and text are given."""
    audio = row.get(columns[0])
    if not audio or "\0" in audio:
        return Skip(row.where, "no audio file named")
    try:
        tag = tag_of_row(row.get(*LANGUAGE), language)
        start_s, duration_s = _times(row)
    except (UsageError, UnknownLanguage) as error:
        return Skip(row.where, str(error))
    name = row.get(*ID)
    default = Path(audio).with_suffix("").as_posix() if Path(audio).name else audio
    return Entry(
        id=name or (f"{default}@{start_s:g}" if start_s else default),
        audio=root / audio,
        text=tidy(row.get(columns[1])),
        language=tag,
        start_s=start_s,
        duration_s=duration_s,
        speaker=row.get(*SPEAKER) or None,
        gender=gender_of(row.get("gender")),
    )


def tag_of_row(name: str, default: str | None) -> str:
    """The tag of the language that a row names, or else the default.

    Raises:
        UsageError: there is neither.
        UnknownLanguage: it names none.
    """
    if name:
        from lora_whisper.languages import normalize_tag

        try:
            return normalize_tag(name)
        except UnknownLanguage:
            return tag_of(name)
    if default is None:
        raise UsageError("no language; give --language")
    return default


def _times(row: Row) -> tuple[float, float | None]:
    """Start and duration in seconds.

    Raises:
        UsageError: they make no sense.
    """
    start_s, end_s, duration_s = _seconds(row, START), _seconds(row, END), _seconds(row, DURATION)
    start_s = start_s or 0.0
    if duration_s is None and end_s is not None:
        duration_s = round(end_s - start_s, 4)
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise UsageError(f"start {start_s:g} s and duration {duration_s} s make no part of a file")
    return start_s, duration_s


def _seconds(row: Row, columns: Sequence[str]) -> float | None:
    text = row.get(*columns)
    try:
        value = float(text) if text else None
    except ValueError:
        raise UsageError(f"{text!r} is no number of seconds") from None
    if value is not None and not abs(value) < 1e9:
        raise UsageError(f"{text!r} is no number of seconds")
    return value


def _unquoted(row: Row) -> Row:
    """The row without the quotation marks that some programs put around cells."""

    def bare(cell: str) -> str:
        inner = cell[1:-1]
        quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
        return inner.replace('""', '"') if quoted else cell

    return replace(row, cells={name: bare(cell) for name, cell in row.cells.items()})


def _column(path: Path, row: Row, wanted: str | None, usual: Sequence[str], what: str) -> str:
    names = (wanted,) if wanted else usual
    found = next((name for name in names if name in row.cells), None)
    if found is None:
        raise ManifestError(
            f"{path}: no column {wanted or ', '.join(usual)} for {what}, only {', '.join(row.cells)}; "
            f"name it with --{what}-column"
        )
    return found
