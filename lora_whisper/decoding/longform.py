"""Recordings of any length: what both ways of transcribing them share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lora_whisper.audio import N_SAMPLES, SAMPLE_RATE
from lora_whisper.audio_file import Samples
from lora_whisper.decoding.activity import Activity, ActivityLimits, Region, speech_regions
from lora_whisper.decoding.clip_job import Target
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.fallback import Fallback
from lora_whisper.decoding.search import GREEDY, DecodingOptions
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.decoding.transcript import Segment, Transcript, Word
from lora_whisper.decoding.word_times import TimedText
from lora_whisper.errors import LoraWhisperError

WINDOW_S = N_SAMPLES / SAMPLE_RATE
GROUP_S = 1800.0
"""Files are transcribed together until they last so long; a longer one alone."""

LEAST_S = 0.1
"""Less than this at the end of a file is not read: headers are wrong by as much."""

BLOCK_S = 60.0
"""Seconds of audio that are read at once to find speech."""

Unknown = Literal["nearest", "bare", "refuse"]
"""Speech in a language that is not allowed: taken for the nearest one that is, heard by the bare backbone, or
left without a text."""


@dataclass(frozen=True)
class LongFormOptions:
    """How recordings are transcribed.

    Attributes:
        decoding: of each window.
        fallback: when a window is decoded again.
        activity: what counts as speech.
        stay: probability that the language stays from one stretch of speech to the next; 1 / languages and
            below does not smooth at all.
        packed_s: stretches in one language that follow each other are heard together up to this length: worth
            it where each window costs 30 s. 0 keeps them apart.
        longest_gap_s: those further apart are never heard together.
        rescore: decode so many of the likeliest languages of a window and keep the best; 1 decodes one.
        unknown: what to do with speech in other languages.
        least_known: probability of all allowed languages together below which speech is unknown.
        words: whether each word comes with its time.
        previous_text: the text before a window is its prompt; sequential only.
        initial_prompt: text before the first window, or before each one where there is no order.
    """

    decoding: DecodingOptions = GREEDY
    fallback: Fallback = field(default_factory=Fallback)
    activity: ActivityLimits = field(default_factory=ActivityLimits)
    stay: float = 0.5
    packed_s: float = 0.0
    longest_gap_s: float = 1.5
    rescore: int = 1
    unknown: Unknown = "nearest"
    least_known: float = 0.1
    words: bool = False
    previous_text: bool = True
    initial_prompt: str = ""


def groups_of(clips: Sequence[Clip]) -> Iterator[list[int]]:
    """Numbers of the clips that are transcribed together, in order."""
    group: list[int] = []
    total_s = 0.0
    for index, clip in enumerate(clips):
        try:
            length_s = clip.length_s()
        except LoraWhisperError:
            length_s = 0.0  # told when it is read
        if group and total_s + length_s > GROUP_S:
            yield group
            group, total_s = [], 0.0
        group.append(index)
        total_s += length_s
    if group:
        yield group


def measured(clip: Clip) -> Clip:
    """The clip with its length known, so that no part of it asks the file again.

    Raises:
        AudioError: the file cannot be read.
    """
    return clip.part(0.0, clip.length_s())


def find_speech(clip: Clip, activity: Activity, limits: ActivityLimits) -> list[Region]:
    """The stretches of speech of a clip, whatever its length.

    Raises:
        AudioError: it cannot be read.
    """
    length_s = clip.length_s()

    def blocks() -> Iterator[Samples]:
        start_s = 0.0
        while start_s < length_s - LEAST_S:
            end_s = min(start_s + BLOCK_S, length_s)
            yield clip.part(start_s, end_s).load()
            start_s = end_s

    return speech_regions(activity.probabilities(blocks()), length_s, limits)


def transcript_of(clip: Clip, segments: Sequence[Segment]) -> Transcript:
    """The segments in order, and the language of the most speech."""
    spoken: dict[str, float] = {}
    for one in segments:
        spoken[one.language] = spoken.get(one.language, 0.0) + one.end_s - one.start_s
    main = max(spoken, key=lambda tag: spoken[tag]) if spoken else clip.language or "und"
    ordered = tuple(sorted(segments, key=lambda one: one.start_s))
    return Transcript(clip.name, clip.length_s(), main, ordered)


def with_words(
    asr: LoraWhisper,
    pieces: Sequence[Clip],
    targets: Sequence[Target],
    offsets_s: Sequence[float],
    segments: Sequence[Sequence[Segment]],
) -> list[list[Segment]]:
    """The segments of each window with their words.

    Args:
        asr: listens again, in mixed batches.
        pieces: the windows.
        targets: how each was transcribed.
        offsets_s: where each begins in its recording.
        segments: of each window, in order.
    """
    rows = [row for row, window in enumerate(segments) if any(one.tokens for one in window)]
    timed = asr.words(
        [pieces[row] for row in rows],
        [targets[row] for row in rows],
        [[one.tokens for one in segments[row]] for row in rows],
    )
    found = [list(window) for window in segments]
    for row, window in zip(rows, timed, strict=True):
        found[row] = [
            replace(one, words=tuple(_placed(word, offsets_s[row], one) for word in words))
            for one, words in zip(segments[row], window, strict=True)
        ]
    return found


def _placed(word: TimedText, offset_s: float, segment: Segment) -> Word:
    """The word in its recording, within its segment."""
    start_s, end_s = (
        min(max(offset_s + time_s, segment.start_s), segment.end_s) for time_s in (word.start_s, word.end_s)
    )
    return Word(start_s, end_s, word.text, word.probability)
