"""Cuts of lhotse: a stretch of one recording with its supervisions.

{"type": "MonoCut", "id": "…", "start": 0.2, "duration": 1.0, "channel": 0,
 "recording": {"sources": [{"type": "file", "channels": [0], "source": "a.wav"}], …},
 "supervisions": [{"start": 0.0, "duration": 1.0, "text": "…", "language": "Polish", "speaker": "…"}]}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_whisper.data.corpora.items import Entry, Skip, gender_of, tidy
from lora_whisper.data.corpora.tabular import tag_of_row
from lora_whisper.data.manifest import TimedText
from lora_whisper.errors import LoraWhisperError, UsageError
from lora_whisper.languages import language as about

_KINDS = {"MonoCut", "MultiCut", "MixedCut", "PaddingCut", "Cut"}


def is_cut(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a cut."""
    return value.get("type") in _KINDS or ("supervisions" in value and "recording" in value)


def cut_entry(where: str, cut: Mapping[str, Any], language: str | None, root: Path) -> Entry | Skip:
    """The entry in a cut: all that is said in it, in the order of time.

    Args:
        where: file and line, for messages.
        cut: the JSON object.
        language: of cuts that name none.
        root: folder that audio paths are relative to.
    """
    try:
        fault = _fault(cut)
        return Skip(where, fault) if fault else _entry(cut, language, root)
    except LoraWhisperError as error:
        return Skip(where, str(error))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return Skip(where, "no cut as lhotse writes them; save the cut set again")


def _fault(cut: Mapping[str, Any]) -> str | None:
    """Why the cut cannot be used as it is."""
    kind = cut.get("type", "MonoCut")
    if kind not in ("MonoCut", "Cut"):
        return f"a {kind}; save its audio first, as MonoCuts"
    recording = cut.get("recording")
    if not recording:
        return "features without a recording; the cut needs its audio"
    source = recording["sources"][0]
    if len(recording["sources"]) > 1 or len(source["channels"]) > 1:
        return "one channel of several; save its audio first"
    if source["type"] != "file":
        return f"audio of type {source['type']}; save it as files first"
    if recording.get("transforms"):
        return "perturbed audio; save it as files first"
    if not cut.get("supervisions"):
        return "no supervision, so no text"
    return None


def _entry(cut: Mapping[str, Any], language: str | None, root: Path) -> Entry:
    supervisions: Sequence[Mapping[str, Any]] = sorted(cut["supervisions"], key=lambda part: part["start"])
    tags = {tag_of_row(part.get("language") or "", language) for part in supervisions}
    if len(tags) > 1:
        raise UsageError(f"several languages: {', '.join(sorted(tags))}")
    tag = tags.pop()
    pieces = tuple(_piece(part) for part in supervisions)
    space = about(tag).space
    speakers = {part.get("speaker") for part in supervisions}
    genders = {gender_of(str(part.get("gender") or "")) for part in supervisions}
    return Entry(
        id=str(cut["id"]),
        audio=root / cut["recording"]["sources"][0]["source"],
        text=tidy(space.join(piece.text for piece in pieces)),
        language=tag,
        start_s=float(cut["start"]),
        duration_s=float(cut["duration"]),
        speaker=speakers.pop() if len(speakers) == 1 else None,
        gender=genders.pop() if len(genders) == 1 else None,
        segments=pieces if len(pieces) > 1 else (),
    )


def _piece(part: Mapping[str, Any]) -> TimedText:
    start_s = max(0.0, float(part["start"]))
    end_s = max(start_s, float(part["start"]) + float(part["duration"]))
    return TimedText(round(start_s, 4), round(end_s, 4), tidy(part.get("text") or ""))
