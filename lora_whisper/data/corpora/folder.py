"""Folders with audio files and texts beside them: a.wav and a.txt, or LibriSpeech's *.trans.txt."""

from collections.abc import Iterator
from pathlib import Path

from lora_whisper.data.corpora.codes import is_code
from lora_whisper.data.corpora.items import Entry, Expected, Item, Skip, tidy
from lora_whisper.data.corpora.tabular import tag_of_row
from lora_whisper.data.corpora.writer import Prepared, Progress, Target, Work, write_corpus
from lora_whisper.errors import ManifestError
from lora_whisper.languages import normalize_tag

_AUDIO = frozenset(
    (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".aiff", ".aif", ".wma")
)
_TEXT = (".txt", ".lab")


def prepare_from_folder(
    folder: Path,
    target: Target,
    language: str | None = None,
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of all audio in a folder and the folders below it that has its text beside it.

    Args:
        folder: of a.wav and a.txt (or a.lab, or lines of a LibriSpeech *.trans.txt).
        target: where the manifest goes.
        language: of everything; without it, the folders right below are named after their languages.
        work: how to go about it.
        progress: called with the number of utterances done, and of all.

    Raises:
        ManifestError: there is no such folder, or nothing in it.
        UnknownLanguage: the language is none.
        OutputError: the target cannot be written.
    """
    request = f"{folder.resolve()} in {normalize_tag(language) if language else 'languages of its folders'}"
    return write_corpus([read_folder(folder, language)], request, target, work, progress)


def read_folder(folder: Path, language: str | None) -> Iterator[Item]:
    """What the folder offers: audio with text; either without the other is skipped.

    Raises:
        ManifestError: there is no such folder, or no audio in it.
        UnknownLanguage: the language is none.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; name one with audio files and texts beside them")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    sounds = [path for path in paths if path.suffix.lower() in _AUDIO]
    if not sounds:
        raise ManifestError(f"{folder}: no audio files in it; name the folder that has them")
    yield Expected(len(sounds))
    listed = _listed(paths)
    tag = normalize_tag(language) if language else None
    for path in sounds:
        yield _entry(path, folder, tag, listed)
    stems = {path.with_suffix("") for path in sounds}
    for path in paths:
        alone = path.suffix.lower() in _TEXT and path.with_suffix("") not in stems
        if alone and not path.name.endswith(".trans.txt"):
            yield Skip(str(path), "text without audio beside it")


def _listed(paths: list[Path]) -> dict[Path, str]:
    """The texts in LibriSpeech's *.trans.txt, by audio file without suffix."""
    texts: dict[Path, str] = {}
    for path in paths:
        if path.name.endswith(".trans.txt"):
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                name, _, text = line.strip().partition(" ")
                if name:
                    texts[path.parent / name] = text
    return texts


def _entry(path: Path, folder: Path, tag: str | None, listed: dict[Path, str]) -> Entry | Skip:
    relative = path.relative_to(folder)
    own = relative.parts[0] if len(relative.parts) > 1 and is_code(relative.parts[0]) else ""
    if not (tag or own):
        return Skip(str(path), "no language; give --language, or folders named after languages")
    beside = next((file for suffix in _TEXT if (file := path.with_suffix(suffix)).is_file()), None)
    try:
        text = beside.read_text(encoding="utf-8-sig") if beside else listed.get(path.with_suffix(""))
    except (OSError, UnicodeDecodeError) as error:
        return Skip(str(beside), f"no text in UTF-8 ({error}); save it again")
    if text is None:
        return Skip(str(path), f"no text beside it ({path.stem}.txt)")
    return Entry(
        id=relative.with_suffix("").as_posix(),
        audio=path,
        text=tidy(text),
        language=tag or tag_of_row(own, None),
    )
