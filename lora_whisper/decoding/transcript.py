"""What was said, when and in which language, and the five ways to write it down. No torch."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """One word with its place in the audio."""

    start_s: float
    end_s: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """One stretch of speech in one language."""

    start_s: float
    end_s: float
    text: str
    language: str
    language_probability: float
    avg_logprob: float
    no_speech_probability: float
    words: tuple[Word, ...] = ()
    temperature: float = 0.0
    compression_ratio: float = 0.0
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """Everything heard in one audio file; `language` is that of the most speech."""

    audio: str
    duration_s: float
    language: str
    segments: tuple[Segment, ...]
    task: str = "transcribe"


@dataclass(frozen=True)
class Layout:
    """How subtitles are set.

    Attributes:
        width: most characters of a line; None for any number.
        lines: most lines of a subtitle; a longer text becomes several, each with its share of the time.
    """

    width: int | None = None
    lines: int | None = None


PLAIN = Layout()


def to_text(transcript: Transcript) -> str:
    """Return the plain text: one line per segment that says something."""
    return "\n".join(_one_line(segment.text) for segment in _spoken(transcript))


def to_dict(transcript: Transcript) -> dict[str, Any]:
    """Return the fields of OpenAI's `verbose_json`, with the language also per segment, ready for JSON."""
    return {
        "task": transcript.task,
        "audio": transcript.audio,
        "language": transcript.language,
        "duration": round(transcript.duration_s, 3),
        "text": " ".join(to_text(transcript).split("\n")),
        "segments": [_segment_dict(number, segment) for number, segment in enumerate(transcript.segments)],
    }


def to_json(transcript: Transcript) -> str:
    """Return `to_dict` as one JSON object, indented."""
    return json.dumps(to_dict(transcript), ensure_ascii=False, indent=2)


def to_tsv(transcript: Transcript) -> str:
    """Return a table with tabs: start and end in milliseconds, text, as Whisper's own, and the language."""
    rows = [
        f"{_milliseconds(one.start_s)}\t{_milliseconds(one.end_s)}\t{_one_line(one.text)}\t{one.language}"
        for one in _spoken(transcript)
    ]
    return "\n".join(["start\tend\ttext\tlanguage", *rows])


def to_srt(transcript: Transcript, layout: Layout = PLAIN) -> str:
    """Return SubRip subtitles."""
    cues = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(_cues(transcript, layout), start=1)
    ]
    return "\n".join(cues)


def to_vtt(transcript: Transcript, layout: Layout = PLAIN) -> str:
    """Return WebVTT subtitles; `&` and `<` are escaped as its grammar asks."""
    cues = [
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text.replace('&', '&amp;').replace('<', '&lt;')}\n"
        for start, end, text in _cues(transcript, layout)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _segment_dict(number: int, segment: Segment) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": number,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "language": segment.language,
        "language_probability": segment.language_probability,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_probability,
    }
    if segment.words:
        fields["words"] = [
            {
                "word": word.text,
                "start": round(word.start_s, 3),
                "end": round(word.end_s, 3),
                "probability": word.probability,
            }
            for word in segment.words
        ]
    return fields


def _spoken(transcript: Transcript) -> list[Segment]:
    return [segment for segment in transcript.segments if segment.text.strip()]


def _cues(transcript: Transcript, layout: Layout) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, text) of each subtitle in milliseconds; no cue is empty or lasts no time."""
    for segment in _spoken(transcript):
        start, end = _milliseconds(segment.start_s), _milliseconds(segment.end_s)
        blocks = _blocks(_one_line(segment.text).replace("-->", "→"), layout)
        said, total = 0, sum(map(len, blocks))
        for block in blocks:
            first, last = (start + (end - start) * part // total for part in (said, said + len(block)))
            yield first, max(last, first + 1), block
            said += len(block)


def _blocks(text: str, layout: Layout) -> list[str]:
    """Return the text in lines and these in subtitles, as the layout says."""
    lines = textwrap.wrap(text, layout.width) if layout.width else [text]
    count = layout.lines or len(lines)
    return ["\n".join(lines[start : start + count]) for start in range(0, len(lines), count)]


def _one_line(text: str) -> str:
    """Return `text` on one line: an empty line would end a subtitle in the middle."""
    return " ".join(text.split())


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _clock(milliseconds: int, mark: str) -> str:
    """Return `hh:mm:ss,mmm` with `mark` before the milliseconds, rounded once so that no field reaches 60."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"
