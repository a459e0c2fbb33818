"""Where the files of a corpus are: in a folder, or in a data set on the Hugging Face Hub."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from lora_whisper.data.corpora.codes import is_code
from lora_whisper.errors import ManifestError

SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
"""What the Hub calls our splits."""

_CODE = "{}"  # in a pattern: the part that names a language
_NEVER_A_CODE = {name for names in SPLITS.values() for name in names}  # `dev` is a language, too


class Tree(Protocol):
    """Files by their paths relative to a root."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def find(self, pattern: str) -> list[str]:
        """The paths that match a pattern in which * stands for anything but a slash, sorted."""

    def fetch(self, path: str) -> Path:
        """The file on this machine.

        Raises:
            ManifestError: it cannot be had.
        """

    def folder(self, path: str) -> Path | None:
        """The folder of this path, None if there is none on this machine."""


@dataclass(frozen=True)
class LocalTree:
    """A folder.

    Raises:
        ManifestError: it is not there, or no folder.
    """

    root: Path

    def __post_init__(self) -> None:
        if self.root.is_file():
            raise ManifestError(f"{self.root}: is a file; unpack it and name the folder of the corpus")
        if not self.root.is_dir():
            raise ManifestError(f"{self.root}: no such folder; name the folder of the corpus")

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def find(self, pattern: str) -> list[str]:
        """The paths that match a pattern, sorted."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))

    def fetch(self, path: str) -> Path:
        """The file where it lies."""
        return self.root / path

    def folder(self, path: str) -> Path | None:
        """The folder where it lies."""
        folder = self.root / path
        return folder if folder.is_dir() else None


@dataclass(frozen=True)
class HubTree:
    """A data set on the Hub; files are downloaded one by one as they are needed, into its ordinary cache.

    Attributes:
        repo: such as google/fleurs.
        revision: branch, tag or commit; `refs/convert/parquet` holds the Hub's own conversion.
    """

    repo: str
    revision: str = "main"

    @property
    def name(self) -> str:
        """Repository and revision."""
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"

    def find(self, pattern: str) -> list[str]:
        """The paths that match a pattern, sorted.

        Raises:
            ManifestError: the Hub cannot be reached, or has no such data set.
        """
        return [path for path in self._paths if _matches(path, pattern)]

    def fetch(self, path: str) -> Path:
        """The file, downloaded unless it was before; a broken download goes on.

        Raises:
            ManifestError: the Hub cannot be reached, or has no such file.
        """
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repo, path, repo_type="dataset", revision=self.revision))
        except Exception as error:  # noqa: BLE001  (whatever the network stack raises, the remedy is the same)
            raise self._unreachable(error, path) from None

    def folder(self, path: str) -> Path | None:  # noqa: ARG002
        """None: on the Hub, audio lies in archives and tables."""
        return None

    @cached_property
    def _paths(self) -> list[str]:
        from huggingface_hub import HfApi

        try:
            paths = HfApi().list_repo_files(self.repo, repo_type="dataset", revision=self.revision)
        except Exception as error:  # noqa: BLE001  (as above)
            raise self._unreachable(error) from None
        return sorted(paths)

    def _unreachable(self, error: Exception, path: str = "") -> ManifestError:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        return ManifestError(
            f"{self.name}{f' ({path})' if path else ''}: not available from the Hugging Face Hub ({reason}); "
            "check name, network and access (hf auth login), or give a folder with --source"
        )


@dataclass(frozen=True)
class Home:
    """Where a corpus keeps one language: everything in `folder`, which ends in a slash or is empty."""

    code: str
    folder: str


def open_tree(source: Path | None, repo: str | None, revision: str = "main") -> Tree:
    """The folder `source` if there is one, else the data set `repo` on the Hub.

    Raises:
        ManifestError: there is no such folder, or neither is given.
    """
    if source is not None:
        return LocalTree(source)
    if repo is None:
        raise ManifestError(
            "this corpus is not on the Hugging Face Hub; download it and give --source FOLDER"
        )
    return HubTree(repo, revision)


def find_homes(tree: Tree, patterns: Sequence[str], languages: Sequence[str]) -> tuple[Home, ...]:
    """Where the languages of a corpus are, by the first pattern, such as `data/{}/*.tsv`, that fits.

    A folder that is itself the folder of one language is taken for the one that it is named after, or else
    for the only one that is asked for.
    """
    own = Path(tree.name).resolve().name
    if is_code(own) and any(tree.find(inner) for inner in _inner(patterns) if inner.endswith(".tsv")):
        return (Home(own, ""),)  # asked first, for what lies below may be millions of clips
    for pattern in patterns:
        depth = pattern.split("/").index(_CODE)
        found = (path.split("/")[: depth + 1] for path in tree.find(pattern.replace(_CODE, "*")))
        homes = {parts[-1]: Home(parts[-1], "/".join(parts) + "/") for parts in found}
        if there := [home for code, home in homes.items() if code not in _NEVER_A_CODE and is_code(code)]:
            return tuple(there)
    return _itself(tree, patterns, languages)


def _itself(tree: Tree, patterns: Sequence[str], languages: Sequence[str]) -> tuple[Home, ...]:
    if not any(tree.find(inner) for inner in _inner(patterns)):
        return ()
    own = Path(tree.name).resolve().name
    if is_code(own):
        return (Home(own, ""),)
    return (Home(languages[0], ""),) if len(languages) == 1 else ()


def _inner(patterns: Sequence[str]) -> list[str]:
    """What the patterns say of the folder of one language."""
    return list(dict.fromkeys(pattern.partition(f"{_CODE}/")[2] for pattern in patterns))


def find_parquet(tree: Tree, home: Home, names: Sequence[str]) -> list[str]:
    """The parquet files of a split that may have several names, in order; none if there are none.

    Raises:
        ManifestError: there is only the beginning of the split, which is not what was asked for.
    """
    shapes = ("{}/*.parquet", "{}-*.parquet", "{}.parquet", "*-{}-*.parquet", "*-{}.parquet")
    for name in names:
        for shape in shapes:
            if found := tree.find(home.folder + shape.replace("{}", name)):
                return found
        if tree.find(f"{home.folder}partial-{name}/*.parquet"):
            raise ManifestError(
                f"{tree.name}: holds only the first part of {home.code} {name} (partial-{name}); "
                "take another revision, such as --revision main"
            )
    return []


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
