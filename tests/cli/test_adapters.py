"""Folders of adapters on the command line: verified in any order, decoded with little memory."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_adapters import INFO, TENSORS, adapters_folder, mixture_folder

from lora_whisper.cli import run

Lora = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lora(capsys: pytest.CaptureFixture[str]) -> Lora:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four adapters, and `da`, which borrows two of them."""
    return mixture_folder(adapters_folder(tmp_path / "four"), tmp_path / "adapters")


@pytest.mark.parametrize("tags", [[], ["da"]])
def test_a_mixture_is_verified_before_those_that_it_borrows(
    lora: Lora, folder: Path, tiny_backbone_folder: Path, tags: list[str]
) -> None:
    code, out, err = lora(
        "adapters", "verify", *tags, "--adapters", folder, "--backbone", tiny_backbone_folder, "--json"
    )
    assert code == 0, err
    found = json.loads(out)["adapters"]
    assert list(found) == (tags or ["cy", "da", "it", "pl", "zh"])
    recorded = json.loads((folder / "da" / INFO).read_text())["fingerprint"]
    assert found["da"] == {"ok": True, "fingerprint": recorded}


def test_verify_hashes_even_where_the_checksum_is_right(
    lora: Lora, folder: Path, tiny_backbone_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_whisper.lora.storage.tensors_fingerprint", lambda *some: "another")
    code, out, err = lora("adapters", "verify", "--adapters", folder, "--backbone", tiny_backbone_folder)
    assert code == 1
    assert err.count("damaged or was edited") == 5
    assert out.count("bad") == 5


def test_verify_names_what_cannot_be_opened(lora: Lora, folder: Path, tiny_backbone_folder: Path) -> None:
    (folder / "it" / INFO).write_text("{")
    code, out, err = lora(
        "adapters", "verify", "--adapters", folder, "--backbone", tiny_backbone_folder, "--json"
    )
    assert code == 1
    assert {tag for tag, one in json.loads(out)["adapters"].items() if not one["ok"]} == {"da", "it"}
    assert "not JSON" in err and "its expert it is missing" in err


def test_transcribing_with_little_memory_is_the_same(
    lora: Lora, folder: Path, tiny_backbone_folder: Path, speech_folder: Path
) -> None:
    files = [speech_folder / "pl-0.wav", speech_folder / "it-3.wav"]
    heard = []
    for memory in ([], ["--adapter-memory", "1"], ["--adapter-memory", "0.00001"]):
        code, out, err = lora(
            "transcribe", *files, "--backbone", tiny_backbone_folder, "--adapters", folder,
            "--language", "pl", *memory, "--json",
        )  # fmt: skip
        assert code == 0, err
        heard.append(out)
    assert heard[0] == heard[1] == heard[2]


def test_only_a_damaged_adapter_that_is_used_stops_transcribing(
    lora: Lora, folder: Path, tiny_backbone_folder: Path, speech_folder: Path
) -> None:
    tensors = folder / "pl" / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-100])
    command = [
        "transcribe",
        speech_folder / "pl-0.wav",
        "--backbone",
        tiny_backbone_folder,
        "--adapters",
        folder,
    ]
    assert lora(*command, "--language", "it")[0] == 0
    code, _, err = lora(*command, "--language", "pl")
    assert code == 1
    assert err.startswith("error: ") and err.count("\n") == 1 and f"{tensors}: damaged" in err
    code, _, err = lora(*command, "--adapter-memory", "-1")
    assert code == 2
