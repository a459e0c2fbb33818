"""Files in, transcripts out: windows, batches of mixed languages, recognised languages, bad files."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from toy_whisper import toy_backbone, toy_bank, toy_speech

from lora_whisper.audio import N_SAMPLES, SAMPLE_RATE, features
from lora_whisper.audio_file import Samples
from lora_whisper.decoding.clips import (
    Clip,
    checked_samples,
    n_frames,
    pad,
    padded_features,
    plan,
    transformed_together,
    windows,
)
from lora_whisper.decoding.search import DecodingOptions
from lora_whisper.decoding.transcribe import LoraWhisper, Target
from lora_whisper.decoding.transcript import Transcript
from lora_whisper.errors import AudioError, BackboneMismatch, CheckpointError, UnknownLanguage
from lora_whisper.model.language_id import detect_language


@pytest.fixture(scope="module")
def asr() -> LoraWhisper:
    """Adapters for Polish, Italian and Breton, which has the token of Welsh and 30 s of context."""
    backbone = toy_backbone()
    bank = toy_bank(backbone, {"pl": 4, "it": 4})
    bank.add("br", token_language="cy", seed=5)
    for part in bank["br"].parts.values():
        part.b.data.normal_(std=0.5, generator=torch.Generator().manual_seed(5))
    bank["br"].info = replace(bank["br"].info, audio_context="full")
    return LoraWhisper(backbone, bank)


@pytest.fixture(scope="module")
def bare() -> LoraWhisper:
    return LoraWhisper(toy_backbone())


def by_index(asr: LoraWhisper, clips: list[Clip], languages: list[str] | None = None) -> list[Transcript]:
    outcomes = sorted(asr.transcribe_batch(clips, languages), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(len(clips)))
    assert all(outcome.error is None for outcome in outcomes)
    return [outcome.transcript for outcome in outcomes if outcome.transcript]


def same(one: Transcript, other: Transcript) -> bool:
    """Equal but for rounding in the last digits."""

    def numbers(transcript: Transcript) -> list[float]:
        fields = ("language_probability", "avg_logprob", "no_speech_probability", "start_s", "end_s")
        return [getattr(segment, name) for segment in transcript.segments for name in fields]

    return (
        [segment.text for segment in one.segments] == [segment.text for segment in other.segments]
        and (one.language, one.duration_s) == (other.language, other.duration_s)
        and numbers(one) == pytest.approx(numbers(other), abs=1e-4)
    )


# windows, plans, padding


def test_short_audio_is_one_window() -> None:
    for n_samples in (1, 16_000, N_SAMPLES):
        assert windows(np.ones(n_samples, np.float32)) == [(0, n_samples)]


def test_long_audio_is_cut_in_its_pauses() -> None:
    samples = toy_speech(70, seed=0)
    pauses_s = (26.5, 29.0, 51.25)
    for pause_s in pauses_s:
        start = round(pause_s * SAMPLE_RATE)
        samples[start : start + SAMPLE_RATE // 2] *= 0 if pause_s == 26.5 else 0.01
    cuts = windows(samples)
    assert [cuts[0][0], cuts[-1][1]] == [0, len(samples)]
    assert all(left[1] == right[0] for left, right in pairwise(cuts))
    for (_, cut), pause_s in zip(cuts[:-1], (26.5, 51.25), strict=True):
        assert pause_s + 0.1 <= cut / SAMPLE_RATE <= pause_s + 0.4


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_audio_without_a_pause_is_cut_all_the_same(level: float) -> None:
    cuts = windows(np.full(100 * SAMPLE_RATE, level, np.float32))
    assert all(24 * SAMPLE_RATE - 1 <= end - start <= N_SAMPLES for start, end in cuts[:-1])
    assert sum(end - start for start, end in cuts) == 100 * SAMPLE_RATE


def test_a_plan_keeps_to_its_budget_and_forgets_nobody() -> None:
    lengths_s = [3.0, 31.0, 1.0, 10.0, 2.5, 9.5, 0.1]
    batches = plan(lengths_s, budget_s=20)
    assert batches == [[1], [3, 5], [0, 4, 2, 6]]
    assert plan([1.0] * 5, budget_s=100, max_rows=2) == [[0, 1], [2, 3], [4]]
    assert plan([], budget_s=10) == []


def test_padding_marks_what_is_real() -> None:
    short, long = torch.ones(8, 4), torch.ones(8, 10)
    mel, n_positions = pad([short, long])
    assert mel.shape == (2, 8, 10)
    assert mel[0].sum() == 32
    assert n_positions is not None
    assert n_positions.tolist() == [2, 5]
    assert pad([long, long])[1] is None


def test_clips_transformed_together_are_as_if_alone() -> None:
    clips = [toy_speech(duration_s, seed) for seed, duration_s in enumerate((1.0, 0.31, 2.5, 30.0))]
    frames = [n_frames(len(clips[0]), "full"), *(n_frames(len(clip), "dynamic") for clip in clips[1:])]
    cpu = torch.device("cpu")
    mel, n_positions = transformed_together(clips, frames, 80, cpu)
    pieces = [(Clip(clips[0]), "full"), *((Clip(clip), "dynamic") for clip in clips[1:])]
    expected, positions = padded_features(pieces, 80, cpu)
    torch.testing.assert_close(mel, expected, rtol=0, atol=1e-5)
    assert n_positions is not None and positions is not None and torch.equal(n_positions, positions)
    assert transformed_together(clips[:1] * 2, [frames[0]] * 2, 80, cpu)[1] is None


# one file


def test_transcribe_has_the_shape_of_faster_whisper(asr: LoraWhisper) -> None:
    segments, info = asr.transcribe(toy_speech(2, seed=1), language="pl")
    assert (info.language, info.language_probability, info.duration) == ("pl", 1.0, 2.0)
    assert next(segments).language == "pl"
    assert next(segments, None) is None


def test_long_audio_is_heard_to_its_end(asr: LoraWhisper) -> None:
    samples = toy_speech(65, seed=2)
    segments = list(asr.transcribe(samples, language="it")[0])
    assert [(one.start_s, one.end_s) for one in segments] == [
        (start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in windows(samples)
    ]
    start, end = windows(samples)[1]
    (alone,) = asr.transcribe(samples[start:end], language="it")[0]
    assert segments[1].text == alone.text


def test_options_reach_the_search(asr: LoraWhisper) -> None:
    (segment,) = asr.transcribe(toy_speech(2, seed=1), language="en", options=DecodingOptions(max_tokens=1))[
        0
    ]
    assert len(segment.text) <= 1


def test_wav_file_and_samples_are_the_same(asr: LoraWhisper, tmp_path: Path) -> None:
    samples = toy_speech(3, seed=3)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    from_file, from_samples = (
        list(asr.transcribe(audio, "it")[0]) for audio in (tmp_path / "a.wav", samples)
    )
    assert from_file == from_samples


# languages


def test_targets(asr: LoraWhisper) -> None:
    assert asr.target("pl") == Target("pl", "pl", "pl", "dynamic")
    assert asr.target("it_ch") == Target("it-CH", "it", "it", "dynamic")  # its parent's adapter
    assert asr.target("br") == Target("br", "br", "cy", "full")  # a borrowed token, its own context
    assert asr.target("en-GB") == Target("en-GB", None, "en", "dynamic")  # the bare backbone
    with pytest.raises(UnknownLanguage, match="de: no adapter for it, and toy has no token"):
        asr.target("de")
    with pytest.raises(UnknownLanguage, match="not a language tag"):
        asr.target("polsih")


def test_a_proxy_stands_for_a_language_without_token_or_adapter(asr: LoraWhisper) -> None:
    proxied = LoraWhisper(asr.backbone, asr.bank, proxies={"de_AT": "cy", "pl": "en", "fr": "xx"})
    assert proxied.target("de-AT") == Target("de-AT", None, "cy", "dynamic")
    assert proxied.target("pl") == asr.target("pl")  # it has an adapter
    samples = toy_speech(2, seed=1)
    (by_proxy,), (welsh,) = proxied.transcribe(samples, "de-AT")[0], asr.transcribe(samples, "cy")[0]
    assert (by_proxy.text, by_proxy.language) == (welsh.text, "de-AT")
    for tag in ("de", "fr"):
        with pytest.raises(UnknownLanguage, match="no token"):
            proxied.target(tag)


def expected_language(asr: LoraWhisper, samples: Samples, codes: list[str]) -> tuple[str, float]:
    (found,) = detect_language(asr.backbone, features(samples, 8, "dynamic").unsqueeze(0), None, codes)
    return next(iter(found.items()))


def test_the_language_is_recognised_among_the_allowed(asr: LoraWhisper) -> None:
    heard = set()
    for seed in range(6):
        samples = toy_speech(1, seed)
        for languages in (["pl", "it"], ["it", "cy", "zh"]):
            info = asr.transcribe(samples, languages=languages)[1]
            code, probability = expected_language(asr, samples, languages)
            assert info.language == code
            assert info.language_probability == pytest.approx(probability, abs=1e-5)
            heard.add(code)
    assert len(heard) > 1


def test_recognised_is_decoded_like_given(asr: LoraWhisper) -> None:
    samples = toy_speech(2, seed=4)
    segments, info = asr.transcribe(samples)
    given = asr.transcribe(samples, language=info.language)[0]
    assert [one.text for one in segments] == [one.text for one in given]


def test_languages_with_an_adapter_are_the_default(asr: LoraWhisper, bare: LoraWhisper) -> None:
    clips = [Clip(toy_speech(1, seed)) for seed in range(20)]
    assert {one.language for one in by_index(asr, clips)} <= {"pl", "it", "br"}
    codes = list(bare.backbone.tokenizer.languages)
    expected = [expected_language(bare, clip.load(), codes)[0] for clip in clips]
    assert [one.language for one in by_index(bare, clips)] == expected


def test_a_borrowed_token_means_its_owner_where_both_are_allowed(asr: LoraWhisper) -> None:
    assert asr.candidates(["br", "cy"]) == {"cy": "cy"}
    assert asr.candidates(["br", "pl"]) == {"cy": "br", "pl": "pl"}
    with pytest.raises(UnknownLanguage, match="no adapter"):
        asr.transcribe(toy_speech(1, 0), languages=["de"])


def test_a_long_file_has_one_language_from_all_its_windows(asr: LoraWhisper) -> None:
    samples = toy_speech(65, seed=8)
    codes = ["pl", "it", "en"]
    pieces = [samples[start:end] for start, end in windows(samples)]
    rows = [
        detect_language(asr.backbone, features(piece, 8, "dynamic").unsqueeze(0), None, codes)[0]
        for piece in pieces
    ]
    mean = {
        code: sum(row[code] * len(piece) for row, piece in zip(rows, pieces, strict=True)) / len(samples)
        for code in codes
    }
    segments, info = asr.transcribe(samples, languages=codes)
    assert info.language == max(mean, key=mean.__getitem__)
    assert info.language_probability == pytest.approx(mean[info.language], abs=1e-5)
    assert {one.language for one in segments} == {info.language}


# batches


MIXED = ("pl", "it", None, "br", "en", "pl", "it-CH", "zh", None)


@pytest.mark.parametrize("batch_s", [1.0, 20.0, 240.0])
def test_a_mixed_batch_is_each_file_alone(asr: LoraWhisper, batch_s: float) -> None:
    lengths_s = (2.0, 0.4, 1.1, 1.5, 3.2, 33.0, 1.0, 2.7, 31.0)
    clips = [
        Clip(toy_speech(length_s, seed), language)
        for seed, (length_s, language) in enumerate(zip(lengths_s, MIXED, strict=True))
    ]
    together = by_index(LoraWhisper(asr.backbone, asr.bank, batch_s=batch_s), clips)
    alone = [by_index(asr, [clip])[0] for clip in clips]
    assert all(map(same, together, alone))
    assert len({segment.text for one in together for segment in one.segments}) > 6


def test_each_row_has_the_adapter_of_its_language(asr: LoraWhisper, bare: LoraWhisper) -> None:
    clips = [Clip(toy_speech(2, seed), tag) for seed, tag in enumerate(["pl", "en", "it", "it-CH", "zh"])]
    adapted, plain = by_index(asr, clips), by_index(bare, clips)
    equal = [
        one.segments[0].text == other.segments[0].text for one, other in zip(adapted, plain, strict=True)
    ]
    assert equal == [False, True, False, False, True]


def test_adapters_of_both_contexts_hear_what_they_are_used_to(asr: LoraWhisper) -> None:
    """Breton was given 30 s: the same speech with silence up to 30 s is the same to it, and not to Polish."""
    samples = toy_speech(2, seed=1)
    padded = np.pad(samples, (0, N_SAMPLES - len(samples)))
    texts = {
        tag: [next(asr.transcribe(audio, tag)[0]).text for audio in (samples, padded)] for tag in ("br", "pl")
    }
    assert texts["br"][0] == texts["br"][1]
    assert texts["pl"][0] != texts["pl"][1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        soundfile.write(tmp_path / f"good{number}.wav", toy_speech(1 + number, seed=number), SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    truncated = (tmp_path / "good2.wav").read_bytes()[:30]
    (tmp_path / "cut.wav").write_bytes(truncated)
    return tmp_path


def test_a_bad_file_does_not_stop_the_others(asr: LoraWhisper, folder: Path) -> None:
    clips = [
        Clip(folder / "good0.wav", "pl"),
        Clip(folder / "text.wav", "pl"),
        Clip(folder / "good1.wav"),
        Clip(folder / "absent.wav"),
        Clip(folder / "text.wav", "pl", duration_s=2.0),  # found out only when it is loaded
        Clip(folder / "good2.wav", "de"),  # no way to transcribe German
        Clip(folder / "empty.wav"),
        Clip(folder / "cut.wav", "it"),
        Clip(folder / "good2.wav", "it", start_s=99.0, duration_s=1.0),
        Clip(np.full(16_000, np.nan, np.float32), "pl"),
        Clip(folder / "good2.wav", "it"),
    ]
    outcomes = {outcome.index: outcome for outcome in asr.transcribe_batch(clips)}
    assert sorted(outcomes) == list(range(len(clips)))
    assert {index for index, outcome in outcomes.items() if outcome.error is None} == {0, 2, 10}
    for index, outcome in outcomes.items():
        if outcome.error is not None:
            assert outcome.transcript is None
            assert "\n" not in str(outcome.error)
            expected = UnknownLanguage if index == 5 else AudioError
            assert isinstance(outcome.error, expected), index
    good = outcomes[10].transcript
    assert good is not None
    assert (good.audio, good.duration_s, good.language) == (str(folder / "good2.wav"), 3.0, "it")


def test_part_of_a_file(asr: LoraWhisper, folder: Path) -> None:
    path = folder / "good2.wav"
    part, rest = by_index(asr, [Clip(path, "pl", 0.5, 1.0), Clip(path, "pl", 2.5)])
    samples, _ = soundfile.read(path, dtype="float32")
    expected = by_index(asr, [Clip(samples[8000:24_000], "pl"), Clip(samples[40_000:], "pl")])
    assert same(part, expected[0])
    assert same(rest, expected[1])


def test_nothing_to_do(asr: LoraWhisper) -> None:
    assert list(asr.transcribe_batch([])) == []


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 100), np.float32),
        np.zeros(100, np.int16),
        np.array([0, np.inf], np.float32),
    ],
)
def test_samples_that_are_no_signal(samples: Samples) -> None:
    with pytest.raises(AudioError, match="samples"):
        checked_samples(samples)
    assert checked_samples(np.zeros(4, np.float64)).dtype == np.float32


def test_from_disk(asr: LoraWhisper, tmp_path: Path) -> None:
    asr.bank.save("pl", tmp_path / "pl")
    loaded = LoraWhisper(toy_backbone(), tmp_path)
    samples = toy_speech(2, seed=1)
    assert loaded.bank.tags == ("pl",)
    assert list(loaded.transcribe(samples, "pl")[0]) == list(asr.transcribe(samples, "pl")[0])
    with pytest.raises(CheckpointError):
        LoraWhisper(tmp_path / "absent")
    with pytest.raises(BackboneMismatch, match="adapters of toy beside toy"):
        LoraWhisper(toy_backbone(), asr.bank)
