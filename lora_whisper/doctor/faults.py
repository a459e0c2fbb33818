"""What can be wrong with a corpus, how bad it is, and what to do about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 5


@dataclass(frozen=True)
class Kind:
    """A kind of fault: errors spoil training or scores, warnings probably do, notes are for the eye."""

    name: str
    severity: Severity
    about: str
    remedy: str


BROKEN_LINE = Kind("broken line", "error", "the line is no utterance", "correct it or leave it out")
UNREADABLE = Kind("unreadable audio", "error", "missing, empty, cut off or no audio", "copy the file again")
CUT_SHORT = Kind(
    "cut short", "error", "less audio than `duration_s` says", "copy the file again, or correct it"
)
SILENT = Kind("silent audio", "error", "nothing can be heard", "leave it out, or look at the recording")
CLIPPED = Kind("clipped audio", "note", "over 1 % of the samples are at the limit", "record at a lower level")
EMPTY_TEXT = Kind("empty text", "error", "speech without a transcript", "transcribe it or leave it out")
TOO_LONG = Kind("over 30 s", "error", "Whisper hears 30 s at most", "cut it with its text, at pauses")
TOO_MANY_TOKENS = Kind("over 448 tokens", "error", "more than the decoder can hold", "cut it with its text")
TOO_FAST = Kind("too much text", "error", "more than anybody says in that time", "check text and cut")
TOO_SLOW = Kind("too little text", "warning", "much less than is usual in that time", "check text and cut")
WRONG_SCRIPT = Kind("wrong script", "error", "not the script of its language", "check text and language tag")
ODD_CHARACTERS = Kind("odd characters", "warning", "invisible, private, broken or mark-up", "clean the text")
SPECIAL_TOKENS = Kind("special tokens", "error", "Whisper's own tokens in the text", "remove <|…|>")
DOUBLE_START = Kind(
    "label prefix",
    "error",
    "labels need exactly one <|startoftranscript|>",
    "report it: no fault of the data",
)
PLAIN_STYLE = Kind(
    "plain style", "note", "a language without capitals or end marks: Whisper will forget them",
    "take the raw transcripts if there are any",
)  # fmt: skip
MIXED_STYLE = Kind(
    "mixed style", "note", "some texts are written in another style than most", "write all in one style"
)
DUPLICATE = Kind("duplicate", "warning", "the same audio with the same text twice", "leave one out")
CONTRADICTION = Kind("contradiction", "error", "the same audio with two texts", "find out which is right")
LEAKED_AUDIO = Kind("audio in two splits", "error", "scores will be too good", "leave it out of one split")
LEAKED_TEXT = Kind("text in two splits", "warning", "scores may be too good", "leave it out of training")
LEAKED_SPEAKER = Kind("speaker in two splits", "warning", "scores may be too good", "split by speaker")
WRONG_LANGUAGE = Kind(
    "likely another language", "warning", "language identification is sure of another one", "listen to it"
)

KINDS: tuple[Kind, ...] = (
    BROKEN_LINE, UNREADABLE, CUT_SHORT, SILENT, EMPTY_TEXT, TOO_LONG, TOO_MANY_TOKENS, DOUBLE_START, TOO_FAST,
    WRONG_SCRIPT, SPECIAL_TOKENS, CONTRADICTION, LEAKED_AUDIO, TOO_SLOW, ODD_CHARACTERS, DUPLICATE,
    LEAKED_TEXT, LEAKED_SPEAKER, WRONG_LANGUAGE, CLIPPED, PLAIN_STYLE, MIXED_STYLE,
)  # fmt: skip
"""All of them, the worst first."""


@dataclass(frozen=True)
class Place:
    """A line of a manifest, counted from 1."""

    manifest: Path
    line: int

    def __str__(self) -> str:
        return f"{self.manifest}:{self.line}"


@dataclass(frozen=True)
class Fault:
    """One fault at one place; `detail` says what exactly."""

    kind: Kind
    place: Place
    detail: str


@dataclass(frozen=True)
class Examination:
    """All faults of some manifests.

    Attributes:
        utterances: how many were examined.
        faults: in the order of the lines.
        not_done: checks that were left out, and why.
    """

    utterances: int
    faults: tuple[Fault, ...]
    not_done: tuple[str, ...] = ()

    def of(self, kind: Kind) -> list[Fault]:
        """The faults of one kind."""
        return [one for one in self.faults if one.kind is kind]

    @property
    def found(self) -> list[Kind]:
        """The kinds that occur, the worst first."""
        return [kind for kind in KINDS if self.of(kind)]

    def count(self, severity: Severity) -> int:
        """How many faults are so severe."""
        return sum(one.kind.severity == severity for one in self.faults)

    @property
    def bad_places(self) -> set[Place]:
        """Lines with an error."""
        return {one.place for one in self.faults if one.kind.severity == "error"}

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            "utterances": self.utterances,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "faults": [_kind_dict(kind, self.of(kind)) for kind in self.found],
            "not_done": list(self.not_done),
        }

    def verdict(self) -> str:
        """One line."""
        if not self.faults:
            return f"{self.utterances:,} utterances, nothing found"
        counts = Counter(one.kind.severity for one in self.faults)
        listed = ", ".join(f"{counts[s]:,} {s}{'s' * (counts[s] != 1)}" for s in SEVERITIES if counts[s])
        return f"{self.utterances:,} utterances: {listed}"


def _kind_dict(kind: Kind, faults: Sequence[Fault]) -> dict[str, Any]:
    return {
        "fault": kind.name,
        "severity": kind.severity,
        "about": kind.about,
        "remedy": kind.remedy,
        "count": len(faults),
        "examples": [{"place": str(one.place), "detail": one.detail} for one in faults[:EXAMPLES]],
    }
