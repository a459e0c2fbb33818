"""FLEURS, in the layouts of google/fleurs."""

from pathlib import Path

import pytest
from corpus_trees import (
    SENTENCES,
    fleurs_line,
    fleurs_rows,
    fleurs_tree,
    parquet,
    records,
    speech,
    tar,
    write,
)

from lora_whisper.data.corpora.fleurs import prepare_fleurs
from lora_whisper.data.corpora.trees import LocalTree
from lora_whisper.data.corpora.writer import Prepared, Target
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.errors import ManifestError, UnknownLanguage


def prepared(
    root: Path, *languages: str, split: str = "test", out: Path | None = None, **options
) -> Prepared:
    target = Target(out or root.parent / "out", split)
    return prepare_fleurs(languages or ["pl"], split, LocalTree(root), target, **options)


def utterances(result: Prepared) -> list[Utterance]:
    return read_manifest(result.manifest)


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_published_tree(tmp_path, unpacked):
    result = prepared(fleurs_tree(tmp_path / "fleurs", unpacked=unpacked))
    read = utterances(result)
    assert [u.text for u in read] == [SENTENCES[0], SENTENCES[0], SENTENCES[1]]
    assert [u.duration_s for u in read] == [0.4, 0.5, 0.6]
    assert {u.language for u in read} == {"pl"}
    assert read[0].id == "fleurs-pl_pl-1600-1000000000000000"
    assert (result.skipped, result.remarks) == ((), ())
    assert ("fleurs/data" in read[0].audio.resolve().as_posix()) == unpacked
    record = records(tmp_path / "out", "test")
    assert [row["sentence"] for row in record] == ["1600", "1600", "1601"]
    assert record[0]["gender"] == "female"


def test_transcription_only_when_it_is_asked_for(tmp_path):
    result = prepared(fleurs_tree(tmp_path / "fleurs"), text="transcription")
    assert utterances(result)[0].text == "wszyscy mówią dzień dobry"


@pytest.mark.parametrize("part", ["data", "data/pl_pl"])
def test_a_folder_further_down(tmp_path, part):
    root = fleurs_tree(tmp_path / "fleurs")
    assert prepared(root / part, out=tmp_path / "out").utterances == 3


def test_the_folder_of_one_language_under_another_name(tmp_path):
    root = fleurs_tree(tmp_path / "fleurs")
    (root / "data" / "pl_pl").rename(tmp_path / "mine.d")
    assert utterances(prepared(tmp_path / "mine.d", out=tmp_path / "out"))[0].language == "pl"


def test_several_languages_in_one_manifest(tmp_path):
    root = fleurs_tree(fleurs_tree(tmp_path / "fleurs"), "cmn_hans_cn")
    result = prepared(root, "all")
    assert [(amount.language, amount.utterances) for amount in result.amounts] == [("zh", 3), ("pl", 3)]


def test_rows_without_audio_audio_without_rows_and_broken_rows_are_told_of(tmp_path):
    root = fleurs_tree(tmp_path / "fleurs")
    table = root / "data" / "pl_pl" / "test.tsv"
    more = [
        fleurs_line(1700, "404.wav", "Nie ma."),
        "1701\tonly-two.wav",
        fleurs_line(1702, "", "Bez pliku."),
    ]
    table.write_text(table.read_text(encoding="utf-8") + "\n".join(more) + "\n", encoding="utf-8")
    files = {f"test/{10**15 + n}.wav": speech(0.4, n) for n in (0, 1, 2)} | {"test/extra.wav": speech()}
    tar(root / "data" / "pl_pl" / "audio" / "test.tar.gz", files)
    result = prepared(root)
    assert result.utterances == 3
    reasons = " | ".join(f"{skip.where}: {skip.reason}" for skip in result.skipped)
    assert "fleurs-pl_pl-1700-404: no audio 404 in test.tar.gz" in reasons
    assert "test.tsv:5: 2 columns instead of 7" in reasons
    assert "test.tsv:6: no file name" in reasons
    assert "extra.wav: audio without a line" in reasons
    assert len(result.skipped) == 4


def test_quotation_marks_and_odd_line_ends_swallow_nothing(tmp_path):
    root = fleurs_tree(tmp_path / "fleurs", unpacked=True)
    rows = [('"Otwarty', "a"), ("Dwa  \u00a0słowa\u2028", "b"), ("x\ry", "c")]
    lines = [fleurs_line(n, f"{10**15 + n}.wav", raw) for n, (raw, _) in enumerate(rows)]
    write(root / "data" / "pl_pl" / "test.tsv", "\r\n".join(lines) + "\r\n")
    assert [u.text for u in utterances(prepared(root))] == ['"Otwarty', "Dwa słowa", "x y"]


@pytest.mark.parametrize(
    "place",
    [
        "pl_pl/test/0000.parquet",
        "pl_pl/fleurs-test.parquet",
        "pl_pl/fleurs-test-00000-of-00001.parquet",
        "data/pl_pl/test-00000-of-00001.parquet",
        "parquet-data/pl_pl/test-00000-of-00001.parquet",
        "parquet-data/pl_pl/test/0000.parquet",
    ],
)
def test_parquet_files_wherever_the_hub_puts_them(tmp_path, place):
    rows = fleurs_rows()
    parquet(tmp_path / "fleurs" / place, rows)
    result = prepared(tmp_path / "fleurs")
    read = utterances(result)
    assert [u.text for u in read] == ["Zdanie 0.", "Zdanie 1.", "Zdanie 2."]
    assert [u.audio.read_bytes() for u in read] == [row["audio"]["bytes"] for row in rows]
    assert read[2].id == "fleurs-pl_pl-1601-1000000000000002"
    assert [row["gender"] for row in records(tmp_path / "out", "test")] == ["male", "female", "other"]


def test_dev_is_validation_in_parquet_files_of_several_parts(tmp_path):
    rows = fleurs_rows(4)
    for part in range(2):
        parquet(tmp_path / "f" / "pl_pl" / "validation" / f"000{part}.parquet", rows[2 * part :][:2])
    assert [u.text for u in utterances(prepared(tmp_path / "f", split="dev"))] == [
        f"Zdanie {n}." for n in range(4)
    ]


def test_a_row_without_audio_in_a_parquet_file(tmp_path):
    rows = fleurs_rows()
    rows[1]["audio"] = {"bytes": None, "path": "gone.wav"}
    rows[2]["audio"] = None
    parquet(tmp_path / "f" / "pl_pl" / "test" / "0000.parquet", rows)
    result = prepared(tmp_path / "f")
    assert result.utterances == 1
    assert [skip.where.rsplit(":", 1)[1] for skip in result.skipped] == ["2", "3"]


def test_only_the_beginning_of_a_split_is_refused(tmp_path):
    parquet(tmp_path / "f" / "pl_pl" / "partial-train" / "0000.parquet", fleurs_rows())
    with pytest.raises(ManifestError, match=r"only the first part of pl_pl train \(partial-train\)"):
        prepared(tmp_path / "f", split="train")


def fault(root: Path, *languages: str, **options) -> str:
    with pytest.raises((ManifestError, UnknownLanguage)) as caught:
        prepared(root, *languages, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there(tmp_path):
    root = fleurs_tree(tmp_path / "fleurs")
    assert "no such folder" in fault(tmp_path / "none")
    assert "is a file; unpack it" in fault(root / "data" / "pl_pl" / "test.tsv")
    assert "has no it; there is pl_pl" in fault(root, "it")
    assert "neither data/pl_pl/train.tsv nor parquet files" in fault(root, split="train")
    (tmp_path / "empty").mkdir()
    assert "there is no languages" in fault(tmp_path / "empty")


def test_a_table_without_its_audio(tmp_path):
    root = fleurs_tree(tmp_path / "fleurs")
    archive = root / "data" / "pl_pl" / "audio" / "test.tar.gz"
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    assert "test.tar.gz: damaged, cut off or no tar archive" in fault(root)
    archive.write_bytes(b"not a tar")
    assert "damaged, cut off or no tar archive" in fault(root)
    archive.unlink()
    assert "test.tsv has no audio" in fault(root)


def test_damaged_and_foreign_parquet_files(tmp_path):
    path = parquet(tmp_path / "f" / "pl_pl" / "test" / "0000.parquet", fleurs_rows())
    path.write_bytes(path.read_bytes()[:-100])
    assert "0000.parquet: damaged, or no parquet file" in fault(tmp_path / "f")
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"text": ["a"]}), path)
    assert "no column audio but text" in fault(tmp_path / "f")


def test_a_table_that_is_no_text(tmp_path):
    root = fleurs_tree(tmp_path / "fleurs")
    write(root / "data" / "pl_pl" / "test.tsv", b"\xff\xfe\x00")
    assert "no table in UTF-8" in fault(root)


def test_without_pyarrow_tables_still_work_and_parquet_names_the_extra(tmp_path, monkeypatch):
    import sys

    from lora_whisper.errors import MissingExtra

    parquet(tmp_path / "f" / "pl_pl" / "test" / "0000.parquet", fleurs_rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"lora-whisper\[corpora\]"):
        prepared(tmp_path / "f")
    assert prepared(fleurs_tree(tmp_path / "g"), out=tmp_path / "o").utterances == 3
