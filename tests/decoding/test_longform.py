"""Recordings of any length on the toy model: order, routing, batches, memory; an activity made by hand."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_whisper import toy_backbone, toy_bank, toy_speech

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.audio_file import Samples
from lora_whisper.decoding.activity import FRAME, Probabilities, SileroActivity
from lora_whisper.decoding.by_speech import transcribe_by_speech
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.fallback import NEVER
from lora_whisper.decoding.longform import LongFormOptions, find_speech
from lora_whisper.decoding.search import Decoded, DecodingOptions
from lora_whisper.decoding.sequential import transcribe_sequentially
from lora_whisper.decoding.transcribe import LoraWhisper, Outcome
from lora_whisper.errors import AdapterError, UnknownLanguage

PLAIN = LongFormOptions(fallback=NEVER)
SPOKEN = ((0.5, 2.0), (2.8, 4.0), (5.0, 7.5), (9.0, 10.0))


class Loud:
    """Whatever is loud is speech; remembers how much it was given at once."""

    largest = 0

    def probabilities(self, blocks: Iterable[Samples]) -> Probabilities:
        found, rest = [], np.zeros(0, np.float32)
        for block in blocks:
            self.largest = max(self.largest, len(block))
            rest = np.concatenate([rest, block])
            n = len(rest) // FRAME * FRAME
            found += list(np.abs(rest[:n].reshape(-1, FRAME)).max(1) > 0.05)
            rest = rest[n:]
        return np.array([*found, *([False] if len(rest) else [])], dtype=np.float32)


def recording(
    seed: int = 0, spoken: tuple[tuple[float, float], ...] = SPOKEN, length_s: float = 11.0
) -> Samples:
    samples = np.zeros(round(length_s * SAMPLE_RATE), np.float32)
    for number, (start, end) in enumerate(spoken):
        speech = toy_speech(end - start, 100 * seed + number)
        samples[round(start * SAMPLE_RATE) :][: len(speech)] = speech
    return samples


@pytest.fixture(scope="module")
def asr() -> LoraWhisper:
    backbone = toy_backbone()
    return LoraWhisper(backbone, toy_bank(backbone, {"pl": 4, "it": 4, "cy": 2}))


def only(outcomes: Iterable[Outcome]) -> Outcome:
    (one,) = outcomes
    return one


def test_each_stretch_of_speech_is_a_segment_in_its_own_language(asr: LoraWhisper) -> None:
    transcript = only(transcribe_by_speech(asr, [Clip(recording())], Loud(), options=PLAIN)).transcript
    assert transcript is not None
    starts = [one.start_s for one in transcript.segments]
    assert starts == pytest.approx([start for start, _ in SPOKEN], abs=0.04)
    assert [one.end_s for one in transcript.segments] == pytest.approx([end for _, end in SPOKEN], abs=0.04)
    assert {one.language for one in transcript.segments} <= {"pl", "it", "cy"}
    for one in transcript.segments:
        part = Clip(recording()).part(one.start_s - 0.15, one.end_s + 0.15)
        assert asr.hear([part], [asr.target(one.language)])[0].text == one.text


def test_files_side_by_side_are_each_file_alone(asr: LoraWhisper) -> None:
    clips = [Clip(recording(seed)) for seed in range(3)] + [Clip(recording(4), "it")]
    for transcribe in (
        lambda some: transcribe_by_speech(asr, some, Loud(), options=PLAIN),
        lambda some: transcribe_sequentially(asr, some, options=PLAIN),
    ):
        together = {one.index: one.transcript for one in transcribe(clips)}
        for index, clip in enumerate(clips):
            alone, both = only(transcribe([clip])).transcript, together[index]
            assert alone is not None and both is not None
            assert [(one.text, one.language) for one in alone.segments] == [
                (one.text, one.language) for one in both.segments
            ]
            assert [one.start_s for one in alone.segments] == pytest.approx(
                [one.start_s for one in both.segments]
            )


def test_neighbours_in_one_language_are_heard_together_if_asked(asr: LoraWhisper) -> None:
    options = replace(PLAIN, packed_s=29.0, longest_gap_s=1.2)
    clip = Clip(recording(), "pl")
    transcript = only(transcribe_by_speech(asr, [clip], Loud(), options=options)).transcript
    assert transcript is not None
    assert [one.start_s for one in transcript.segments] == pytest.approx([0.5, 9.0], abs=0.04)
    short = replace(options, packed_s=5.0)
    apart = only(transcribe_by_speech(asr, [clip], Loud(), options=short)).transcript
    assert apart is not None and len(apart.segments) == 3


def test_the_better_of_two_languages_is_kept(asr: LoraWhisper) -> None:
    transcript = only(
        transcribe_by_speech(asr, [Clip(recording())], Loud(), options=replace(PLAIN, rescore=3))
    ).transcript
    assert transcript is not None
    for one in transcript.segments:
        part = Clip(recording()).part(one.start_s - 0.15, one.end_s + 0.15)
        scores = {tag: asr.hear([part], [asr.target(tag)])[0].avg_logprob for tag in ("pl", "it", "cy")}
        assert one.language == max(scores, key=lambda tag: scores[tag])


def test_unknown_speech_is_heard_bare_or_refused(asr: LoraWhisper) -> None:
    always = replace(PLAIN, least_known=1.1)
    bare = only(
        transcribe_by_speech(asr, [Clip(recording())], Loud(), ["pl"], replace(always, unknown="bare"))
    )
    refused = only(
        transcribe_by_speech(asr, [Clip(recording())], Loud(), ["pl"], replace(always, unknown="refuse"))
    )
    nearest = only(transcribe_by_speech(asr, [Clip(recording())], Loud(), ["pl"], always))
    assert bare.transcript and refused.transcript and nearest.transcript
    assert {one.language for one in nearest.transcript.segments} == {"pl"}
    assert {(one.language, one.text) for one in refused.transcript.segments} == {("und", "")}
    plain = LoraWhisper(asr.backbone)
    for one in bare.transcript.segments:
        part = Clip(recording()).part(one.start_s - 0.15, one.end_s + 0.15)
        assert plain.hear([part], [plain.target(one.language)])[0].text == one.text


def test_a_bad_file_does_not_stop_the_others(asr: LoraWhisper, tmp_path: Path) -> None:
    clips = [Clip(tmp_path / "none.wav"), Clip(recording()), Clip(recording(), "xx-none")]
    for outcomes in (
        list(transcribe_by_speech(asr, clips, Loud(), options=PLAIN)),
        list(transcribe_sequentially(asr, clips, options=PLAIN)),
    ):
        by_index = {one.index: one for one in outcomes}
        assert by_index[0].error is not None and "none.wav" in str(by_index[0].error)
        assert by_index[1].transcript is not None and by_index[1].transcript.segments
        assert isinstance(by_index[2].error, UnknownLanguage)


def test_a_file_that_is_damaged_in_its_midst_does_not_stop_the_others(
    asr: LoraWhisper, tmp_path: Path
) -> None:
    samples = np.tile(recording(), 6)
    samples[50 * SAMPLE_RATE] = np.nan
    soundfile.write(tmp_path / "damaged.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    clips = [Clip(tmp_path / "damaged.wav", "pl"), Clip(np.tile(recording(), 6), "pl")]
    for outcomes in (
        transcribe_by_speech(asr, clips, Loud(), options=PLAIN),
        transcribe_sequentially(asr, clips, options=PLAIN),
    ):
        by_index = {one.index: one for one in outcomes}
        assert "NaN" in str(by_index[0].error)
        assert by_index[1].transcript is not None and by_index[1].transcript.segments


def test_a_damaged_adapter_does_not_stop_the_languages_beside_it(asr: LoraWhisper, tmp_path: Path) -> None:
    for tag in ("pl", "it"):
        asr.bank.save(tag, tmp_path / tag)
    content = bytearray((tmp_path / "it" / "adapter_model.safetensors").read_bytes())
    content[-5] ^= 4
    (tmp_path / "it" / "adapter_model.safetensors").write_bytes(content)
    clips = [Clip(recording(), tag) for tag in ("it", "pl", "it")]
    ways: tuple[Callable[[LoraWhisper], Iterable[Outcome]], ...] = (
        lambda opened: opened.transcribe_batch(clips),
        lambda opened: transcribe_by_speech(opened, clips, Loud(), options=PLAIN),
        lambda opened: transcribe_sequentially(opened, clips, options=PLAIN),
    )
    for way in ways:
        found = {one.index: one for one in way(LoraWhisper(toy_backbone(), tmp_path))}
        assert found[1].transcript is not None and found[1].transcript.segments
        for index in (0, 2):
            assert isinstance(found[index].error, AdapterError) and found[index].transcript is None


def test_timestamps_within_a_stretch_lose_no_text_and_never_leave_it(
    asr: LoraWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = asr.backbone.tokenizer.timestamp_begin
    tokens = (
        begin,
        64,
        begin + 5,
        begin + 30,
        65,
        begin + 40,
        begin + 80,
        66,
    )  # the first lies in the margin
    monkeypatch.setattr(asr, "hear", lambda pieces, *_: [Decoded(tokens, "abc", -0.1, 0.0) for _ in pieces])
    options = replace(PLAIN, decoding=DecodingOptions(timestamps=True))
    clip = Clip(recording(), "pl")
    transcript = only(transcribe_by_speech(asr, [clip], Loud(), options=options)).transcript
    assert transcript is not None
    assert [one.text for one in transcript.segments] == ["a", "b", "c"] * len(SPOKEN)
    for number, one in enumerate(transcript.segments):
        start, end = SPOKEN[number // 3]
        assert start - 0.04 <= one.start_s <= one.end_s <= end + 0.04


def test_silence_is_no_segment(asr: LoraWhisper) -> None:
    quiet = Clip(np.zeros(5 * SAMPLE_RATE, np.float32))
    transcript = only(transcribe_by_speech(asr, [quiet], Loud(), options=PLAIN)).transcript
    assert transcript is not None and transcript.segments == () and transcript.language == "und"


def test_only_a_minute_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(recording(), 15), SAMPLE_RATE)
    loud = Loud()
    assert len(find_speech(Clip(path), loud, PLAIN.activity)) == 4 * 15
    assert loud.largest == 60 * SAMPLE_RATE


def test_windows_follow_each_other_and_times_rise(asr: LoraWhisper, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, asked = np.tile(recording(), 6), []
    hear = asr.hear
    monkeypatch.setattr(asr, "hear", lambda pieces, *rest: asked.append(pieces[0]) or hear(pieces, *rest))
    transcript = only(transcribe_sequentially(asr, [Clip(samples, "pl")], options=PLAIN)).transcript
    assert transcript is not None and transcript.segments
    starts = [one.start_s for one in transcript.segments]
    assert starts == sorted(starts) and transcript.segments[-1].end_s <= 66
    assert sum(piece.length_s() for piece in asked) >= 66 and len(asked) >= 3
    assert all(one.end_s >= one.start_s for one in transcript.segments)


@pytest.mark.parametrize(
    ("spoken", "text_s", "windows"),
    [
        (
            ((12.0, 20.0), (21.0, 33.0), (33.6, 45.0), (60.0, 65.0), (65.5, 69.0)),
            {12: 14.0, 25: 7.0, 33: 11.5, 60: 0.4, 65: 3.6},  # at 60 it breaks off at once
            [(12.0, 33.0), (25.9, 45.0), (33.6, 45.0), (60.0, 69.0), (65.5, 69.0)],
        ),
        (((12.0, 12.5), (13.0, 18.0)), {12: 0.6, 13: 5.1}, [(12.0, 18.0), (13.0, 18.0)]),  # all of a word
        (((12.0, 12.5), (30.0, 45.0)), {12: 0.6, 30: 15.1}, [(12.0, 12.5), (30.0, 45.0)]),  # and none is cut
    ],
)
def test_windows_can_follow_the_speech(
    asr: LoraWhisper,
    monkeypatch: pytest.MonkeyPatch,
    spoken: tuple[tuple[float, float], ...],
    text_s: dict[int, float],
    windows: list[tuple[float, float]],
) -> None:
    """They begin and end in pauses, what a text leaves out is heard again, and silence is not heard.

    `text_s`: how far the text of a window goes, by the second in which its speech begins.
    """
    begin = asr.backbone.tokenizer.timestamp_begin
    sound = np.zeros(75 * SAMPLE_RATE, np.float32)
    for start_s, end_s in spoken:
        place = slice(int(start_s * SAMPLE_RATE), int(end_s * SAMPLE_RATE))
        sound[place] = np.linspace(start_s, end_s, place.stop - place.start) / 100  # tells its time
    heard: list[tuple[float, float]] = []

    def hear(pieces: Sequence[Clip], *_: object) -> list[Decoded]:
        (window,) = (piece.load() for piece in pieces)
        speech = window[window > 0]
        heard.append((round(100 * float(speech[0]), 1), round(100 * float(speech[-1]), 1)))
        end = begin + round(50 * text_s[int(heard[-1][0])])
        return [Decoded((begin, 64, end), "a", -0.1, 0.0)]

    monkeypatch.setattr(asr, "hear", hear)
    transcript = only(
        transcribe_sequentially(asr, [Clip(sound, "pl")], options=PLAIN, activity=Loud())
    ).transcript
    assert heard == windows
    assert transcript is not None and transcript.segments[-1].end_s == pytest.approx(spoken[-1][1], abs=0.1)


def test_a_file_without_speech_is_not_heard_where_speech_is_followed(asr: LoraWhisper) -> None:
    quiet, loud = Clip(np.zeros(40 * SAMPLE_RATE, np.float32), "pl"), Clip(recording(), "pl")
    outcomes = list(transcribe_sequentially(asr, [quiet, loud], options=PLAIN, activity=Loud()))
    segments = {one.index: one.transcript.segments for one in outcomes if one.transcript}
    assert segments[0] == () and segments[1]


def test_what_was_said_leads_the_next_window_unless_that_is_off(asr: LoraWhisper) -> None:
    samples = np.tile(recording(), 6)
    decoding = DecodingOptions(max_tokens=12)
    led, free = (
        only(
            transcribe_sequentially(
                asr,
                [Clip(samples, "pl")],
                options=replace(PLAIN, previous_text=previous, decoding=decoding),
            )
        ).transcript
        for previous in (True, False)
    )
    assert led is not None and free is not None
    assert led.segments[0] == free.segments[0] and led.segments != free.segments


def test_an_initial_prompt_is_heard(asr: LoraWhisper) -> None:
    plain, prompted = (
        only(
            transcribe_by_speech(
                asr, [Clip(recording(), "pl")], Loud(), options=replace(PLAIN, initial_prompt=prompt)
            )
        ).transcript
        for prompt in ("", "ala ma kota")
    )
    assert plain is not None and prompted is not None and plain.segments != prompted.segments


def test_the_same_recording_in_both_ways_has_the_same_speech(asr: LoraWhisper) -> None:
    """One language, one stretch: by speech with timestamps and sequentially differ only in the margins."""
    samples = recording(spoken=((0.5, 6.0),), length_s=7.0)
    options = replace(
        PLAIN, decoding=DecodingOptions(timestamps=True), activity=replace(PLAIN.activity, margin_s=10)
    )
    by_speech = only(transcribe_by_speech(asr, [Clip(samples, "pl")], Loud(), options=options)).transcript
    sequential = only(transcribe_sequentially(asr, [Clip(samples, "pl")], options=PLAIN)).transcript
    assert by_speech is not None and sequential is not None
    assert by_speech.segments and by_speech.segments[0].text == sequential.segments[0].text


@pytest.mark.parametrize("timestamps", [False, True])
def test_words_lie_in_their_segments_and_say_the_same(asr: LoraWhisper, timestamps: bool) -> None:
    options = replace(PLAIN, words=True, decoding=DecodingOptions(timestamps=timestamps))
    found = [
        only(transcribe_by_speech(asr, [Clip(recording())], Loud(), options=options)).transcript,
        only(transcribe_sequentially(asr, [Clip(recording(), "pl")], options=options)).transcript,
    ]
    for transcript in found:
        assert transcript is not None and any(one.words for one in transcript.segments)
        for one in transcript.segments:
            assert "".join("".join(word.text.split()) for word in one.words) == "".join(one.text.split())
            assert all(a.end_s <= b.start_s + 1e-6 for a, b in pairwise(one.words))
            assert all(0 <= word.probability <= 1 and word.start_s <= word.end_s for word in one.words)


def test_nothing_is_heard_in_silence_noise_and_music() -> None:
    """Insertions per minute of what is not speech, by the whole chain: activity, `mini`, its silence rule."""
    pytest.importorskip("onnxruntime", reason="needs the vad extra")
    rng, seconds = np.random.default_rng(0), np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 277, 330)) * (1 + np.sin(3 * seconds))
    sounds = [np.zeros(20 * SAMPLE_RATE), rng.normal(0, 0.1, 20 * SAMPLE_RATE), 0.1 * chord]
    clips = [Clip(np.asarray(one, dtype=np.float32)) for one in sounds]
    outcomes = list(transcribe_by_speech(LoraWhisper("mini"), clips, SileroActivity()))
    words = [one.text for each in outcomes if each.transcript for one in each.transcript.segments]
    assert len(outcomes) == 3 and len(" ".join(words).split()) <= 1
