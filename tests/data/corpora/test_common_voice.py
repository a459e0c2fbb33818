"""Common Voice, as Mozilla publishes it and as copies on the Hub have it."""

from pathlib import Path

import pytest
from corpus_trees import SENTENCES, common_voice_tree, parquet, records, speech, tar

from lora_whisper.data.corpora.common_voice import prepare_common_voice
from lora_whisper.data.corpora.trees import LocalTree, open_tree
from lora_whisper.data.corpora.writer import Prepared, Target
from lora_whisper.data.manifest import read_manifest
from lora_whisper.errors import ManifestError


def prepared(root: Path, out: Path, *languages: str, split: str = "train") -> Prepared:
    return prepare_common_voice(languages or ["pl"], split, LocalTree(root), Target(out, split))


@pytest.mark.parametrize("part", ["", "cv-corpus-17.0-2024-03-15", "cv-corpus-17.0-2024-03-15/pl"])
def test_the_published_tree(tmp_path, part):
    root = tmp_path / "down"
    common_voice_tree(root / "cv-corpus-17.0-2024-03-15")
    result = prepared(root / part, tmp_path / "out")
    read = read_manifest(result.manifest)
    assert [u.text for u in read] == [*SENTENCES[:2], 'Powiedział: "tak.']
    assert [u.speaker for u in read] == ["c0", "c1", "c0"]
    assert read[0].id == "cv-pl-common_voice_pl_0"
    assert read[0].duration_s == pytest.approx(0.5, abs=0.1)
    assert read[0].audio.name == "common_voice_pl_0.mp3"
    rows = records(tmp_path / "out", "train")
    assert [row.get("gender") for row in rows] == ["female", "male", None]
    assert [row["sentence"] for row in rows] == ["s0", "s1", "s2"]


def test_a_code_with_a_region(tmp_path):
    root = common_voice_tree(tmp_path / "cv", "sv-SE")
    assert read_manifest(prepared(root, tmp_path / "out", "sv").manifest)[0].language == "sv"


def test_a_copy_with_archives(tmp_path):
    local = common_voice_tree(tmp_path / "cv")
    hub = tmp_path / "hub"
    clips = {f"pl_train_0/{path.name}": path.read_bytes() for path in (local / "pl" / "clips").iterdir()}
    tar(hub / "audio" / "pl" / "train" / "pl_train_0.tar", clips)
    (hub / "transcript" / "pl").mkdir(parents=True)
    (local / "pl" / "train.tsv").rename(hub / "transcript" / "pl" / "train.tsv")
    assert prepared(hub, tmp_path / "out").utterances == 3


def test_a_copy_in_parquet_files(tmp_path):
    rows = [
        {
            "client_id": "c",
            "path": f"pl_train_0/common_voice_pl_{n}.mp3",
            "audio": {"bytes": speech(0.5, n, "MP3"), "path": f"common_voice_pl_{n}.mp3"},
            "sentence": SENTENCES[n],
            "gender": "male",
            "locale": "pl",
        }
        for n in range(2)
    ]
    parquet(tmp_path / "hub" / "pl" / "train-00000-of-00001.parquet", rows)
    read = read_manifest(prepared(tmp_path / "hub", tmp_path / "out").manifest)
    assert [u.id for u in read] == ["cv-pl-common_voice_pl_0", "cv-pl-common_voice_pl_1"]


def test_a_missing_clip_and_a_broken_line(tmp_path):
    root = common_voice_tree(tmp_path / "cv")
    (root / "pl" / "clips" / "common_voice_pl_1.mp3").unlink()
    table = root / "pl" / "train.tsv"
    table.write_text(table.read_text(encoding="utf-8") + "broken\tline\n", encoding="utf-8")
    result = prepared(root, tmp_path / "out")
    assert result.utterances == 2
    assert sorted(skip.reason[-60:] for skip in result.skipped)[0].startswith("2 columns instead of 13")
    assert any("common_voice_pl_1.mp3: no such audio file" in skip.reason for skip in result.skipped)


def test_what_is_not_there(tmp_path):
    root = common_voice_tree(tmp_path / "cv")
    with pytest.raises(ManifestError, match=r"neither pl/validated\.tsv nor parquet files of validated"):
        prepared(root, tmp_path / "out", split="validated")
    (root / "pl" / "clips").rename(root / "elsewhere")
    with pytest.raises(ManifestError, match="neither the folder pl/clips nor"):
        prepared(root, tmp_path / "out")
    (root / "elsewhere").rename(root / "pl" / "clips")
    (root / "pl" / "train.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ManifestError, match="no column path or sentence"):
        prepared(root, tmp_path / "out")
    with pytest.raises(ManifestError, match="download it and give --source"):
        open_tree(None, None)
