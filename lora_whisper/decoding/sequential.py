"""Recordings of any length, window after window: Whisper's own algorithm (Radford et al. 2022, section 4.5).

Each window begins where the last timestamp ended, with the text before it as a prompt; files go side by side.
If that ends a segment, Whisper skips the rest of its window, for nothing is said there. Where the text breaks
off that is wrong, so windows can follow the speech: they end in pauses, and the next begins at the first
speech that was not read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lora_whisper.decoding.activity import Activity, Region
from lora_whisper.decoding.clip_job import Target
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.fallback import split_by_timestamps, with_fallback
from lora_whisper.decoding.longform import (
    LEAST_S,
    WINDOW_S,
    LongFormOptions,
    find_speech,
    groups_of,
    measured,
    transcript_of,
    with_words,
)
from lora_whisper.decoding.search import Decoded, DecodingOptions
from lora_whisper.decoding.transcribe import LoraWhisper, Outcome
from lora_whisper.decoding.transcript import Segment
from lora_whisper.errors import LoraWhisperError

LEAST_UNREAD_S = 0.5
"""Less speech behind the last timestamp may be its error."""

LEAST_STEP_S = 1.0
"""A stretch of speech of which a window reads less is given up, lest a file never ends."""


@dataclass
class _Reader:
    """Where a file stands that is read window after window.

    Attributes:
        index: number of the file.
        clip: all of it.
        length_s: of the clip.
        target: how it is transcribed.
        probability: of its language.
        said: tokens of the text so far; empty if the next window is heard without.
        speech: the stretches that windows follow, with margins; None: they go by timestamps alone.
        seek_s: where the next window begins.
        segments: what was heard so far.
    """

    index: int
    clip: Clip
    length_s: float
    target: Target
    probability: float
    said: list[int] = field(default_factory=list)
    speech: Sequence[Region] | None = None
    seek_s: float = 0.0
    segments: list[Segment] = field(default_factory=list)

    @property
    def window_end_s(self) -> float:
        """Where the window ends: after 30 s or, if speech is followed, in the last pause before."""
        end_s = min(self.seek_s + WINDOW_S, self.length_s)
        pauses = [one.end_s for one in self.speech or () if self.seek_s < one.end_s <= end_s]
        return max(pauses, default=end_s)

    @property
    def window(self) -> Clip:
        """What is heard next; not read yet."""
        return self.clip.part(self.seek_s, self.window_end_s)

    @property
    def done(self) -> bool:
        """Whether nothing is left; the beginning of a file is always tried."""
        return self.seek_s > 0 and self.seek_s >= self.length_s - LEAST_S

    def go_on(self, done_s: float, read_s: float) -> None:
        """Stand at the next window.

        Args:
            done_s: how much of the window Whisper would leave behind, in seconds.
            read_s: how much of it was read for certain.
        """
        if self.speech is None:
            self.seek_s += done_s
            return
        next_s = self.speech_after_s(self.seek_s + min(done_s, read_s))
        later_s = [one.start_s for one in self.speech if one.start_s > self.seek_s]
        if next_s < self.seek_s + LEAST_STEP_S and next_s not in later_s:  # the stretch is given up
            next_s = min(later_s, default=self.length_s)
        self.seek_s = next_s

    def speech_after_s(self, time_s: float) -> float:
        """When somebody speaks from this time on; the file's end if nobody does."""
        for region in self.speech or ():
            if region.end_s - max(time_s, region.start_s) >= LEAST_UNREAD_S:
                return max(time_s, region.start_s)
        return self.length_s

    def read(self) -> Clip | LoraWhisperError:
        """The next window in memory, or what is wrong with it."""
        try:
            return Clip(self.window.load())
        except LoraWhisperError as error:
            return error


def transcribe_sequentially(
    asr: LoraWhisper,
    clips: Sequence[Clip],
    languages: Sequence[str] | None = None,
    options: LongFormOptions | None = None,
    activity: Activity | None = None,
) -> Iterator[Outcome]:
    """The outcome of each clip, one language each, all files of a group side by side; see the module.

    Args:
        asr: backbone and adapters.
        clips: with or without their language.
        languages: tags among which it is recognised, from up to eight windows of the clip.
        options: how; timestamps are always used.
        activity: finds the speech that windows follow; None: they go by timestamps alone, as Whisper's.

    Raises:
        UnknownLanguage: one of `languages` has neither an adapter nor a token.
    """
    options = options or LongFormOptions()
    options = replace(options, decoding=replace(options.decoding, timestamps=True))
    allowed = asr.candidates(languages) if any(clip.language is None for clip in clips) else {}
    for group in groups_of(clips):
        readers: list[_Reader] = []
        for index in group:
            try:
                reader = _reader(asr, index, clips[index], allowed, options, activity)
                for error in asr.broken_adapters([reader.target]).values():
                    raise error
                readers.append(reader)
            except LoraWhisperError as error:
                yield Outcome(index, None, error)
        while True:
            for reader in readers:
                if reader.done:
                    yield Outcome(reader.index, transcript_of(reader.clip, reader.segments))
            readers = [reader for reader in readers if not reader.done]
            if not readers:
                break
            windows = [(reader, reader.read()) for reader in readers]
            for reader, window in windows:
                if isinstance(window, LoraWhisperError):
                    yield Outcome(reader.index, None, window)
            readable = [(reader, window) for reader, window in windows if isinstance(window, Clip)]
            readers = [reader for reader, _ in readable]
            _read_on(asr, readers, [window for _, window in readable], options)


def _reader(
    asr: LoraWhisper,
    index: int,
    clip: Clip,
    allowed: dict[str, str],
    options: LongFormOptions,
    activity: Activity | None,
) -> _Reader:
    """A file at its beginning, in its language."""
    clip = measured(clip)
    length_s = clip.length_s()
    prompt = asr.backbone.tokenizer.encode(f" {options.initial_prompt}") if options.initial_prompt else []
    if clip.language is not None:
        target, probability = asr.target(clip.language), 1.0
    else:
        starts = np.linspace(0, max(0.0, length_s - WINDOW_S), 8 if length_s > WINDOW_S else 1)
        pieces = [clip.part(start, min(start + WINDOW_S, length_s)) for start in starts.tolist()]
        mean = asr.language_probabilities(pieces, list(allowed)).mean(0)
        best = int(mean.argmax())
        target, probability = asr.target(list(allowed.values())[best]), float(mean[best])
    reader = _Reader(index, clip, length_s, target, probability, prompt)
    if activity is not None:
        margin_s = options.activity.margin_s
        reader.speech = [
            Region(max(0.0, one.start_s - margin_s), min(one.end_s + margin_s, length_s))
            for one in find_speech(clip, activity, options.activity)
        ]
        reader.seek_s = reader.speech_after_s(0.0)
    return reader


def _read_on(
    asr: LoraWhisper, readers: Sequence[_Reader], pieces: Sequence[Clip], options: LongFormOptions
) -> None:
    """Hear the next window of each file."""

    def hear(rows: Sequence[int], decoding: DecodingOptions) -> list[Decoded]:
        return asr.hear(
            [pieces[row] for row in rows],
            [readers[row].target for row in rows],
            decoding,
            [readers[row].said for row in rows],
        )

    heard = with_fallback(hear, len(readers), options.decoding, options.fallback)
    offsets_s = [reader.seek_s for reader in readers]
    segments = [_advance(asr, reader, one, options) for reader, one in zip(readers, heard, strict=True)]
    if options.words:
        targets = [reader.target for reader in readers]
        segments = with_words(asr, pieces, targets, offsets_s, segments)
    for reader, found in zip(readers, segments, strict=True):
        reader.segments += found


def _advance(asr: LoraWhisper, reader: _Reader, decoded: Decoded, options: LongFormOptions) -> list[Segment]:
    """What was heard in a file's window; the file stands at its next one then."""
    tokenizer = asr.backbone.tokenizer
    window_s = reader.window_end_s - reader.seek_s
    segments: list[Segment] = []
    pieces, done_s = split_by_timestamps(decoded.tokens, tokenizer, window_s)
    for piece in pieces:
        text = tokenizer.decode(piece.tokens).strip()
        if text and piece.end_s > piece.start_s:
            start_s, end_s = reader.seek_s + piece.start_s, reader.seek_s + piece.end_s
            whole = decoded.segment(start_s, end_s, reader.target.tag, reader.probability)
            segments.append(replace(whole, text=text, tokens=piece.tokens))
    if options.previous_text and decoded.temperature < 0.5:
        reader.said += [token for piece in pieces for token in piece.tokens]
    else:
        reader.said.clear()  # a text that was guessed would lead the next window astray
    reader.go_on(done_s, max((piece.end_s for piece in pieces), default=0.0))
    return segments
