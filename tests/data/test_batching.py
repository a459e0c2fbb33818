from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from toy_whisper import toy_speech, toy_tokenizer

from lora_whisper.data.batching import (
    COARSE,
    FINE,
    IGNORED,
    MAX_ROWS,
    FixedRows,
    JoinedRows,
    Padding,
    Row,
    RowEncoder,
    UtteranceRows,
    collate,
    plan_batches,
)
from lora_whisper.data.conditions import ROBUST, Condition
from lora_whisper.data.manifest import TimedText, Utterance, read_manifest
from lora_whisper.errors import AudioError, ManifestError

TOKENIZER = toy_tokenizer()
ENCODER = RowEncoder(TOKENIZER, n_mels=8, context="dynamic", max_tokens=40)
DURATIONS = np.random.default_rng(0).uniform(1, 15, 300).tolist()


def fail(utterance: Utterance, error: Exception) -> None:
    raise AssertionError(f"{utterance}: {error}")


def test_an_epoch_holds_every_row_once_within_the_budget() -> None:
    plan = plan_batches(DURATIONS, budget_s=60, seed=1, epoch=0)
    assert sorted(index for batch in plan for index in batch) == list(range(300))
    assert all(len(batch) * max(DURATIONS[i] for i in batch) <= 60 for batch in plan)


def test_batches_hold_similar_lengths() -> None:
    plan = plan_batches(DURATIONS, budget_s=60, seed=1, epoch=0)
    padded = sum(len(batch) * max(DURATIONS[i] for i in batch) for batch in plan)
    assert padded < 1.15 * sum(DURATIONS)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert plan_batches(DURATIONS, 60, 1, 2) == plan_batches(DURATIONS, 60, 1, 2)
    assert plan_batches(DURATIONS, 60, 1, 2) != plan_batches(DURATIONS, 60, 1, 3)
    assert plan_batches(DURATIONS, 60, 1, 2) != plan_batches(DURATIONS, 60, 2, 2)


def test_a_row_over_the_budget_gets_a_batch_of_its_own() -> None:
    assert sorted(plan_batches([1.0, 99.0, 1.0], 10, 0, 0)) in ([[0, 2], [1]], [[1], [0, 2]], [[1], [2, 0]])


def test_no_batch_has_more_rows_than_allowed() -> None:
    assert max(map(len, plan_batches([0.1] * 100, 60, 0, 0))) == MAX_ROWS
    assert max(map(len, plan_batches([0.1] * 500, 480, 0, 0))) == 160


def test_planned_padding_makes_few_shapes() -> None:
    rows = [Row(torch.zeros(8, 2 * round(50 * s)), tuple(range(4 + round(3 * s))), 1) for s in DURATIONS]
    shapes: dict[str, set[object]] = {}
    for name, padding in (
        ("finest", Padding(32, 8)),
        ("fine", FINE),
        ("coarse", COARSE),
        ("planned", replace(COARSE, budget_s=60.0)),
    ):
        plans = [plan_batches(DURATIONS, 60, 1, epoch, padding=padding) for epoch in range(20)]
        assert all(sorted(i for batch in plan for i in batch) == list(range(300)) for plan in plans)
        batches = [collate([rows[i] for i in batch], padding) for plan in plans for batch in plan]
        shapes[name] = {batch.shape for batch in batches}
        if name == "planned":
            assert all(len(batch.mel) * batch.mel.shape[2] <= 6000 for batch in batches)
            assert sum(batch.mel.shape[0] * batch.mel.shape[2] for batch in batches) < 1.2 * 20 * 100 * sum(
                DURATIONS
            )
    assert len(shapes["planned"]) < len(shapes["coarse"]) / 2 < len(shapes["finest"]) / 4
    assert len(shapes["coarse"]) < len(shapes["fine"]) < len(shapes["finest"])


@pytest.mark.parametrize(
    ("longest", "n_rows", "width"),
    [
        (1190, 5, 1280),
        (1190, 4, 1408),
        (1190, 3, 1664),
        (1190, 1, 1280),
        (2999, 2, 3000),
        (2999, 1, 3000),
        (100, 64, 128),
    ],
)
def test_a_batch_with_too_few_rows_is_padded_as_a_longer_one(longest: int, n_rows: int, width: int) -> None:
    """6,400 frames: five rows of 1,280, four of 1,408, three of 1,664 and more; two of 3,000."""
    assert replace(COARSE, budget_s=64.0).width(longest, n_rows) == width


def test_tokens_are_padded_to_no_more_than_the_decoder_holds() -> None:
    rows = [Row(torch.zeros(8, 100), tuple(range(40)), 1)]
    assert collate(rows, COARSE).tokens.shape == (1, 64)
    assert collate(rows, replace(COARSE, most_tokens=48)).tokens.shape == (1, 48)


def test_a_row_starts_with_exactly_one_start_of_transcript() -> None:
    row = ENCODER.row(toy_speech(0.5, 0), "ala ma kota", "pl")
    start = TOKENIZER.start_sequence("pl")
    assert list(row.tokens[: len(start)]) == start
    assert row.tokens.count(TOKENIZER.sot) == 1
    assert row.tokens[-1] == TOKENIZER.eot
    assert TOKENIZER.decode(row.tokens) == " ala ma kota"


def test_text_of_a_language_without_spaces_starts_without_one() -> None:
    assert TOKENIZER.decode(ENCODER.row(toy_speech(0.5, 0), "kot", "zh").tokens) == "kot"


def test_a_prompt_keeps_its_end_as_far_as_there_is_room() -> None:
    audio, long = np.zeros(16000, np.float32), " ".join(f"wort{n}" for n in range(40))
    row = ENCODER.row(audio, "ja", "pl", previous=long)
    said_before = TOKENIZER.encode(f" {long}")
    assert row.tokens[: row.n_prompt] == (
        TOKENIZER.sot_prev,
        *said_before[-19:],
        *TOKENIZER.start_sequence("pl"),
    )
    whole = ENCODER.row(audio, "ja " * 9, "pl", previous=long)
    assert len(whole.tokens) == 40
    assert whole.tokens[0] == TOKENIZER.sot_prev


def test_labels_are_the_following_tokens_and_leave_out_the_prompt() -> None:
    row = ENCODER.row(toy_speech(0.5, 0), "kot", "pl")
    batch = collate([row, ENCODER.row(toy_speech(0.4, 1), "ala ma kota", "pl")])
    n_prompt = len(TOKENIZER.start_sequence("pl"))
    learned = batch.labels[0][batch.labels[0] != IGNORED]
    assert learned.tolist() == list(row.tokens[n_prompt:])
    assert (batch.labels[0][: n_prompt - 1] == IGNORED).all()
    position = n_prompt - 1
    assert batch.tokens[0][position] == row.tokens[position]
    assert batch.labels[0][position] == row.tokens[position + 1]


def test_pretraining_learns_the_language_token_too() -> None:
    encoder = RowEncoder(TOKENIZER, 8, "dynamic", learn_prompt=True)
    row = encoder.row(toy_speech(0.5, 0), "kot", "it")
    batch = collate([row])
    assert batch.tokens[0][0] == TOKENIZER.sot
    assert batch.labels[0][0] == TOKENIZER.language_token("it")


def test_padding_is_silent_and_counted_out() -> None:
    short, long = (ENCODER.row(toy_speech(s, 0), "kot", "pl") for s in (0.5, 1.0))
    batch = collate([short, long])
    assert batch.mel.shape[2] % FINE.frames == 0
    assert batch.n_positions is not None
    assert batch.n_positions.tolist() == [short.mel.shape[1] // 2, long.mel.shape[1] // 2]
    assert (batch.mel[0, :, short.mel.shape[1] :] == 0).all()
    assert torch.equal(batch.mel[0, :, : short.mel.shape[1]], short.mel.float())


def test_full_windows_need_no_mask() -> None:
    batch = collate([Row(torch.zeros(8, 3000), (1, 2, 3), 1)] * 2)
    assert batch.mel.shape[2] == 3000
    assert batch.n_positions is None


def test_a_text_over_the_limit_of_tokens_is_named() -> None:
    with pytest.raises(ManifestError, match="over the limit of 40"):
        ENCODER.row(toy_speech(0.5, 0), "ala ma kota " * 20, "pl")


def test_unusable_utterances_are_reported_and_left_out(speech_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFFnothing")
    utterances = read_manifest(speech_folder / "manifest.jsonl", languages=["pl"])
    faults: list[tuple[Path, str]] = []
    rows = UtteranceRows(
        [Utterance(broken, "kot", "pl"), *utterances, Utterance(tmp_path / "gone.wav", "kot", "pl")],
        ENCODER,
        "pl",
        lambda utterance, error: faults.append((utterance.audio, type(error).__name__)),
    )
    assert [path.name for path, _ in faults] == ["broken.wav", "gone.wav"]
    assert {name for _, name in faults} == {AudioError.__name__}
    assert rows.utterances == utterances
    assert len(rows.durations_s) == len(utterances)


def test_rows_are_the_same_with_and_without_memory_for_them(speech_folder: Path) -> None:
    utterances = read_manifest(speech_folder / "manifest.jsonl", languages=["it"])
    cached, uncached = (UtteranceRows(utterances, ENCODER, "it", fail, size) for size in (1 << 30, 0))
    for index in range(len(utterances)):
        assert torch.equal(cached.row(index).mel, uncached.row(index).mel)
        assert cached.row(index).tokens == uncached.row(index).tokens
    assert cached.row(0) is cached.row(0)


def test_fixed_rows_know_their_durations() -> None:
    assert FixedRows([Row(torch.zeros(8, 250), (1, 2), 1)]).durations_s == [2.5]


def test_conditions_differ_by_epoch_and_repeat(speech_folder: Path) -> None:
    utterances = read_manifest(speech_folder / "manifest.jsonl")[:2]
    rows = UtteranceRows(utterances, ENCODER, "pl", fail, condition=ROBUST, seed=4)
    first, second, again = (rows.row(0, epoch) for epoch in (0, 1, 0))
    assert torch.equal(first.mel, again.mel)
    assert first.mel.shape != second.mel.shape or not torch.equal(first.mel, second.mel)
    assert first.tokens == second.tokens
    other = UtteranceRows(utterances, ENCODER, "pl", fail, condition=ROBUST, seed=5).row(0, 0)
    assert first.mel.shape != other.mel.shape or not torch.equal(first.mel, other.mel)


def test_long_speech_is_not_slowed_beyond_the_window(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(toy_speech(1.0, 0), 27), 16000)
    slow = Condition(speed=(0.8, 0.8), tempo=(0.8, 0.8))
    rows = UtteranceRows([Utterance(path, "ala", "pl")], ENCODER, "pl", fail, condition=slow)
    plain = UtteranceRows([Utterance(path, "ala", "pl")], ENCODER, "pl", fail)
    assert rows.row(0, 0).mel.shape == plain.row(0).mel.shape


def test_joined_rows_are_those_of_their_sources_in_order() -> None:
    one, two, three = (Row(torch.zeros(8, 100 * n), (n,), 1) for n in (1, 2, 3))
    rows = JoinedRows([FixedRows(part) for part in ([one, two], [], [three])])
    assert rows.durations_s == [1.0, 2.0, 3.0]
    assert [rows.row(i).tokens for i in range(3)] == [(1,), (2,), (3,)]


def test_a_share_of_the_rows_has_times(speech_folder: Path) -> None:
    utterances = read_manifest(speech_folder / "manifest.jsonl", languages=["pl"])
    half = UtteranceRows(utterances, ENCODER, "pl", fail, timestamped=0.5, seed=1)
    timed = [
        [TOKENIZER.no_timestamps not in half.row(i, epoch).tokens for i in range(len(utterances))]
        for epoch in (0, 1)
    ]
    assert 2 <= sum(timed[0]) <= 8 and timed[0] != timed[1]
    rows = UtteranceRows(utterances, ENCODER, "pl", fail, timestamped=1.0)
    tokens = rows.row(3).tokens
    times = [TOKENIZER.seconds(token) for token in tokens if TOKENIZER.is_timestamp(token)]
    assert times == [0.0, pytest.approx(utterances[3].duration_s, abs=0.02)]
    assert TOKENIZER.decode(tokens).strip() == utterances[3].text


def test_times_follow_the_speed_and_the_segments(speech_folder: Path) -> None:
    one = read_manifest(speech_folder / "manifest.jsonl", languages=["pl"])[9]
    parts = (TimedText(0.0, 0.4, "ala"), TimedText(0.6, 1.0, "9"))
    slow = Condition(speed=(0.5, 0.5), gain_db=(0.0, 0.0))
    rows = UtteranceRows([replace(one, segments=parts)], ENCODER, "pl", fail, condition=slow, timestamped=1.0)
    times = [TOKENIZER.seconds(token) for token in rows.row(0).tokens if TOKENIZER.is_timestamp(token)]
    assert times == pytest.approx([0.0, 0.8, 1.2, 2.0], abs=0.02)


def test_times_follow_the_tempo_and_what_is_timed_keeps_its_edges(speech_folder: Path) -> None:
    one = read_manifest(speech_folder / "manifest.jsonl", languages=["pl"])[9]
    parts = (TimedText(0.2, 0.4, "ala"), TimedText(0.6, 1.0, "9"))
    slow = Condition(tempo=(0.5, 0.5), gain_db=(0.0, 0.0), edges_s=(-0.1, -0.1))
    rows = UtteranceRows([replace(one, segments=parts)], ENCODER, "pl", fail, condition=slow, timestamped=1.0)
    times = [TOKENIZER.seconds(token) for token in rows.row(0).tokens if TOKENIZER.is_timestamp(token)]
    assert times == pytest.approx([0.4, 0.8, 1.2, 2.0], abs=0.02)
    whole = UtteranceRows([one], ENCODER, "pl", fail).row(0).mel.shape[1]
    assert rows.row(0).mel.shape[1] == pytest.approx(2 * whole, rel=0.1)
