"""Multilingual LibriSpeech, in the layouts of OpenSLR and of the Hub."""

from pathlib import Path

import pytest
from corpus_trees import mls_tree, parquet, records, speech

from lora_whisper.data.corpora.mls import prepare_mls
from lora_whisper.data.corpora.trees import LocalTree
from lora_whisper.data.corpora.writer import Prepared, Target
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.errors import ManifestError, UnknownLanguage


def prepared(root: Path, out: Path, split: str = "train", *languages: str) -> Prepared:
    return prepare_mls(languages or ["pl"], split, LocalTree(root), Target(out, split))


def utterances(result: Prepared) -> list[Utterance]:
    return read_manifest(result.manifest)


@pytest.mark.parametrize(
    ("name", "kind"), [("mls_polish", "FLAC"), ("mls_polish_opus", "OPUS"), ("polish", "FLAC")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_the_published_tree(tmp_path, name, kind, inside):
    root = mls_tree(tmp_path / "mls", name, kind)
    result = prepared(root / name if inside else root, tmp_path / "out")
    read = utterances(result)
    assert [u.text for u in read] == [f"zdanie numer {n}" for n in range(6)]
    assert (read[3].id, read[3].speaker, read[3].language) == ("mls-polish-103_7_000003", "mls-103", "pl")
    assert read[3].duration_s == pytest.approx(0.4, abs=0.01)
    assert read[0].audio.resolve().is_relative_to(root)
    assert [row["gender"] for row in records(tmp_path / "out", "train")][:2] == ["female", "male"]
    assert result.skipped == ()


@pytest.mark.parametrize(
    ("split", "numbers"), [("9hr", [0, 1, 2]), ("1hr", [4, 5]), ("dev", [0]), ("test", [0, 1])]
)
def test_the_parts(tmp_path, split, numbers):
    result = prepared(mls_tree(tmp_path / "mls"), tmp_path / "out", split)
    assert [u.text for u in utterances(result)] == [f"zdanie numer {n}" for n in numbers]


def test_the_small_parts_share_nothing(tmp_path):
    root = mls_tree(tmp_path / "mls")
    ids = [
        {u.id for u in utterances(prepared(root, tmp_path / "out", split))}
        for split in ("9hr", "1hr", "train")
    ]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] < ids[2]


def test_several_languages_and_all(tmp_path):
    root = mls_tree(mls_tree(tmp_path / "mls"), "mls_italian")
    two = prepared(root, tmp_path / "out", "test", "it", "pl")
    assert [(amount.language, amount.utterances) for amount in two.amounts] == [("it", 2), ("pl", 2)]
    assert prepared(root, tmp_path / "all", "test", "all").utterances == 4


def test_gaps_are_told_of(tmp_path):
    root = mls_tree(tmp_path / "mls")
    train = root / "mls_polish" / "train"
    (train / "audio" / "100" / "7" / "100_7_000000.flac").unlink()
    handles = train / "limited_supervision" / "9hr" / "handles.txt"
    handles.write_text(handles.read_text() + "999_9_000009\n")
    transcripts = train / "transcripts.txt"
    transcripts.write_text("odd\tzdanie\nnotext\n" + transcripts.read_text())
    result = prepared(root, tmp_path / "out")
    assert result.utterances == 5
    reasons = " | ".join(f"{skip.where}: {skip.reason}" for skip in result.skipped)
    assert "'odd' is not SPEAKER_BOOK_NUMBER" in reasons
    assert "transcripts.txt:2: 1 column instead of 2" in reasons
    assert "100_7_000000.flac: no such audio file" in reasons
    limited = prepared(root, tmp_path / "out", "9hr")
    assert any(
        "999_9_000009: listed in limited_supervision/9hr" in f"{s.where}: {s.reason}" for s in limited.skipped
    )


def test_metainfo_may_be_missing(tmp_path):
    root = mls_tree(tmp_path / "mls")
    (root / "mls_polish" / "metainfo.txt").unlink()
    assert prepared(root, tmp_path / "out").utterances == 6


@pytest.mark.parametrize(
    ("place", "split"),
    [
        ("polish/train-00000-of-00001.parquet", "train"),
        ("polish/9_hours-00000-of-00001.parquet", "9hr"),
        ("polish/1_hours-00000-of-00001.parquet", "1hr"),
        ("polish/dev/0000.parquet", "dev"),
        ("polish/test/0000.parquet", "test"),
    ],
)
def test_the_hub(tmp_path, place, split):
    rows = [
        {
            "audio": {"bytes": speech(0.5, n, "OPUS"), "path": f"{100 + n}_7_00000{n}.opus"},
            "original_path": "http://archive.org/a.mp3",
            "begin_time": 1.0,
            "end_time": 1.5,
            "transcript": f"zdanie numer {n}",
            "audio_duration": 0.5,
            "speaker_id": str(100 + n),
            "chapter_id": "7",
            "file": f"{100 + n}_7_00000{n}.opus",
            "id": f"{100 + n}_7_00000{n}",
        }
        for n in range(3)
    ]
    parquet(tmp_path / "mls" / place, rows)
    read = utterances(prepared(tmp_path / "mls", tmp_path / "out", split))
    assert [(u.text, u.speaker) for u in read] == [(f"zdanie numer {n}", f"mls-{100 + n}") for n in range(3)]
    assert read[1].audio.read_bytes() == rows[1]["audio"]["bytes"]
    assert read[1].audio.suffix == ".opus"


def test_what_is_not_there(tmp_path):
    root = mls_tree(tmp_path / "mls")
    with pytest.raises(UnknownLanguage, match="has no cy; there is polish"):
        prepared(root, tmp_path / "out", "test", "cy")
    for path in (root / "mls_polish" / "train" / "limited_supervision" / "1hr").glob("*/handles.txt"):
        path.unlink()
    with pytest.raises(ManifestError, match=r"no handles\.txt"):
        prepared(root, tmp_path / "out", "1hr")
    (root / "mls_polish" / "dev" / "transcripts.txt").unlink()
    with pytest.raises(ManifestError, match=r"neither mls_polish/dev/transcripts\.txt nor parquet"):
        prepared(root, tmp_path / "out", "dev")
