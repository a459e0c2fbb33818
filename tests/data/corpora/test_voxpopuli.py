"""VoxPopuli, as on the Hub and as its own scripts leave it."""

from pathlib import Path

import pytest
from corpus_trees import VOXPOPULI_HEAD, parquet, speech, voxpopuli_rows, voxpopuli_tree

from lora_whisper.data.corpora.trees import LocalTree
from lora_whisper.data.corpora.voxpopuli import prepare_voxpopuli
from lora_whisper.data.corpora.writer import Prepared, Remark, Target
from lora_whisper.data.manifest import read_manifest
from lora_whisper.errors import ManifestError


def prepared(root: Path, out: Path, *languages: str, **options) -> Prepared:
    return prepare_voxpopuli(languages or ["pl"], "test", LocalTree(root), Target(out, "test"), **options)


@pytest.mark.parametrize("years", [False, True])
def test_the_published_trees(tmp_path, years):
    result = prepared(voxpopuli_tree(tmp_path / "vp", years=years), tmp_path / "out")
    read = read_manifest(result.manifest)
    assert [u.text for u in read] == ["Mam 3 uwagi.", "dziękuję", "Tak."]
    assert [u.speaker for u in read] == ["voxpopuli-7", "voxpopuli-8", None]
    assert read[0].id.startswith("voxpopuli-pl-20120118-0900-PLENARY")
    assert result.remarks == (Remark("with normalized_text, for raw_text is empty", 1),)
    assert result.skipped == ()


def test_normalized_text(tmp_path):
    result = prepared(voxpopuli_tree(tmp_path / "vp"), tmp_path / "out", text="normalized_text")
    assert [u.text for u in read_manifest(result.manifest)] == ["mam trzy uwagi", "dziękuję", "tak"]
    assert result.remarks == ()


def test_parquet_files(tmp_path):
    rows = [
        {
            "audio_id": row[0],
            "language": 4,
            "audio": {"bytes": speech(0.5, n), "path": f"{row[0]}.wav"},
            **dict(zip(VOXPOPULI_HEAD[1:4], row[1:4], strict=True)),
            "gender": "male",
            "is_gold_transcript": True,
            "accent": "None",
        }
        for n, row in enumerate(voxpopuli_rows())
    ]
    parquet(tmp_path / "vp" / "pl" / "test" / "0000.parquet", rows)
    read = read_manifest(prepared(tmp_path / "vp", tmp_path / "out").manifest)
    assert [u.text for u in read] == ["Mam 3 uwagi.", "dziękuję", "Tak."]


def test_accented_english_is_english_by_its_own_name_only(tmp_path):
    root = voxpopuli_tree(voxpopuli_tree(tmp_path / "vp", "en"), "en_accented")
    accented = prepared(root, tmp_path / "a", "en_accented")
    assert read_manifest(accented.manifest)[0].id.startswith("voxpopuli-en_accented")
    assert accented.amounts[0].language == "en"
    plain = prepared(root, tmp_path / "b", "en")
    assert read_manifest(plain.manifest)[0].id.startswith("voxpopuli-en-")


def test_what_is_not_there(tmp_path):
    root = voxpopuli_tree(tmp_path / "vp", years=True)
    table = root / "transcribed_data" / "pl" / "asr_test.tsv"
    (table.parent / "2012").rename(root / "gone")
    with pytest.raises(ManifestError, match="has no audio"):
        prepared(root, tmp_path / "out")
    table.write_text("x\ty\n1\t2\n")
    (root / "gone").rename(table.parent / "2012")
    with pytest.raises(ManifestError, match="no column id or normalized_text"):
        prepared(root, tmp_path / "out")
    table.rename(table.with_name("asr_dev.tsv"))
    with pytest.raises(ManifestError, match=r"neither transcribed_data/pl/asr_test\.tsv nor parquet"):
        prepared(root, tmp_path / "out")
