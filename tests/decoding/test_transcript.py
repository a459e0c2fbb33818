"""Text, JSON, SRT and VTT of a transcript."""

import json
import re

import pytest

from lora_whisper.decoding.transcript import (
    Layout,
    Segment,
    Transcript,
    Word,
    to_dict,
    to_json,
    to_srt,
    to_text,
    to_tsv,
    to_vtt,
)


def segment(start_s: float, end_s: float, text: str, words: tuple[Word, ...] = ()) -> Segment:
    return Segment(start_s, end_s, text, "pl", 0.9, -0.2, 0.01, words)


TRANSCRIPT = Transcript(
    audio="a.wav",
    duration_s=3700.0,
    language="pl",
    segments=(
        segment(0.0, 59.9996, " Dzień dobry. "),
        segment(60.0, 61.5, "  "),
        segment(3661.2344, 3662.0, "a --> b\n\nc <i>&"),
        segment(3662.0, 3662.0, "koniec", (Word(3662.0, 3662.00049, "koniec", 0.5),)),
    ),
)


def test_text_has_a_line_per_spoken_segment() -> None:
    assert to_text(TRANSCRIPT) == "Dzień dobry.\na --> b c <i>&\nkoniec"


def test_srt() -> None:
    assert to_srt(TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:01:00,000\nDzień dobry.\n\n"
        "2\n01:01:01,234 --> 01:01:02,000\na → b c <i>&\n\n"
        "3\n01:01:02,000 --> 01:01:02,001\nkoniec\n"
    )


def test_vtt() -> None:
    assert to_vtt(TRANSCRIPT) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:01:00.000\nDzień dobry.\n\n"
        "01:01:01.234 --> 01:01:02.000\na → b c &lt;i>&amp;\n\n"
        "01:01:02.000 --> 01:01:02.001\nkoniec\n"
    )


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0, "00:00:00.000"),
        (-0.01, "00:00:00.000"),
        (0.9994, "00:00:00.999"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (360_000.0, "100:00:00.000"),
    ],
)
def test_rounding_carries_through_the_clock(seconds: float, clock: str) -> None:
    transcript = Transcript("a", 1.0, "en", (segment(seconds, seconds + 1, "x"),))
    assert to_vtt(transcript).split("\n")[2].startswith(f"{clock} --> ")


def test_every_cue_is_well_formed_whatever_the_text() -> None:
    nasty = ["WEBVTT", "NOTE x", "-->", "a\r\n\r\n2\n00:00:00,000 --> 00:00:01,000\nb", "\u2028x"]
    transcript = Transcript("a", 9.0, "en", tuple(segment(n, n + 0.5, text) for n, text in enumerate(nasty)))
    blocks = to_srt(transcript).strip("\n").split("\n\n")
    assert [len(block.splitlines()) for block in blocks] == [3] * len(nasty)
    assert len(re.findall("-->", to_vtt(transcript))) == len(nasty)


def test_json_has_the_fields_of_verbose_json() -> None:
    data = json.loads(to_json(TRANSCRIPT))
    assert data == to_dict(TRANSCRIPT)
    assert (data["task"], data["language"], data["duration"]) == ("transcribe", "pl", 3700.0)
    assert data["text"] == "Dzień dobry. a --> b c <i>& koniec"
    assert data["segments"][2] == {
        "id": 2,
        "start": 3661.234,
        "end": 3662.0,
        "text": "a --> b\n\nc <i>&",
        "language": "pl",
        "language_probability": 0.9,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 0.0,
        "no_speech_prob": 0.01,
    }
    assert data["segments"][3]["words"] == [
        {"word": "koniec", "start": 3662.0, "end": 3662.0, "probability": 0.5}
    ]


def test_silence_is_empty_in_every_format() -> None:
    silence = Transcript("a.wav", 2.0, "en", ())
    assert (to_text(silence), to_srt(silence), to_vtt(silence)) == ("", "", "WEBVTT\n")
    assert to_dict(silence)["segments"] == []


def test_tsv_has_milliseconds_and_languages() -> None:
    assert to_tsv(TRANSCRIPT).splitlines() == [
        "start\tend\ttext\tlanguage",
        "0\t60000\tDzień dobry.\tpl",
        "3661234\t3662000\ta --> b c <i>&\tpl",
        "3662000\t3662000\tkoniec\tpl",
    ]


def test_long_subtitles_are_broken_into_lines_and_cues_that_share_the_time() -> None:
    text = "jeden dwa trzy cztery pięć sześć siedem osiem"
    long = Transcript("a.wav", 8.0, "pl", (segment(0.0, 8.0, text),))
    blocks = to_srt(long, Layout(width=12, lines=2)).strip().split("\n\n")
    lines = [block.split("\n")[2:] for block in blocks]
    assert " ".join(line for part in lines for line in part) == text
    assert all(len(line) <= 12 for part in lines for line in part) and [len(part) for part in lines] == [2, 2]
    times = [block.split("\n")[1] for block in blocks]
    assert times[0].startswith("00:00:00,000") and times[-1].endswith("00:00:08,000")
    assert times[0].split(" --> ")[1] == times[1].split(" --> ")[0]
    assert to_srt(long) == to_srt(long, Layout(width=100))
    unspaced = Transcript("a.wav", 2.0, "ja", (segment(0.0, 2.0, "かなかなかなかな"),))
    assert "かなかなか\nなかな" in to_vtt(unspaced, Layout(width=5))
