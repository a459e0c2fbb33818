"""Recordings of any length, in bounded memory, stretch of speech by stretch of speech.

activity → stretches → language of each → smoothed → packed → heard in mixed batches of all files

Audio is read when it is needed; what stays are times, texts and languages.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lora_whisper.decoding.activity import Activity, Region
from lora_whisper.decoding.clip_job import Target
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.fallback import split_by_timestamps, with_fallback
from lora_whisper.decoding.longform import (
    WINDOW_S,
    LongFormOptions,
    Unknown,
    find_speech,
    groups_of,
    measured,
    transcript_of,
    with_words,
)
from lora_whisper.decoding.search import Decoded, DecodingOptions
from lora_whisper.decoding.smoothing import most_probable_path
from lora_whisper.decoding.transcribe import LoraWhisper, Outcome, Probabilities
from lora_whisper.decoding.transcript import Segment
from lora_whisper.errors import LoraWhisperError


@dataclass(frozen=True)
class _Window:
    """Speech in one language that is heard at once.

    Attributes:
        file: number of the clip in its group.
        region: from its first to its last speech.
        targets: how it may be transcribed, the likeliest language first.
        probability: of the first.
    """

    file: int
    region: Region
    targets: tuple[Target, ...]
    probability: float


def transcribe_by_speech(
    asr: LoraWhisper,
    clips: Sequence[Clip],
    activity: Activity,
    languages: Sequence[str] | None = None,
    options: LongFormOptions | None = None,
) -> Iterator[Outcome]:
    """The outcome of each clip, group by group; a bad clip does not stop the others.

    Args:
        asr: backbone and adapters.
        clips: those without a language may change it from one stretch of speech to the next.
        activity: finds the speech.
        languages: tags that are allowed; as for `LoraWhisper.transcribe`.
        options: how.

    Raises:
        UnknownLanguage: one of `languages` has neither an adapter nor a token.
    """
    options = options or LongFormOptions()
    allowed = asr.candidates(languages) if any(clip.language is None for clip in clips) else {}
    for group in groups_of(clips):
        found: dict[int, tuple[Clip, list[Region]]] = {}
        for index in group:
            try:
                if clips[index].language is not None:
                    asr.target(str(clips[index].language))
                clip = measured(clips[index])
                found[index] = clip, find_speech(clip, activity, options.activity)
            except LoraWhisperError as error:
                yield Outcome(index, None, error)
        windows = [
            one
            for index, (clip, regions) in found.items()
            for one in _windows(asr, index, clip, regions, allowed, options)
        ]
        broken = asr.broken_adapters(target for one in windows for target in one.targets)
        faults = {one.file: broken[target] for one in windows for target in one.targets if target in broken}
        for file, fault in faults.items():
            del found[file]
            yield Outcome(file, None, fault)
        windows = [one for one in windows if one.file in found]
        segments = _heard(asr, {index: clip for index, (clip, _) in found.items()}, windows, options)
        for index, (clip, _) in found.items():
            yield Outcome(index, transcript_of(clip, segments.get(index, [])))


def _windows(
    asr: LoraWhisper,
    file: int,
    clip: Clip,
    regions: Sequence[Region],
    allowed: dict[str, str],
    options: LongFormOptions,
) -> list[_Window]:
    """The stretches of a clip with their languages, packed."""
    if not regions:
        return []
    if clip.language is not None:
        target = asr.target(clip.language)
        single = [_Window(file, region, (target,), 1.0) for region in regions]
        return _packed(single, options)
    pieces = [_piece(clip, region, options.activity.margin_s) for region in regions]
    codes = list(asr.backbone.tokenizer.languages)
    everything = asr.language_probabilities(pieces, codes)
    columns = [codes.index(code) for code in allowed]
    known = everything[:, columns].sum(1)
    shares = everything[:, columns] / known[:, None].clip(1e-9)
    path = most_probable_path(shares, options.stay)
    tags = list(allowed.values())
    windows = []
    for row, (region, best) in enumerate(zip(regions, path, strict=True)):
        if options.unknown != "nearest" and known[row] < options.least_known:
            windows.append(_unknown_window(asr, file, region, codes, everything[row], options.unknown))
            continue
        ranked = [best, *(int(i) for i in np.argsort(-shares[row]) if i != best)]
        targets = tuple(asr.target(tags[i]) for i in ranked[: options.rescore])
        windows.append(_Window(file, region, targets, float(shares[row, best])))
    return _packed(windows, options)


def _unknown_window(
    asr: LoraWhisper, file: int, region: Region, codes: Sequence[str], row: Probabilities, unknown: Unknown
) -> _Window:
    """Speech in no allowed language: for the bare backbone, or for nobody."""
    best = int(row.argmax())
    bare = Target(codes[best], None, codes[best], asr.backbone.audio_context)
    return _Window(file, region, (bare,) if unknown == "bare" else (), float(row[best]))


def _packed(windows: Sequence[_Window], options: LongFormOptions) -> list[_Window]:
    """Neighbours in one language joined, up to the length and the gap that are allowed."""
    packed: list[_Window] = []
    for one in windows:
        last = packed[-1] if packed else None
        joined = Region(last.region.start_s, one.region.end_s) if last else one.region
        fits = joined.duration_s + 2 * options.activity.margin_s <= min(options.packed_s, WINDOW_S)
        near = last is not None and one.region.start_s - last.region.end_s <= options.longest_gap_s
        if last is not None and fits and near and last.targets[:1] == one.targets[:1]:
            weights = last.region.duration_s, one.region.duration_s
            mean = float(np.average([last.probability, one.probability], weights=weights))
            packed[-1] = replace(last, region=joined, probability=mean)
        else:
            packed.append(one)
    return packed


def _piece(clip: Clip, region: Region, margin_s: float) -> Clip:
    """The audio of a stretch with a margin."""
    return clip.part(max(0.0, region.start_s - margin_s), min(clip.length_s(), region.end_s + margin_s))


def _heard(
    asr: LoraWhisper, clips: Mapping[int, Clip], windows: Sequence[_Window], options: LongFormOptions
) -> dict[int, list[Segment]]:
    """Segments of each clip, of all clips in mixed batches."""
    attempts = [(one, target) for one in windows for target in one.targets]
    pieces = [_piece(clips[one.file], one.region, options.activity.margin_s) for one, _ in attempts]
    prompt = (
        tuple(asr.backbone.tokenizer.encode(f" {options.initial_prompt}")) if options.initial_prompt else ()
    )

    def hear(rows: Sequence[int], decoding: DecodingOptions) -> list[Decoded]:
        chosen = [pieces[row] for row in rows]
        targets = [attempts[row][1] for row in rows]
        return asr.hear(chosen, targets, decoding, [prompt] * len(rows) if prompt else ())

    heard = iter(with_fallback(hear, len(attempts), options.decoding, options.fallback))
    best = [_best(one, [next(heard) for _ in one.targets]) for one in windows]
    said = [
        [_nothing(one)]
        if target is None or decoded is None
        else _segments(asr, one, target, decoded, options)
        for one, (target, decoded) in zip(windows, best, strict=True)
    ]
    if options.words:
        rows = [row for row, (target, _) in enumerate(best) if target is not None]
        margin_s = options.activity.margin_s
        worded = with_words(
            asr,
            [_piece(clips[windows[row].file], windows[row].region, margin_s) for row in rows],
            [target for target, _ in best if target is not None],
            [max(0.0, windows[row].region.start_s - margin_s) for row in rows],
            [said[row] for row in rows],
        )
        for row, segments in zip(rows, worded, strict=True):
            said[row] = segments
    found: dict[int, list[Segment]] = {}
    for one, segments in zip(windows, said, strict=True):
        found.setdefault(one.file, []).extend(segments)
    return found


def _best(window: _Window, heard: Sequence[Decoded]) -> tuple[Target | None, Decoded | None]:
    """Of the languages that were tried, the one with the highest mean log-probability; None if none was."""
    pairs = list(zip(window.targets, heard, strict=True))
    return max(pairs, key=lambda pair: pair[1].avg_logprob) if pairs else (None, None)


def _nothing(window: _Window) -> Segment:
    """Speech that was refused."""
    return Segment(window.region.start_s, window.region.end_s, "", "und", window.probability, 0.0, 0.0)


def _segments(
    asr: LoraWhisper, window: _Window, target: Target, decoded: Decoded, options: LongFormOptions
) -> list[Segment]:
    """The segments of a window: by its timestamps, or the whole of it."""
    region = window.region
    whole = replace(
        decoded.segment(region.start_s, region.end_s, target.tag, window.probability),
        tokens=tuple(token for token in decoded.tokens if not asr.backbone.tokenizer.is_timestamp(token)),
    )
    if not options.decoding.timestamps:
        return [whole] if decoded.text else []
    first_s = max(0.0, region.start_s - options.activity.margin_s)
    length_s = region.end_s + options.activity.margin_s - first_s
    pieces, _ = split_by_timestamps(decoded.tokens, asr.backbone.tokenizer, length_s, alone=True)
    timed = [
        replace(
            whole,
            start_s=region.nearest_s(first_s + piece.start_s),
            end_s=region.nearest_s(first_s + piece.end_s),
            text=asr.backbone.tokenizer.decode(piece.tokens).strip(),
            tokens=piece.tokens,
        )
        for piece in pieces
    ]
    return [one for one in timed if one.text]
