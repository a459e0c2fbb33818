"""Adapter folders: PEFT reads ours, we read PEFT's (promise 11); the same bytes each time; faults named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Conv1d
from reference_whisper import ours, reference
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_whisper import toy_tokenizer
from transformers import WhisperForConditionalGeneration

from lora_whisper.errors import AdapterError, LoraWhisperError, OutputError, UnknownLanguage
from lora_whisper.lora import storage
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import MODULES, LoRAConfig
from lora_whisper.lora.storage import describe_adapter, read_adapter
from lora_whisper.model.checkpoint import Backbone

CONFIG, TENSORS, INFO = "adapter_config.json", "adapter_model.safetensors", "lora_whisper.json"
ONE_KEY = "base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight"

# PEFT asks every model for a property that transformers has renamed.
calls_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def hugging_face() -> WhisperForConditionalGeneration:
    """A new one at each call, always the same weights."""
    return reference(
        32, 4, (2, 1), vocab_size=320, num_mel_bins=8, max_source_positions=20, max_target_positions=16
    )


def empty_bank() -> AdapterBank:
    return AdapterBank(Backbone(ours(hugging_face()), toy_tokenizer(), "toy"))


def trained_bank(config: LoRAConfig) -> AdapterBank:
    bank = empty_bank()
    randomise_b([part.b for part in bank.add("pl", config).parts.values()])
    return bank


def randomise_b(parameters: list[torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in parameters:
        parameter.data.normal_(std=0.5, generator=generator)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 8, 40, generator=generator), torch.randint(320, (2, 6), generator=generator)


@torch.inference_mode()
def our_logits(bank: AdapterBank) -> Tensor:
    mel, tokens = batch()
    return bank.backbone.model(mel, tokens, routing=bank.route(["pl", "pl"]))


@torch.inference_mode()
def their_logits(model: torch.nn.Module) -> Tensor:
    mel, tokens = batch()
    for module in model.modules():
        if isinstance(module, Conv1d):  # transformers asks for the stride, which PEFT's layer hides
            module.stride = module.get_base_layer().stride
    return model(input_features=mel, decoder_input_ids=tokens).logits


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert (expected - their_logits(hugging_face())).abs().max() > 0.1  # the adapter does change something


# --- Promise 11: PEFT -------------------------------------------------------------------------------------


@calls_peft
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(LoRAConfig(), id="paper"),
        pytest.param(LoRAConfig(rank=4, alpha=6.5), id="a scale that is no integer"),
        pytest.param(LoRAConfig(rank=4, alpha=8, modules=("v", "fc2"), dropout=0.1), id="two modules"),
        pytest.param(LoRAConfig(rank=4, modules=MODULES), id="convolutions too"),
    ],
)
def test_peft_reads_ours(config: LoRAConfig, tmp_path: Path) -> None:
    bank = trained_bank(config)
    bank.save("pl", tmp_path / "pl")
    theirs = PeftModel.from_pretrained(hugging_face(), tmp_path / "pl")
    assert_same(their_logits(theirs), our_logits(bank))


@calls_peft
def test_peft_reads_ours_when_some_layers_have_no_part(tmp_path: Path) -> None:
    bank = trained_bank(LoRAConfig(rank=4, modules=("q", "out")))
    folder = bank.save("pl", tmp_path / "pl")
    tensors = {key: tensor for key, tensor in load_file(folder / TENSORS).items() if ".decoder." in key}
    save_file(tensors, folder / TENSORS)
    (folder / INFO).unlink()
    partial = empty_bank()
    partial.load(folder, "pl")
    partial.save("pl", tmp_path / "again")
    theirs = PeftModel.from_pretrained(hugging_face(), tmp_path / "again")
    assert not [name for name, _ in theirs.named_parameters() if "encoder.layers" in name and "lora" in name]
    assert_same(their_logits(theirs), our_logits(partial))


@calls_peft
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"target_modules": ["q_proj", "v_proj"]}, id="the usual"),
        pytest.param(
            {"target_modules": ["k_proj", "out_proj", "fc1", "fc2"], "lora_dropout": 0.1}, id="others"
        ),
        pytest.param({"target_modules": ["conv1", "conv2", "v_proj"]}, id="convolutions"),
        pytest.param({"target_modules": ["fc1"], "use_rslora": True}, id="rank-stabilised"),
        pytest.param({"target_modules": r".*decoder.*encoder_attn\.(q|k)_proj"}, id="cross-attention only"),
        pytest.param({"target_modules": ["q_proj"], "init_lora_weights": "gaussian"}, id="gaussian"),
    ],
)
def test_we_read_pefts(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = get_peft_model(hugging_face(), LoraConfig(r=4, lora_alpha=6, **options)).eval()
    randomise_b([p for name, p in theirs.named_parameters() if "lora_B" in name])
    theirs.save_pretrained(tmp_path / "theirs")
    bank = empty_bank()
    adapter = bank.load(tmp_path / "theirs", "pl")
    assert_same(our_logits(bank), their_logits(theirs))
    assert adapter.info.audio_context == "full"
    bank.save("pl", tmp_path / "ours")  # and from now on it is one of ours
    again = empty_bank()
    assert again.load(tmp_path / "ours").fingerprint == adapter.fingerprint


@calls_peft
def test_we_read_pefts_around_the_model_without_a_head(tmp_path: Path) -> None:
    theirs = get_peft_model(hugging_face(), LoraConfig(r=4, target_modules=["q_proj"])).eval()
    randomise_b([p for name, p in theirs.named_parameters() if "lora_B" in name])
    theirs.save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / TENSORS
    save_file({key.replace("model.model.", "model."): t for key, t in load_file(path).items()}, path)
    bank = empty_bank()
    bank.load(tmp_path / "theirs", "pl")
    assert_same(our_logits(bank), their_logits(theirs))


def test_pefts_folder_needs_a_language(tmp_path: Path) -> None:
    folder = trained_bank(LoRAConfig(rank=2)).save("pl", tmp_path / "pl")
    (folder / INFO).unlink()
    with pytest.raises(AdapterError, match="records no language; say which one it is for"):
        empty_bank().load(folder)
    with pytest.raises(UnknownLanguage, match="no token"):
        empty_bank().load(folder, "szl")
    assert empty_bank().load(folder, "szl", token_language="pl").tag == "szl"


# --- The files --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trained_bank(LoRAConfig(rank=4, alpha=8)).save("pl", tmp_path / "pl")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_adapter_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    assert set(before) == {CONFIG, TENSORS, INFO}
    loaded = empty_bank()
    loaded.load(folder)
    assert contents(loaded.save("pl", tmp_path / "again")) == before
    assert contents(loaded.save("pl", folder)) == before  # over the old one
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_intact_adapter_is_not_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*some: object) -> str:
        raise RuntimeError("hashed")

    monkeypatch.setattr(storage, "tensors_fingerprint", refuse)
    assert empty_bank().load(folder).tag == "pl"
    described = describe_adapter(folder)
    with pytest.raises(RuntimeError, match="hashed"):
        read_adapter(described, empty_bank().layers, thorough=True)
    edit_json(folder / INFO, {"checksum": "remove"})  # as versions before it wrote them
    with pytest.raises(RuntimeError, match="hashed"):
        empty_bank().load(folder)


def test_a_file_that_another_tool_wrote_again_is_the_same_adapter(folder: Path) -> None:
    before = empty_bank().load(folder)
    save_file(load_file(folder / TENSORS), folder / TENSORS, metadata={"written": "again"})
    assert empty_bank().load(folder).fingerprint == before.fingerprint
    edit_json(folder / INFO, {"fingerprint": "0" * 64})
    with pytest.raises(AdapterError, match="damaged or was edited"):
        empty_bank().load(folder)


def test_what_is_not_finite_has_no_checksum(folder: Path, tmp_path: Path) -> None:
    bank = empty_bank()
    bank.load(folder).parameters()[0].data[0, 0] = float("inf")
    bank.save("pl", tmp_path / "bad")
    assert "checksum" in json.loads((folder / INFO).read_text())
    assert "checksum" not in json.loads((tmp_path / "bad" / INFO).read_text())
    with pytest.raises(AdapterError, match="not finite"):
        empty_bank().load(tmp_path / "bad")


def test_layout_is_pefts(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 4, 8, "none")
    assert config["target_modules"] == ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]
    with safe_open(folder / TENSORS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_slice(ONE_KEY).get_shape() == [4, 32]
        assert file.get_slice(ONE_KEY).get_dtype() == "F32"
        assert len(list(file.keys())) == 2 * (2 * 6 + 1 * 10)
    info = json.loads((folder / INFO).read_text())
    assert (info["language"], info["token_language"], info["backbone"]) == ("pl", "pl", "toy")


def test_half_precision_halves_the_file(folder: Path, tmp_path: Path) -> None:
    bank = empty_bank()
    exact = bank.load(folder).tensors()
    bank.save("pl", tmp_path / "half", torch.float16)
    assert (tmp_path / "half" / TENSORS).stat().st_size < 0.6 * (folder / TENSORS).stat().st_size
    rounded = empty_bank().load(tmp_path / "half").tensors()
    for name, tensor in exact.items():
        assert torch.equal(rounded[name], tensor.half().float()), name


def test_does_not_overwrite_what_is_no_adapter(tmp_path: Path) -> None:
    bank = trained_bank(LoRAConfig(rank=2))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for occupied in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt"):
        with pytest.raises(OutputError, match="is not an adapter; choose another output folder"):
            bank.save("pl", occupied)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    bank.save("pl", tmp_path / "empty")


# --- Faults -----------------------------------------------------------------------------------------------


def edit_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / CONFIG, changes)


def edit_json(path: Path, changes: dict[str, Any]) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "remove"}))


def edit_tensors(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / TENSORS)
        change(tensors)
        save_file(tensors, folder / TENSORS)
        (folder / INFO).unlink()  # as in a folder of PEFT's: its fingerprint would tell at once

    return damage


def truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    data[-2] ^= 1
    (folder / TENSORS).write_bytes(data)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), f"{CONFIG}: missing"),
    "no tensors": (lambda folder: (folder / TENSORS).unlink(), f"{TENSORS}: missing; only safetensors"),
    "tensors truncated": (truncate(TENSORS, 5000), f"{TENSORS}: damaged"),
    "tensors empty": (truncate(TENSORS, 0), f"{TENSORS}: damaged"),
    "a flipped bit": (flip_a_bit, "damaged or was edited"),
    "configuration truncated": (truncate(CONFIG, 40), f"{CONFIG}: not JSON"),
    "configuration is a list": (lambda folder: (folder / CONFIG).write_text("[]"), "not a JSON object"),
    "configuration is binary": (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe"), "not JSON"),
    "another method": (edit_config(peft_type="IA3"), "peft_type is 'IA3'; only LORA"),
    "DoRA": (edit_config(use_dora=True), "use_dora=True is not supported"),
    "ranks by layer": (edit_config(rank_pattern={"q_proj": 8}), "rank_pattern={'q_proj': 8} is not"),
    "scales by layer": (edit_config(alpha_pattern={"q_proj": 8}), "alpha_pattern="),
    "biases": (edit_config(bias="all"), "bias='all' is not supported"),
    "whole modules": (edit_config(modules_to_save=["proj_out"]), r"modules_to_save=['proj_out'] is not"),
    "PiSSA": (edit_config(init_lora_weights="pissa_niter_4"), "init_lora_weights='pissa_niter_4' is not"),
    "no rank": (edit_config(r="remove"), f"{CONFIG}: not a LoRA configuration"),
    "rank 0": (edit_config(r=0), f"{CONFIG}: not a LoRA configuration"),
    "another scale than was saved": (edit_config(lora_alpha=99), "damaged or was edited"),
    "a rank that the tensors do not have": (
        lambda folder: (edit_config(r=8)(folder), (folder / INFO).unlink()),
        "encoder.blocks.0.attn.query.a is (4, 32), not (8, 32); was it made for another backbone?",
    ),
    "wrong shape": (
        edit_tensors(lambda tensors: tensors.update({ONE_KEY: torch.zeros(4, 31)})),
        "encoder.blocks.0.attn.query.a is (4, 31), not (4, 32)",
    ),
    "half a pair": (
        edit_tensors(lambda tensors: tensors.pop(ONE_KEY)),
        "encoder.blocks.0.attn.query.a is missing, not (4, 32)",
    ),
    "not a number": (
        edit_tensors(lambda tensors: tensors[ONE_KEY].fill_(float("nan"))),
        "encoder.blocks.0.attn.query.a holds values that are not finite",
    ),
    "a layer that the model lacks": (
        edit_tensors(lambda tensors: tensors.update({ONE_KEY.replace("0", "9"): torch.zeros(4, 32)})),
        "encoder.layers.9.self_attn.q_proj.lora_A.weight does not belong to a LoRA of this backbone",
    ),
    "a module without adapters": (
        edit_tensors(
            lambda tensors: tensors.update({"base_model.model.proj_out.lora_A.weight": torch.ones(4)})
        ),
        "base_model.model.proj_out.lora_A.weight does not belong",
    ),
    "no tensor at all": (edit_tensors(dict.clear), f"{TENSORS}: holds no tensors"),
    "info truncated": (truncate(INFO, 30), f"{INFO}: not JSON"),
    "info of a later version": (
        lambda folder: edit_json(folder / INFO, {"format": 2}),
        "format 2 is not 1; update lora-whisper",
    ),
    "info without a language": (lambda folder: edit_json(folder / INFO, {"language": "remove"}), f"{INFO}: "),
    "info with no language": (lambda folder: edit_json(folder / INFO, {"language": 7}), f"{INFO}: "),
    "info without a seed": (lambda folder: edit_json(folder / INFO, {"seed": "remove"}), "'seed'"),
    "info with an odd start": (lambda folder: edit_json(folder / INFO, {"start": {"a": 1}}), f"{INFO}: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_names_the_fault(fault: str, folder: Path) -> None:
    damage, expected = FAULTS[fault]
    damage(folder)
    bank = empty_bank()
    with pytest.raises(LoraWhisperError) as raised:
        bank.load(folder, "pl")
    message = str(raised.value)
    assert isinstance(raised.value, AdapterError)
    assert expected in message
    assert str(folder) in message
    assert "\n" not in message
    assert bank.tags == ()
    assert not any(layer.adapters for layer in bank.layers.values())
    if (folder / INFO).exists():
        with pytest.raises(AdapterError) as later:  # by the time that it is used
            bank.route([bank.open(folder).tag])
        assert str(later.value) == message


def test_the_untouched_folder_loads(folder: Path) -> None:
    assert empty_bank().load(folder).tag == "pl"


def test_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"nowhere/adapter_config.json: missing"):
        empty_bank().load(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match=r"file/adapter_config.json: cannot be read"):
        empty_bank().load(tmp_path / "file")
