"""Multilingual LibriSpeech: audio books in eight languages (OpenSLR 94; facebook/multilingual_librispeech).

    mls_polish/metainfo.txt                      speaker | gender | partition | minutes | book | …
    mls_polish/train/transcripts.txt             SPEAKER_BOOK_NUMBER, tab, text
    mls_polish/train/audio/SPEAKER/BOOK/*.flac   .opus in mls_polish_opus
    mls_polish/train/limited_supervision/9hr/handles.txt, 1hr/0/handles.txt … 1hr/5/handles.txt
    polish/train-00000-of-00004.parquet          the same on the Hub, with 9_hours and 1_hours as splits

The texts are in lower case and without punctuation. `9hr` and `1hr` are parts of `train`, and share nothing.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_whisper.data.corpora.codes import Choice, choose
from lora_whisper.data.corpora.items import Entry, Expected, Item, Row, Skip, gender_of, tidy
from lora_whisper.data.corpora.tables import count_lines, read_parquet, read_table, to_items
from lora_whisper.data.corpora.trees import SPLITS, Home, Tree, find_homes, find_parquet
from lora_whisper.data.corpora.writer import Prepared, Progress, Target, Work, write_corpus
from lora_whisper.errors import ManifestError

REPO = "facebook/multilingual_librispeech"

_LANGUAGES = ("english", "german", "dutch", "french", "spanish", "italian", "portuguese", "polish")
_HOMES = (
    "{}/*/transcripts.txt",
    "*/{}/*/transcripts.txt",
    "{}/*.parquet",
    "{}/*/*.parquet",
    "*/{}/*.parquet",
)
_NAMES = {**SPLITS, "9hr": ("9_hours", "train.9h"), "1hr": ("1_hours", "train.1h")}
_COLUMNS = ("id", "transcript", "text", "speaker_id", "chapter_id")
_SUFFIXES = (".flac", ".opus", ".ogg", ".wav", ".mp3")


def prepare_mls(
    languages: Sequence[str],
    split: str,
    tree: Tree,
    target: Target,
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of one split in some languages.

    Args:
        languages: tags (pl), names (polish), or "all" that the tree has.
        split: "train", "dev", "test", "9hr" or "1hr".
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
    homes = {_name(home.code): home for home in _find_homes(tree, languages)}
    choices = choose(languages, list(homes), f"MLS in {tree.name}")
    parts = (read_mls(tree, homes[choice.code], choice, split) for choice in choices)
    request = f"MLS {split} {','.join(choice.tag for choice in choices)} of {tree.name}"
    return write_corpus(parts, request, target, work, progress)


def read_mls(tree: Tree, home: Home, choice: Choice, split: str) -> Iterator[Item]:
    """What the corpus offers of one language in one split.

    Raises:
        ManifestError: it cannot be read, or has no such split.
        MissingExtra: pyarrow is not installed, and the tree holds parquet files.
    """
    part = "train" if split in ("9hr", "1hr") else split
    folder = tree.folder(f"{home.folder}{part}")
    if folder and (folder / "transcripts.txt").is_file():
        return _read_folder(folder, choice, split)
    files = find_parquet(tree, home, _NAMES[split])
    if not files:
        raise ManifestError(
            f"{tree.name}: MLS has neither {home.folder}{part}/transcripts.txt nor parquet files of {split}; "
            "name the folder that holds mls_polish and the like"
        )
    return (
        item
        for file in files
        for item in to_items(read_parquet(tree.fetch(file), _COLUMNS), lambda row: _entry(row, choice, {}))
    )


def _find_homes(tree: Tree, languages: Sequence[str]) -> tuple[Home, ...]:
    """Like `find_homes`; folders are called mls_polish or mls_polish_opus here, and polish on the Hub."""
    for language in _LANGUAGES:
        for folder in (f"mls_{language}", f"mls_{language}_opus"):
            if Path(tree.name).name == folder:
                return (Home(language, ""),)
    prefixed = {
        path.rsplit("/", 2)[0]: None
        for pattern in ("mls_*/*/transcripts.txt", "*/mls_*/*/transcripts.txt")
        for path in tree.find(pattern)
    }
    homes = (Home(folder.rsplit("/", 1)[-1], f"{folder}/") for folder in prefixed)
    return tuple(home for home in homes if _name(home.code) in _LANGUAGES) or find_homes(
        tree, _HOMES, languages
    )


def _name(code: str) -> str:
    return code.removeprefix("mls_").removesuffix("_opus")


def _read_folder(folder: Path, choice: Choice, split: str) -> Iterator[Item]:
    wanted = _handles(folder / "limited_supervision" / split) if split in ("9hr", "1hr") else None
    genders = _genders(folder.parent / "metainfo.txt")
    transcripts = folder / "transcripts.txt"
    yield Expected(count_lines(transcripts) if wanted is None else len(wanted))
    for row in read_table(transcripts, ("id", "transcript")):
        if isinstance(row, Skip):
            yield row
        elif wanted is None or row.get("id") in wanted:
            yield _entry(row, choice, genders, folder / "audio")
            if wanted is not None:
                wanted.discard(row.get("id"))
    for name in sorted(wanted or ()):
        yield Skip(name, f"listed in limited_supervision/{split}, but without a line in {transcripts}")


def _handles(folder: Path) -> set[str]:
    """The names listed in handles.txt, in the folder itself or in those below."""
    lists = sorted([*folder.glob("handles.txt"), *folder.glob("*/handles.txt")])
    if not lists:
        raise ManifestError(f"{folder}: no handles.txt, in which MLS lists this part; unpack all of MLS")
    return {name for path in lists for name in path.read_text(encoding="utf-8").split()}


def _genders(path: Path) -> dict[str, str | None]:
    """Gender by speaker; empty without the file that tells."""
    if not path.is_file():
        return {}
    lines = (line.split("|") for line in path.read_text(encoding="utf-8", errors="replace").split("\n"))
    return {cells[0].strip(): gender_of(cells[1]) for cells in lines if len(cells) > 1}


def _entry(
    row: Row, choice: Choice, genders: dict[str, str | None], folder: Path | None = None
) -> Entry | Skip:
    name = row.get("id") or (Path(row.audio.name).stem if row.audio else "")
    parts = name.split("_")
    if len(parts) != 3:
        return Skip(row.where, f"{name!r} is not SPEAKER_BOOK_NUMBER")
    speaker = row.get("speaker_id") or parts[0]
    return Entry(
        id=f"mls-{choice.code}-{name}",
        audio=row.audio or _file(folder or Path(), parts, name),
        text=tidy(row.get("transcript", "text")),
        language=choice.tag,
        speaker=f"mls-{speaker}",
        gender=genders.get(speaker),
    )


def _file(folder: Path, parts: list[str], name: str) -> Path:
    base = folder / parts[0] / parts[1] / name
    candidates = [base.with_name(name + suffix) for suffix in _SUFFIXES]
    return next((path for path in candidates if path.is_file()), candidates[0])
