from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_kokoro import toy_release
from toy_whisper import toy_tokenizer

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.batching import Row, RowEncoder
from lora_whisper.errors import CheckpointError, UsageError
from lora_whisper.training.curriculum import Curriculum, RowFactory, audible, joined, row_makers

COUNTS = {"pl": 3, "it": 3}


def factory(**shares: object) -> RowFactory:
    encoder = RowEncoder(toy_tokenizer(), 8, "dynamic", learn_prompt=True)
    return RowFactory(Curriculum(COUNTS, **shares), "train", 0, encoder)  # type: ignore[arg-type]


def same(first: Row, second: Row) -> bool:
    return torch.equal(first.mel, second.mel) and first.tokens == second.tokens


def test_rows_are_the_same_at_every_call_and_in_every_process() -> None:
    maker = factory(joined=0.5, timbres=0.5, perturbed=0.5, timestamped=0.5, prompted=0.5, silent=0.5)
    with row_makers() as makers:
        rows = maker.rows(COUNTS, makers)
    assert len(rows) == 6 + 3
    again = [maker.row(tag, index) for tag in (*COUNTS, "") for index in range(3)]
    assert all(same(a, b) for a, b in zip(rows, again, strict=True))


def test_timestamps_frame_each_utterance_and_rise() -> None:
    tokenizer = toy_tokenizer()
    for index in range(6):
        tokens = factory(joined=1.0, timestamped=1.0).row("pl", index).tokens
        times = [tokenizer.seconds(token) for token in tokens if tokenizer.is_timestamp(token)]
        assert tokenizer.no_timestamps not in tokens
        assert len(times) % 2 == 0 and times == sorted(times)


def test_a_prompt_stands_before_the_start_and_is_not_learned() -> None:
    tokenizer = toy_tokenizer()
    row = factory(prompted=1.0).row("it", 0)
    assert row.tokens[0] == tokenizer.sot_prev
    assert row.tokens[row.n_prompt - 1] == tokenizer.sot
    assert row.tokens[row.n_prompt] == tokenizer.language_token("it")


def test_a_share_has_recorded_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def speak(text: str, _: str, rng: np.random.Generator) -> np.ndarray:
        said.append(text)
        return rng.standard_normal(SAMPLE_RATE).astype(np.float32)

    monkeypatch.setattr("lora_whisper.data.recorded.speak", speak)
    maker = factory(recorded=1.0)
    maker.row("pl", 0)
    assert not said
    row = maker.row("en", 0)
    assert toy_tokenizer().decode(list(row.tokens[3:-1])).strip() == said[0].strip()
    assert len(said) == 1
    factory(recorded=0.0).row("en", 1)
    assert len(said) == 1


def test_a_share_has_neural_voices(tmp_path: Path) -> None:
    espeak, ours = factory(joined=0.0), factory(joined=0.0, neural=1.0)
    neural = replace(ours, kokoro=toy_release(tmp_path / "kokoro"))
    assert same(neural.row("pl", 0), espeak.row("pl", 0))  # a language that Kokoro has not learned
    row = neural.row("en", 0)
    assert row.tokens == espeak.row("en", 0).tokens
    assert not torch.equal(row.mel, espeak.row("en", 0).mel)
    with pytest.raises(UsageError, match="no folder of Kokoro"):
        ours.row("en", 0)


def test_missing_voices_are_known_before_the_rows_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = factory(recorded=0.1, neural=0.1)
    polish = replace(maker.curriculum, utterances={"pl": 1})
    replace(maker, curriculum=polish).rehearse()  # which has none of them
    english = replace(polish, utterances={"pl": 1, "en": 1}, recorded=0.0)
    neural = replace(maker, curriculum=english)
    with pytest.raises(UsageError, match="no folder of Kokoro"):
        neural.rehearse()
    with pytest.raises(CheckpointError, match="fetch Kokoro"):
        replace(neural, kokoro=tmp_path / "nowhere").rehearse()
    monkeypatch.setattr("lora_whisper.data.pico.speak", lambda *_: np.zeros(SAMPLE_RATE, np.float32))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UsageError, match="flite"):
        replace(maker, curriculum=replace(english, recorded=0.1)).rehearse()


def test_a_share_of_the_texts_without_random_words_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_whisper.training.curriculum.naming", lambda *_: "Akuntsu.")
    monkeypatch.setattr("lora_whisper.training.curriculum.sentence", lambda *_: "Zebra.")

    def said(tag: str, **shares: object) -> set[str]:
        rows = [factory(word_languages=("pl",), **shares).row(tag, index) for index in range(12)]
        return {toy_tokenizer().decode(list(row.tokens[3:-1])).strip() for row in rows}

    assert said("pl", named=1.0) == {"Akuntsu."}
    assert said("pl", words=0.5, named=1.0) == {"Akuntsu.", "Zebra."}
    assert not said("it", named=1.0) & {"Akuntsu.", "Zebra."}


def test_the_first_text_of_a_row_is_known_without_its_speech() -> None:
    maker = factory(word_languages=("pl",), words=0.5, listed=0.5, joined=0.0)
    for index in range(6):
        said = toy_tokenizer().decode(list(maker.row("pl", index).tokens[3:-1])).strip()
        assert maker.first_text("pl", index) == said


def test_the_first_text_of_a_window_is_known_without_its_speech() -> None:
    maker = factory(windows=1.0, perturbed=0.5)
    for index in range(6):
        tokens = list(maker.row("pl", index).tokens)
        said = toy_tokenizer().decode(tokens[tokens.index(toy_tokenizer().no_timestamps) + 1 : -1])
        assert said.strip().startswith(maker.first_text("pl", index).strip())


def test_shares_of_lists_and_sentences_have_proper_names(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"sentence": "Zebra.", "mingled": "Of Lyon.", "listing": "Apple, Pear.", "roll": "Lyon, Paulo."}
    for name, text in said.items():
        monkeypatch.setattr(f"lora_whisper.training.curriculum.{name}", lambda *_, text=text: text)
    maker = factory(word_languages=("pl",), words=1.0, listed=0.6, proper=0.5, mingled=0.5, joined=0.0)
    texts = [toy_tokenizer().decode(list(maker.row("pl", i).tokens[3:-1])).strip() for i in range(24)]
    assert set(texts) == set(said.values())


def test_of_some_rows_the_language_alone_is_learned() -> None:
    tokenizer = toy_tokenizer()
    maker = factory(written={"it": 1}, prompted=1.0)
    row = maker.row("it", 1)
    assert row.tokens[-2:] == (tokenizer.sot, tokenizer.language_token("it"))
    assert row.n_prompt == len(row.tokens) - 1
    assert maker.row("it", 0).tokens[-1] == maker.row("pl", 1).tokens[-1] == tokenizer.eot


def test_silence_is_no_speech_or_an_empty_transcript() -> None:
    tokenizer = toy_tokenizer()
    seen = {factory(silent=1.0).row("", index).tokens[-2] for index in range(12)}
    assert seen == {tokenizer.no_speech, tokenizer.no_timestamps}


def test_extended_rows_have_their_speech_later() -> None:
    plain, extended = factory().row("pl", 1), factory(extended=1.0).row("pl", 1)
    assert extended.mel.shape[1] > plain.mel.shape[1]


def test_joined_utterances_are_audible_when_their_segments_say() -> None:
    tone = np.sin(np.arange(SAMPLE_RATE) / 5).astype(np.float32)
    clip = np.concatenate([np.zeros(1600, np.float32), tone, np.zeros(3200, np.float32)])
    audio, segments = joined([(clip, "one"), (clip, "two")], np.random.default_rng(0))
    assert [text for _, _, text in segments] == ["one", "two"]
    assert segments[0][0] == pytest.approx(0.1, abs=0.01) and segments[0][1] == pytest.approx(1.1, abs=0.01)
    for start, end, _ in segments:
        inside = audio[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        assert audible(inside) == pytest.approx((0, len(inside)), abs=20)
    energy = sum(
        float((audio[int(s * SAMPLE_RATE) : int(e * SAMPLE_RATE)] ** 2).sum()) for s, e, _ in segments
    )
    assert energy == pytest.approx(float((audio**2).sum()), rel=1e-3)


def test_no_row_is_longer_than_the_window() -> None:
    tone = np.ones(9 * SAMPLE_RATE, np.float32)
    audio, segments = joined([(tone, "x")] * 6, np.random.default_rng(0), extend=True)
    assert len(audio) <= 27 * SAMPLE_RATE and 1 <= len(segments) < 6


def test_a_window_with_times_ends_with_the_start_of_what_it_cuts_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_whisper.training.curriculum._LAST", 0.0)
    tokenizer, cut = toy_tokenizer(), 0
    for index in range(4):
        row = factory(windows=1.0, timestamped=1.0).row("pl", index)
        times = [tokenizer.seconds(token) for token in row.tokens if tokenizer.is_timestamp(token)]
        assert len(row.tokens) <= 448 and times == sorted(times)
        if len(times) % 2:
            cut += 1
            assert [tokenizer.is_timestamp(token) for token in row.tokens[-3:]] == [True, True, False]
            assert row.mel.shape[1] == 3000 and 0 < times[-1] < 30
    assert cut


def test_a_window_without_times_ends_before_what_it_would_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_whisper.training.curriculum._LAST", 0.0)
    tokenizer = toy_tokenizer()
    for index in range(4):
        timed = factory(windows=1.0, timestamped=1.0).row("pl", index)
        plain = factory(windows=1.0).row("pl", index)
        times = [tokenizer.seconds(token) for token in timed.tokens if tokenizer.is_timestamp(token)]
        end_s = times[-1] if len(times) % 2 else timed.mel.shape[1] / 100
        assert tokenizer.no_timestamps in plain.tokens
        assert plain.mel.shape[1] / 100 == pytest.approx(end_s, abs=0.3)


def test_most_windows_follow_others_and_some_are_the_last() -> None:
    maker = factory(windows=1.0)
    rows = [maker.row("it", index) for index in range(12)]
    assert 4 < sum(row.tokens[0] == toy_tokenizer().sot_prev for row in rows) < 12
    assert 0 < sum(row.mel.shape[1] < 2500 for row in rows) < 12


def test_a_window_has_no_more_text_than_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_whisper.data.espeak.synthesise", lambda *_: np.ones(800, np.float32))
    monkeypatch.setattr("lora_whisper.training.curriculum._LAST", 0.0)
    row = factory(windows=1.0, timestamped=1.0).row("pl", 0)
    assert 300 < len(row.tokens) <= 448 and row.mel.shape[1] < 3000


def test_the_speaking_rate_can_be_set() -> None:
    plain, fast = (
        [factory(**shares).row("it", index).mel.shape[1] for index in range(5)]
        for shares in ({}, {"speeds_wpm": (300, 320)})
    )
    assert sum(fast) < 0.75 * sum(plain)
