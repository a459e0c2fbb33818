"""Data sets on the Hugging Face Hub: which files are asked for, and what happens without a network."""

from pathlib import Path

import huggingface_hub
import pytest
from corpus_trees import fleurs_rows, fleurs_tree, parquet, voxpopuli_tree

from lora_whisper.data.corpora.fleurs import prepare_fleurs
from lora_whisper.data.corpora.trees import HubTree, LocalTree, open_tree
from lora_whisper.data.corpora.voxpopuli import prepare_voxpopuli
from lora_whisper.data.corpora.writer import Target, Work
from lora_whisper.errors import ManifestError


class Hub:
    """A folder that answers as the Hub does, and remembers what was asked for."""

    def __init__(self, root: Path):
        self.root = root
        self.asked: list[str] = []

    def list_repo_files(self, repo: str, *, repo_type: str, revision: str) -> list[str]:
        assert repo_type == "dataset"
        self.asked.append(f"list {repo}@{revision}")
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def download(self, repo: str, path: str, *, repo_type: str, revision: str) -> str:
        assert repo_type == "dataset"
        self.asked.append(path)
        return str(self.root / path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    served = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: served)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", served.download)
    return served


def test_only_what_is_needed_is_downloaded(hub, tmp_path):
    fleurs_tree(fleurs_tree(hub.root), "it_it")
    result = prepare_fleurs(["pl"], "test", HubTree("google/fleurs"), Target(tmp_path / "out", "test"))
    assert result.utterances == 3
    assert hub.asked == [
        "list google/fleurs@main",
        "data/pl_pl/test.tsv",
        "data/pl_pl/audio/test.tar.gz",
    ]


def test_parquet_files_come_one_by_one_as_far_as_they_are_needed(hub, tmp_path):
    for part in range(3):
        parquet(hub.root / "pl_pl" / "train" / f"000{part}.parquet", fleurs_rows(4), group=1)
    tree = HubTree("google/fleurs", "refs/convert/parquet")
    work = Work(limit=3)
    assert prepare_fleurs(["pl"], "train", tree, Target(tmp_path / "out", "train"), work=work).utterances == 3
    assert hub.asked == ["list google/fleurs@refs/convert/parquet", "pl_pl/train/0000.parquet"]


def test_the_tables_and_archives_of_voxpopuli(hub, tmp_path):
    voxpopuli_tree(hub.root)
    tree = HubTree("facebook/voxpopuli")
    result = prepare_voxpopuli(["pl"], "test", tree, Target(tmp_path / "out", "test"))
    assert (result.utterances, result.skipped) == (3, ())


def test_patterns_match_as_in_a_folder(hub, tmp_path):
    fleurs_tree(hub.root, unpacked=True)
    here, there = LocalTree(hub.root), HubTree("x/y")
    for pattern in ("data/*/*.tsv", "*/*.tsv", "data/pl_pl/audio/test/*", "*", "data/*/audio/*/*.wav"):
        files = [path for path in here.find(pattern) if (hub.root / path).is_file()]
        assert there.find(pattern) == files


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), RuntimeError()])
def test_no_network_is_one_clear_line(tmp_path, monkeypatch, error):
    class Unreachable:
        def list_repo_files(self, *_: object, **__: object) -> list[str]:
            raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    with pytest.raises(ManifestError) as caught:
        prepare_fleurs(["pl"], "test", open_tree(None, "google/fleurs"), Target(tmp_path, "test"))
    message = str(caught.value)
    assert message.startswith("google/fleurs: not available from the Hugging Face Hub (")
    assert "give a folder with --source" in message
    assert "\n" not in message
    assert not (tmp_path / "test.jsonl").exists()


def test_a_download_that_fails(hub, tmp_path, monkeypatch):
    fleurs_tree(hub.root)

    def fail(*_: object, **__: object) -> str:
        raise OSError("Consistency check failed")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(
        ManifestError, match=r"google/fleurs \(data/pl_pl/test\.tsv\): not available.*Consistency"
    ):
        prepare_fleurs(["pl"], "test", HubTree("google/fleurs"), Target(tmp_path / "out", "test"))


def test_a_data_set_with_only_a_part_of_the_split(hub, tmp_path):
    parquet(hub.root / "pl" / "partial-train" / "0000.parquet", fleurs_rows())
    tree = HubTree("facebook/voxpopuli", "refs/convert/parquet")
    with pytest.raises(
        ManifestError, match=r"facebook/voxpopuli@refs/convert/parquet: holds only the first part"
    ):
        prepare_voxpopuli(["pl"], "train", tree, Target(tmp_path / "out", "train"))
