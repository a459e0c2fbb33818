"""How well recordings in changing languages are transcribed: `python recipes/long_recordings.py`.

Joins synthetic utterances of the test split with pauses, so that every time is known: four languages taking
turns, then one alone. Prints language, error rates, boundaries and memory of both ways of transcribing. Bare
`mini` listens, so the speech is of the "general" domain; its error rate on separate utterances is the
yardstick.
"""

import argparse
import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data import espeak
from lora_whisper.data.domains import find_domain
from lora_whisper.data.texts import TextSource
from lora_whisper.data.voices import draw_voice
from lora_whisper.decoding.activity import SileroActivity
from lora_whisper.decoding.by_speech import transcribe_by_speech
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.longform import LongFormOptions
from lora_whisper.decoding.sequential import transcribe_sequentially
from lora_whisper.decoding.transcribe import LoraWhisper, Outcome
from lora_whisper.decoding.transcript import Segment, Transcript, to_json
from lora_whisper.evaluation.metrics import ErrorCounts, error_counts, units
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.files import prepare_folder, write_json, write_text
from lora_whisper.memory import peak_memory_bytes

LANGUAGES = ("de", "es", "it", "pl")
PAUSE_S = (0.4, 1.5)
Spoken = tuple[float, float, str, str]
"""Start and end in seconds, language, text."""

Word = tuple[float, str]
"""Start in seconds, and the word."""


def recording(
    path: Path, minutes: float, languages: Sequence[str], seed: int
) -> tuple[list[Spoken], list[Word]]:
    """Write a recording and return what is said in it; the language changes after one to four utterances."""
    domain, rng = find_domain("general"), np.random.default_rng(seed)
    sources = {tag: TextSource(tag, "test", domain.kinds) for tag in languages}
    said: list[Spoken] = []
    spoken: list[Word] = []
    position, tag = SAMPLE_RATE // 2, languages[0]
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        file.write(np.zeros(position, np.float32))
        while position < 60 * minutes * SAMPLE_RATE:
            tag = str(rng.choice([one for one in languages if one != tag])) if len(languages) > 1 else tag
            for _ in range(int(rng.integers(1, 5))):
                text = sources[tag].text(rng).written
                voice, _ = draw_voice(domain.variants_of("test"), rng)
                audio, words = espeak.synthesise_words(text, tag, voice)
                audio = domain.condition.apply(audio, rng)
                pause = int(rng.uniform(*PAUSE_S) * SAMPLE_RATE)
                said.append((position / SAMPLE_RATE, (position + len(audio)) / SAMPLE_RATE, tag, text))
                file.write(np.concatenate([audio, np.zeros(pause, np.float32)]))
                if len(words) == len(text.split()):  # espeak-ng speaks the words that are written
                    spoken += [
                        (position / SAMPLE_RATE + start_s, word)
                        for (*_, start_s), word in zip(words, text.split(), strict=True)
                    ]
                position += len(audio) + pause
    return said, spoken


def counts(said: str, heard: str, tag: str) -> ErrorCounts:
    """Character errors of a transcript."""
    return error_counts(*(units(normalize(text, tag), "character") for text in (said, heard)))


def separate_cer(asr: LoraWhisper, path: Path, said: Sequence[Spoken]) -> float:
    """CER of the utterances cut out exactly, each told its language."""
    clips = [Clip(path, tag, start, end - start) for start, end, tag, _ in said]
    total = ErrorCounts()
    for outcome in asr.transcribe_batch(clips):
        if outcome.transcript is None:
            raise RuntimeError(str(outcome.error))
        heard = " ".join(one.text for one in outcome.transcript.segments)
        total += counts(said[outcome.index][3], heard, said[outcome.index][2])
    return total.rate


def report(transcript: Transcript, said: Sequence[Spoken]) -> dict[str, float]:
    """Language by time, CER, and how far the edges of utterances are from the nearest segment edges."""
    segments = transcript.segments
    right_s = sum(
        _overlap_s(one, start, end) for start, end, tag, _ in said for one in segments if one.language == tag
    )
    heard_s = sum(_overlap_s(one, start, end) for start, end, *_ in said for one in segments)
    starts, ends = [one.start_s for one in segments], [one.end_s for one in segments]
    errors = [min(abs(time - edge) for edge in edges) for edges, place in ((starts, 0), (ends, 1))
              for spoken in said for time in (float(spoken[place]),)]  # fmt: skip
    rises = all(a.start_s <= a.end_s and a.start_s <= b.start_s for a, b in pairwise(segments))
    return {
        "speech_s": sum(end - start for start, end, *_ in said),
        "language_right_of_speech": right_s / sum(end - start for start, end, *_ in said),
        "speech_covered": heard_s / sum(end - start for start, end, *_ in said),
        "cer": _aligned_cer(segments, said),
        "median_boundary_error_s": median(errors),
        "monotone": float(rises),
    }


def _aligned_cer(segments: Sequence[Segment], said: Sequence[Spoken]) -> float:
    """CER of the whole, stretch by stretch of one language; a segment belongs to that of its middle."""
    stretches = list(_stretches(said))
    heard: list[list[str]] = [[] for _ in stretches]
    for one in segments:
        middle = (one.start_s + one.end_s) / 2
        nearest = min(
            range(len(stretches)), key=lambda i: max(stretches[i][0] - middle, middle - stretches[i][1])
        )
        heard[nearest].append(one.text)
    total = ErrorCounts()
    for (_, _, tag, text), texts in zip(stretches, heard, strict=True):
        total += counts(text, " ".join(texts), tag)
    return total.rate


def _stretches(said: Sequence[Spoken]) -> Iterator[Spoken]:
    """Utterances that follow each other in one language, joined."""
    current: Spoken | None = None
    for start, end, tag, text in said:
        if current and current[2] == tag:
            current = (current[0], end, tag, f"{current[3]} {text}")
        else:
            if current:
                yield current
            current = (start, end, tag, text)
    if current:
        yield current


def word_errors_s(transcript: Transcript, spoken: Sequence[Word]) -> list[float]:
    """How far each word that is heard begins from where it was said; spelled alike, within a second."""
    heard = [(word.start_s, word.text) for one in transcript.segments for word in one.words]
    starts = [start_s for start_s, _ in heard]
    errors = []
    for start_s, word in spoken:
        near = heard[bisect_left(starts, start_s - 1) : bisect_left(starts, start_s + 1)]
        same = [abs(time_s - start_s) for time_s, text in near if text.casefold() == word.casefold()]
        errors += [min(same)] if same else []
    return errors


def _overlap_s(one: Segment, start_s: float, end_s: float) -> float:
    return max(0.0, min(one.end_s, end_s) - max(one.start_s, start_s))


def measured(
    transcribe: Callable[[], Iterator[Outcome]], said: Sequence[Spoken], spoken: Sequence[Word], place: Path
) -> dict[str, float]:
    """The figures of a transcript, which is kept at `place`, and the seconds it took."""
    began = time.monotonic()
    (outcome,) = transcribe()
    if outcome.transcript is None:
        raise RuntimeError(str(outcome.error))
    figures = {"seconds": time.monotonic() - began} | report(outcome.transcript, said)
    if errors := word_errors_s(outcome.transcript, spoken):
        figures |= {"words": len(errors), "median_word_error_s": median(errors)}
    write_text(place, to_json(outcome.transcript))
    return figures


def main() -> None:
    """Make the recordings, transcribe them in each way, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--only", help="one way, without the yardstick: for its memory")
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    options = parser.parse_args()
    folder, languages = prepare_folder(options.out), options.languages.split(",")
    asr, activity = LoraWhisper(options.backbone), SileroActivity()
    by_speech = {
        "by speech": LongFormOptions(words=True),
        "by speech, two languages tried": LongFormOptions(rescore=2),
    }
    alone = LongFormOptions(previous_text=False)
    sequential = {
        "sequential": (LongFormOptions(), None),
        "sequential, without the text before": (alone, None),
        "sequential, following speech": (LongFormOptions(), activity),
        "sequential, following speech, without the text before": (alone, activity),
    }
    found: dict[str, Any] = {}
    for name, spoken_in in {"many languages": languages, "one language": languages[:1]}.items():
        path = folder / f"{name.replace(' ', '-')}-{options.seed}.flac"
        said, spoken = recording(path, options.minutes, spoken_in, options.seed)
        if not options.only:
            found[f"{name}, separate"] = {"cer": separate_cer(asr, path, said)}
        clips = [Clip(path)]
        ways: dict[str, Callable[[], Iterator[Outcome]]] = {
            way: partial(transcribe_by_speech, asr, clips, activity, languages, how)
            for way, how in by_speech.items()
        }
        for way, (how, followed) in sequential.items():
            ways[way] = partial(transcribe_sequentially, asr, clips, languages, how, followed)
        for way, transcribe in ways.items():
            if options.only in (None, way):
                place = path.with_name(f"{path.stem}-{way.replace(', ', '-').replace(' ', '-')}.json")
                found[f"{name}, {way}"] = measured(transcribe, said, spoken, place)
    found["peak_memory_mib"] = peak_memory_bytes() / 2**20
    write_json(folder / "figures.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
