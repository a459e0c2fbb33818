"""Opening adapter folders: everything but tensors is known at once; all of them or none."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from toy_adapters import INFO, adapters_folder, eager, heard, mixture_folder, opened
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.errors import AdapterError, BackboneMismatch, UnknownLanguage
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.opening import described_in
from lora_whisper.lora.parts import LoRAConfig


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return adapters_folder(tmp_path / "adapters")


def test_opening_reads_no_tensors(root: Path) -> None:
    for path in root.rglob("*.safetensors"):
        path.unlink()
    bank = opened(root)
    assert bank.tags == ("cy", "it", "pl", "zh")
    assert len(bank) == 4 and "pl" in bank and "da" not in bank
    assert [adapter.tag for adapter in bank] == list(bank.tags)
    assert bank.find("it-CH").info.token_language == "it"
    described = json.loads((root / "pl" / INFO).read_text())
    assert bank["pl"].fingerprint == described["fingerprint"]
    assert bank["pl"].config == LoRAConfig(rank=4, alpha=4)
    assert "pl" in repr(bank["pl"])
    asr = LoraWhisper(bank.backbone, bank)
    assert asr.target("it-CH").adapter == "it"
    assert set(asr.candidates(None)) == {"cy", "it", "pl", "zh"}
    assert bank.cache.tags == () and bank.cache.n_bytes == 0
    assert not any(layer.adapters for layer in bank.layers.values())


def test_those_that_borrow_come_last(root: Path, tmp_path: Path) -> None:
    folder = mixture_folder(root, tmp_path / "with")
    assert [one.folder.name for one in described_in(folder)] == ["cy", "it", "pl", "zh", "da"]
    assert opened(folder).tags == eager(folder).tags == ("cy", "it", "pl", "zh", "da")


def test_opening_takes_all_or_none(root: Path) -> None:
    (root / "it" / "adapter_config.json").unlink()
    bank = AdapterBank(toy_backbone())
    with pytest.raises(AdapterError, match=r"it/adapter_config\.json: missing"):
        bank.open_all(root)
    assert bank.tags == ()
    shutil.rmtree(root / "it")
    info = json.loads((root / "zh" / INFO).read_text())
    (root / "zh" / INFO).write_text(json.dumps({**info, "backbone_fingerprint": "sha256:0"}))
    with pytest.raises(BackboneMismatch, match="sha256:0"):
        bank.open_all(root)
    assert bank.tags == ()
    with pytest.raises(AdapterError, match="no adapters there"):
        bank.open_all(root / "nowhere")


def test_a_missing_expert_is_an_error_at_opening(tmp_path: Path, root: Path) -> None:
    folder = mixture_folder(root, tmp_path / "with")
    shutil.rmtree(folder / "it")
    with pytest.raises(AdapterError, match="its expert it is missing"):
        opened(folder)
    toy_bank(toy_backbone(), {"pl": 4, "it": 2}).save("it", folder / "it")
    with pytest.raises(AdapterError, match="its expert it has changed"):
        opened(folder)


def test_half_precision_and_shape_of_modules(tmp_path: Path) -> None:
    bank = toy_bank(toy_backbone(), {"pl": 4})
    bank.add("it", LoRAConfig(rank=3, alpha=1.5, modules=("q", "fc2")))
    bank.save("pl", tmp_path / "all" / "pl", torch.float16)
    bank.save("it", tmp_path / "all" / "it")
    found, loaded = opened(tmp_path / "all"), eager(tmp_path / "all")
    assert found["it"].config == loaded["it"].config == bank["it"].config
    assert torch.equal(heard(found, found.route(["pl"]), 1), heard(loaded, loaded.route(["pl"]), 1))


def test_hundreds_of_adapters_are_opened_and_few_are_in_memory(root: Path, tmp_path: Path) -> None:
    tags = [f"q{a}{b}-{region}" for a in "abcde" for b in "abcdefghijklmnopqrst" for region in ("PL", "IT")]
    info = json.loads((root / "pl" / INFO).read_text())
    for tag in tags:
        folder = Path(shutil.copytree(root / "pl", tmp_path / "many" / tag))
        (folder / INFO).write_text(json.dumps({**info, "language": tag, "token_language": "pl"}))
    bank = opened(tmp_path / "many", memory_bytes=0)
    assert len(bank) == len(tags) == 200
    for tag in tags[::40]:
        bank.route([tag])
    assert len(bank.cache.tags) == 1
    with pytest.raises(UnknownLanguage, match=r"there are .*, …$") as raised:
        bank.route(["da"])
    assert len(str(raised.value)) < 300
