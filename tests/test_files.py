"""Files and folders written whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from lora_whisper.errors import OutputError
from lora_whisper.files import prepare_folder, replaced_folder, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_and_nothing_else_remains(tmp_path):
    path = write_text(tmp_path / "new" / "deep" / "a.txt", "zażółć\n")
    assert path.read_text(encoding="utf-8") == "zażółć\n"
    assert names(path.parent) == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_an_older_file_is_replaced(tmp_path):
    write_text(tmp_path / "a.txt", "old and longer")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_json_keeps_letters(tmp_path):
    path = write_json(tmp_path / "a.json", {"text": "łódź"})
    assert "łódź" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "łódź"}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    write_text(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_text_that_cannot_be_encoded_leaves_no_temporary_file(tmp_path):
    with pytest.raises((OutputError, UnicodeEncodeError)):
        write_text(tmp_path / "a.txt", "\ud800")
    assert names(tmp_path) == []


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    for path in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(OutputError, match="choose another output folder"):
            prepare_folder(path)


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(OutputError, match="cannot write there"):
        prepare_folder(Path("/proc/lora-whisper"))  # refused to the superuser too


def test_prepare_folder_leaves_it_as_it_was(tmp_path):
    (tmp_path / "kept").write_text("")
    assert prepare_folder(tmp_path) == tmp_path
    assert names(tmp_path) == ["kept"]


def test_replaced_folder_appears_whole(tmp_path):
    with replaced_folder(tmp_path / "runs" / "pl") as folder:
        (folder / "a").write_text("1")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text("2")
        assert not (tmp_path / "runs" / "pl").exists()
    assert names(tmp_path / "runs") == ["pl"]
    assert (tmp_path / "runs" / "pl" / "sub" / "b").read_text() == "2"
    assert stat.S_IMODE((tmp_path / "runs" / "pl").stat().st_mode) == 0o755


def test_replaced_folder_takes_the_place_of_the_old_one(tmp_path):
    (tmp_path / "pl").mkdir()
    (tmp_path / "pl" / "old").write_text("1")
    with replaced_folder(tmp_path / "pl") as folder:
        (folder / "new").write_text("2")
    assert names(tmp_path) == ["pl"]
    assert names(tmp_path / "pl") == ["new"]


def test_a_failed_block_changes_nothing(tmp_path):
    (tmp_path / "pl").mkdir()
    (tmp_path / "pl" / "old").write_text("1")
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path / "pl") as folder:
        (folder / "new").write_text("2")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["pl"]
    assert names(tmp_path / "pl") == ["old"]
