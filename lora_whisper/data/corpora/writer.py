"""From what a corpus offers to a manifest: audio is written out and checked in parallel, and never twice.

OUT/NAME.jsonl                the manifest
OUT/audio/NAME/LANGUAGE/…     audio that lay in archives and tables, byte for byte
OUT/records/NAME.jsonl        for each utterance: checksum, size, length, and what a manifest cannot hold
OUT/records/NAME.json         what was asked for, counts, and everything that was skipped, with the reason
"""

import hashlib
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from lora_whisper.data.corpora.inspection import Finding, Inspector, Task
from lora_whisper.data.corpora.items import Entry, Expected, Item, Skip, limited
from lora_whisper.data.manifest import Utterance, write_manifest
from lora_whisper.errors import ManifestError, OutputError
from lora_whisper.files import prepare_folder, write_json, write_text

Progress = Callable[[int, int], None]

_WINDOW_S = 30.0
_ELSEWHERE = re.compile(r"[^\w.+-]+")  # characters that a file name does not need
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff": ".mp3"}


@dataclass(frozen=True)
class Target:
    """Where a manifest goes.

    Attributes:
        out: folder.
        name: of the manifest, such as "train".
        overwrite: also take the place of a manifest that was made otherwise.
    """

    out: Path
    name: str
    overwrite: bool = False

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.out / f"{self.name}.jsonl"

    @property
    def record(self) -> Path:
        """What is known of each utterance."""
        return self.out / "records" / f"{self.name}.jsonl"

    @property
    def summary(self) -> Path:
        """What was asked for and what came of it."""
        return self.out / "records" / f"{self.name}.json"


@dataclass(frozen=True)
class Work:
    """How to go about it.

    Attributes:
        jobs: threads that write and check audio.
        decode: decode every file to its end instead of trusting its header.
        limit: only so many utterances of each language.
    """

    jobs: int = 4
    decode: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Amount:
    """How much there is in one language."""

    language: str
    utterances: int
    hours: float


@dataclass(frozen=True)
class Remark:
    """Something odd, and how often."""

    text: str
    utterances: int


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Attributes:
        manifest: the manifest.
        amounts: of each language.
        reused: utterances whose audio was there already and is unchanged.
        skipped: what is not in the manifest, with the reason.
        remarks: what is in it and odd.
    """

    manifest: Path
    amounts: tuple[Amount, ...]
    reused: int
    skipped: tuple[Skip, ...]
    remarks: tuple[Remark, ...]

    @property
    def utterances(self) -> int:
        """In all languages."""
        return sum(amount.utterances for amount in self.amounts)


def write_corpus(
    parts: Iterable[Iterable[Item]],
    request: str,
    target: Target,
    work: Work | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """A manifest of all usable entries, in their order, and an account of everything else.

    Run again, it reads the corpus again but touches no audio that is there and unchanged.

    Args:
        parts: what the corpus offers, language by language.
        request: what was asked for, in one line.
        target: where it goes.
        work: how to go about it.
        progress: called with the number of utterances done, and of those known of.

    Raises:
        ManifestError: the corpus cannot be read, or nothing of it can be used.
        OutputError: the folder cannot be written, or holds a manifest that was made otherwise.
    """
    work = work or Work()
    _claim(target, request)
    tally = _Tally()
    items = itertools.chain.from_iterable(limited(part, work.limit) for part in parts)
    tasks = _tasks(items, target, tally)
    inspector = Inspector(target.record, work.decode)
    with _Journal(target.record) as journal:
        for finding in _in_parallel(tasks, work.jobs, inspector.check):
            tally.add(finding)
            journal.add(inspector.line(finding))
            if progress:
                progress(tally.done, max(tally.done, tally.expected))
    prepared = _finish(target, request, tally)
    write_text(target.record, "".join(f"{inspector.line(finding)}\n" for finding in tally.findings))
    return prepared


class _Tally:
    """What has been done so far."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.skipped: list[Skip] = []
        self.expected = 0
        self.done = 0

    def add(self, finding: Finding) -> None:
        self.done += 1
        if finding.fault:
            self.skipped.append(Skip(finding.entry.id, finding.fault))
        else:
            self.findings.append(finding)

    def remarks(self) -> tuple[Remark, ...]:
        notes = Counter(finding.entry.note for finding in self.findings if finding.entry.note)
        notes["without text"] += sum(not finding.entry.text for finding in self.findings)
        notes[f"longer than {_WINDOW_S:g} s"] += sum(f.duration_s > _WINDOW_S for f in self.findings)
        return tuple(Remark(text, count) for text, count in notes.items() if count)

    def amounts(self) -> tuple[Amount, ...]:
        seconds: dict[str, list[float]] = {}
        for finding in self.findings:
            seconds.setdefault(finding.entry.language, []).append(finding.duration_s)
        return tuple(Amount(tag, len(all_s), round(sum(all_s) / 3600, 4)) for tag, all_s in seconds.items())


def _claim(target: Target, request: str) -> None:
    """See that the folder can be written, and that no other manifest would be lost."""
    prepare_folder(target.record.parent)
    if target.overwrite or not target.manifest.exists():
        return
    try:
        before = json.loads(target.summary.read_text(encoding="utf-8"))["request"]
    except (OSError, ValueError, KeyError, TypeError):
        before = "something else"
    if before != request:
        raise OutputError(
            f"{target.manifest}: is there already, made from {before}; give another --out, or --overwrite"
        )


def _tasks(items: Iterable[Item], target: Target, tally: _Tally) -> Iterator[Task]:
    """The entries, with unique names and a place for their audio; everything else goes to the tally."""
    ids, paths = _Unique(), _Unique(str.casefold)  # some file systems take a for A
    for item in items:
        if isinstance(item, Expected):
            tally.expected += item.utterances
        elif isinstance(item, Skip):
            tally.skipped.append(item)
        else:
            entry = replace(item, id=ids.claim(item.id))
            yield Task(entry, _place(entry, target, paths))


def _place(entry: Entry, target: Target, taken: "_Unique") -> Path:
    """Where the audio of the entry is or is to be."""
    if isinstance(entry.audio, Path):
        return entry.audio
    name = PurePosixPath(entry.audio.name.replace("\\", "/")).name or entry.id
    suffix = PurePosixPath(name).suffix or _suffix(entry.audio.data)
    stem = _ELSEWHERE.sub("_", PurePosixPath(name).stem).strip("._")[:150] or "audio"
    folder = target.out / "audio" / target.name / entry.language
    return folder / f"{taken.claim(f'{entry.language}/{stem}').partition('/')[2]}{suffix}"


def _suffix(data: bytes) -> str:
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".audio")


class _Unique:
    """Makes names differ that do not: a, a-2, a-3."""

    def __init__(self, key: Callable[[str], str] = str) -> None:
        self._key = key
        self._taken: set[str] = set()

    def claim(self, name: str) -> str:
        free = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        chosen = next(candidate for candidate in free if self._key(candidate) not in self._taken)
        self._taken.add(self._key(chosen))
        return chosen


class _Journal:
    """Adds lines to the record at once, so that a run that is stopped leaves what it knew."""

    def __init__(self, record: Path):
        self._record = record

    def __enter__(self) -> "_Journal":
        with self._errors():
            self._file = self._record.open("a", encoding="utf-8", buffering=1)
        self.add("")  # ends a line that was cut off
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: str) -> None:
        with self._errors():
            self._file.write(f"{line}\n")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self._record}: cannot be written ({error.strerror or error})") from None


def _in_parallel(tasks: Iterable[Task], jobs: int, function: Callable[[Task], Finding]) -> Iterator[Finding]:
    """The findings in the order of the tasks, of which only a few are held at a time."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="audio")
    pending: deque[Future[Finding]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) >= 4 * jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(target: Target, request: str, tally: _Tally) -> Prepared:
    if not tally.findings:
        reason = f"{tally.skipped[0].where}: {tally.skipped[0].reason}" if tally.skipped else "it is empty"
        more = f" (and {len(tally.skipped) - 1} more)" if len(tally.skipped) > 1 else ""
        raise ManifestError(
            f"{request}: nothing there can be used: {reason}{more}; see --help for the layout"
        )
    write_manifest(target.manifest, (_utterance(finding) for finding in tally.findings))
    reused = sum(finding.reused for finding in tally.findings)
    prepared = Prepared(target.manifest, tally.amounts(), reused, tuple(tally.skipped), tally.remarks())
    digest = hashlib.sha256(target.manifest.read_bytes()).hexdigest()
    account = {"request": request, "manifest_sha256": digest, "utterances": prepared.utterances}
    lists = {
        key: [asdict(value) for value in getattr(prepared, key)] for key in ("amounts", "remarks", "skipped")
    }
    write_json(target.summary, {**account, **lists})
    return prepared


def _utterance(finding: Finding) -> Utterance:
    entry = finding.entry
    return Utterance(
        audio=finding.path,
        text=entry.text,
        language=entry.language,
        start_s=entry.start_s,
        duration_s=finding.duration_s,
        speaker=entry.speaker,
        id=entry.id,
        segments=entry.segments,
    )
