"""Backbone folders: transformers' in, ours out, and every way in which one can be broken."""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference_whisper import ours, reference
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from whisper_vocabulary import write_folder

from lora_whisper.errors import CheckpointError, LoraWhisperError, OutputError, UsageError
from lora_whisper.languages import WHISPER_LANGUAGES
from lora_whisper.model import checkpoint
from lora_whisper.model.checkpoint import (
    Backbone,
    huggingface_name,
    load_backbone,
    our_name,
    save_backbone,
    weights_fingerprint,
)
from lora_whisper.model.tokenizer import train_tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper

SHAPE = {"max_source_positions": 30, "num_mel_bins": 16, "max_target_positions": 40}
N_TOKENS = 258 + 108 + 1501
N_VOCAB = N_TOKENS + 5  # some fine-tuned models have rows to spare


@pytest.fixture(scope="session")
def reference_model() -> WhisperForConditionalGeneration:
    return reference(32, 4, (2, 3), vocab_size=N_VOCAB, **SHAPE)


@pytest.fixture(scope="session")
def master(
    tmp_path_factory: pytest.TempPathFactory, reference_model: WhisperForConditionalGeneration
) -> Path:
    """A folder as transformers writes it, with a vocabulary of our own."""
    folder = tmp_path_factory.mktemp("backbone")
    reference_model.save_pretrained(folder)
    train_tokenizer(["abc"], 258, list(WHISPER_LANGUAGES)).save(folder)
    return folder


@pytest.fixture
def folder(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "whisper"))


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return load_backbone(folder)


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(
        json.dumps({k: v for k, v in (value | changes).items() if v is not None}), encoding="utf-8"
    )


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of model.safetensors (dots written as double underscores); None removes one."""
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in changes.items():
        tensors.pop(key.replace("__", "."), None)
        if tensor is not None:
            tensors[key.replace("__", ".")] = tensor
    save_file(tensors, folder / "model.safetensors")


def sample(dims: ModelDimensions) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mel = torch.randn(2, dims.n_mels, 2 * dims.n_audio_ctx, generator=generator)
    return mel, torch.randint(dims.n_vocab, (2, 5), generator=generator)


def assert_equal_logits(model: Whisper, theirs: WhisperForConditionalGeneration, atol: float = 1e-4) -> None:
    mel, tokens = sample(model.dims)
    with torch.inference_mode():
        expected = theirs(mel, decoder_input_ids=tokens).logits
        torch.testing.assert_close(model(mel, tokens), expected, atol=atol, rtol=1e-4)


def failure(folder: Path | str) -> str:
    """The message of the CheckpointError, which must be one line."""
    with pytest.raises(CheckpointError) as raised:
        load_backbone(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_name_maps_to_transformers_and_back(reference_model: WhisperForConditionalGeneration) -> None:
    model = ours(reference_model)
    theirs = {name for name, _ in reference_model.named_parameters()}
    names = [name for name, _ in model.named_parameters()]
    assert {huggingface_name(name) for name in names} == theirs
    assert [our_name(huggingface_name(name)) for name in names] == names
    assert (
        our_name("decoder.layers.3.encoder_attn.v_proj.weight") == "decoder.blocks.3.cross_attn.value.weight"
    )


def test_linear_modules_map_both_ways(
    reference_model: WhisperForConditionalGeneration,
) -> None:
    theirs = dict(reference_model.named_modules())
    for name, module in ours(reference_model).named_modules():
        if isinstance(module, torch.nn.Linear):
            assert isinstance(theirs[huggingface_name(name)], torch.nn.Linear)
            assert our_name(huggingface_name(name)) == name


def test_loads_what_transformers_saved(
    folder: Path, reference_model: WhisperForConditionalGeneration
) -> None:
    backbone = load_backbone(str(folder))
    assert_equal_logits(backbone.model, reference_model)
    assert backbone.name == str(folder)
    assert backbone.audio_context == "full"
    assert not backbone.model.training
    parameters = dict(backbone.model.named_parameters())
    assert all(
        p.dtype == torch.float32 and not p.requires_grad and not p.is_meta for p in parameters.values()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(
    dtype: torch.dtype, folder: Path, reference_model: WhisperForConditionalGeneration
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    model = load_backbone(folder).model
    assert model.decoder.ln.weight.dtype == torch.float32
    assert_equal_logits(model, reference_model, atol=0.3)


def test_loads_shards(folder: Path, reference_model: WhisperForConditionalGeneration) -> None:
    (folder / "model.safetensors").unlink()
    reference_model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    assert_equal_logits(load_backbone(folder).model, reference_model)
    shard = sorted(folder.glob("model-0*"))[1]
    shard.unlink()
    assert failure(folder) == f"{shard}: missing; download the model again"


def test_loads_the_bare_model_without_its_prefix(
    folder: Path, reference_model: WhisperForConditionalGeneration
) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({k.removeprefix("model."): v for k, v in tensors.items()}, folder / "model.safetensors")
    assert_equal_logits(load_backbone(folder).model, reference_model)


def test_output_projection_may_be_stored_if_it_is_the_embedding(folder: Path) -> None:
    embedding = load_file(folder / "model.safetensors")["model.decoder.embed_tokens.weight"]
    edit_tensors(folder, proj_out__weight=embedding.clone())
    load_backbone(folder)
    edit_tensors(folder, proj_out__weight=embedding + 1)
    assert "proj_out.weight is not the token embedding" in failure(folder)


def test_reads_generation_config(folder: Path) -> None:
    heads = [[1, 0], [2, 3]]
    path = folder / "generation_config.json"
    edit_json(path, alignment_heads=heads, suppress_tokens=[1, 2], begin_suppress_tokens=[220, 400])
    backbone = load_backbone(folder)
    assert backbone.alignment_heads == ((1, 0), (2, 3))
    assert backbone.suppress_tokens == (1, 2)
    assert backbone.begin_suppress_tokens == (220, 400)
    path.unlink()  # before generation_config.json, these stood in config.json
    edit_json(folder / "config.json", suppress_tokens=[7], begin_suppress_tokens=[8])
    backbone = load_backbone(folder)
    assert (backbone.suppress_tokens, backbone.begin_suppress_tokens) == ((7,), (8,))
    assert backbone.alignment_heads == ()


def test_reads_the_audio_context(folder: Path) -> None:
    edit_json(folder / "config.json", lora_whisper={"audio_context": "dynamic"})
    assert load_backbone(folder).audio_context == "dynamic"
    edit_json(folder / "config.json", lora_whisper={"audio_context": "short"})
    assert "audio_context is 'short'" in failure(folder)


def test_real_vocabulary_of_large_v3(tmp_path: Path) -> None:
    theirs = reference(16, 2, (1, 1), vocab_size=51_866, max_source_positions=30, num_mel_bins=128)
    theirs.save_pretrained(tmp_path)
    backbone = load_backbone(write_folder(tmp_path, 100))
    assert backbone.tokenizer.no_timestamps == 50364
    assert_equal_logits(backbone.model, theirs)


def test_fingerprint_is_the_same_in_half_precision_and_changes_with_one_weight(
    backbone: Backbone, tmp_path: Path
) -> None:
    assert backbone.fingerprint.startswith("sha256:")
    assert len(backbone.fingerprint) == len("sha256:") + 16
    for dtype in (torch.float16, torch.float32):
        save_backbone(backbone, tmp_path / "copy", dtype)
        assert load_backbone(tmp_path / "copy").fingerprint == backbone.fingerprint
    weight = backbone.model.encoder.blocks[1].attn.out.weight
    weight[0, 0] += 0.01
    assert weights_fingerprint(backbone.model) != backbone.fingerprint


def test_fingerprint_does_not_count_adapters(backbone: Backbone) -> None:
    from lora_whisper.lora.layers import LoRALinear

    attention = backbone.model.encoder.blocks[0].attn
    attention.query = LoRALinear.from_linear(attention.query)
    assert weights_fingerprint(backbone.model) == load_backbone(backbone.name).fingerprint


@pytest.fixture
def own(backbone: Backbone) -> Backbone:
    """A backbone that uses all its fields."""
    return Backbone(
        backbone.model,
        backbone.tokenizer,
        name="own",
        audio_context="dynamic",
        alignment_heads=((1, 2), (2, 0)),
        suppress_tokens=(3, 4),
        begin_suppress_tokens=(5,),
    )


def test_saved_folder_comes_back(own: Backbone, tmp_path: Path) -> None:
    save_backbone(own, tmp_path / "saved", torch.float32)
    again = load_backbone(tmp_path / "saved")
    fields = ("audio_context", "alignment_heads", "suppress_tokens", "begin_suppress_tokens")
    assert [getattr(again, field) for field in fields] == [getattr(own, field) for field in fields]
    assert again.model.dims == own.model.dims
    for name, parameter in own.model.named_parameters():
        assert torch.equal(parameter, again.model.get_parameter(name)), name


def test_saved_folder_loads_in_transformers(
    own: Backbone, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_backbone(own, tmp_path / "saved")
    capfd.readouterr()
    theirs, info = WhisperForConditionalGeneration.from_pretrained(
        tmp_path / "saved", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), info
    assert "MISSING" not in "".join(capfd.readouterr())
    assert_equal_logits(load_backbone(tmp_path / "saved").model, theirs.eval())
    assert (theirs.config.decoder_start_token_id, theirs.config.eos_token_id) == (
        own.tokenizer.sot,
        own.tokenizer.eot,
    )
    generation = theirs.generation_config
    assert generation.lang_to_id["<|pl|>"] == own.tokenizer.language_token("pl")
    assert generation.task_to_id["transcribe"] == own.tokenizer.transcribe
    assert generation.no_timestamps_token_id == own.tokenizer.no_timestamps
    assert generation.alignment_heads == [[1, 2], [2, 0]]
    assert generation.is_multilingual


def test_transformers_generates_our_greedy_tokens(own: Backbone, tmp_path: Path) -> None:
    only_text = tuple(range(own.tokenizer.eot, N_VOCAB))
    save_backbone(replace(own, suppress_tokens=only_text, begin_suppress_tokens=()), tmp_path / "saved")
    theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert WhisperProcessor.from_pretrained(tmp_path / "saved").feature_extractor.feature_size == 16
    mel, _ = sample(own.model.dims)
    generated = theirs.generate(mel, language="pl", task="transcribe", max_new_tokens=6)
    model = load_backbone(tmp_path / "saved").model
    tokens = torch.tensor([own.tokenizer.start_sequence("pl")] * 2)
    with torch.inference_mode():
        for _ in range(6):
            best = model(mel, tokens)[:, -1:, : own.tokenizer.eot].argmax(-1)
            tokens = torch.cat([tokens, best], 1)
    assert torch.equal(generated[:, -6:], tokens[:, -6:])


def test_failed_save_leaves_the_old_folder(
    own: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(own, tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_backbone(own, tmp_path / "saved")
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_missing_unexpected_and_misshapen_tensors_are_one_line(folder: Path) -> None:
    edit_tensors(
        folder,
        model__decoder__layer_norm__weight=None,
        model__encoder__conv1__bias=torch.zeros(31),
        model__encoder__extra__weight=torch.zeros(2),
    )
    message = failure(folder)
    assert message.startswith(f"{folder}: tensors do not fit config.json: ")
    assert "1 missing (model.decoder.layer_norm.weight)" in message
    assert "1 unexpected (model.encoder.extra.weight)" in message
    assert "1 of wrong shape (model.encoder.conv1.bias is (31,), should be (32,))" in message


def test_config_of_another_size(folder: Path) -> None:
    edit_json(folder / "config.json", encoder_layers=1, decoder_layers=4)
    message = failure(folder)
    assert "24 missing" in message
    assert "15 unexpected" in message
    assert len(message) < 1000


@pytest.mark.parametrize("keep", [0, 5, 1000, -1], ids=["empty", "length", "header", "last byte"])
def test_truncated_weights(keep: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert failure(folder).startswith(f"{path}: damaged or cut off (")


def test_weights_that_are_no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"this is not a header")
    assert "damaged" in failure(folder)


def test_weights_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "model.safetensors: missing; save the model as safetensors" in failure(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', not 'whisper'"),
        ({"d_model": None}, "d_model is None; it must be a positive integer"),
        ({"encoder_layers": "4"}, "encoder_layers is '4'; it must be a positive integer"),
        ({"encoder_attention_heads": 5}, "d_model 32 is no multiple of 5 heads"),
        ({"scale_embedding": True}, "only Whisper's own gelu"),
        ({"vocab_size": 1500}, f"the tokenizer has {N_TOKENS} tokens, config.json only 1500"),
    ],
)
def test_config_that_does_not_do(changes: dict[str, object], expected: str, folder: Path) -> None:
    edit_json(folder / "config.json", **changes)
    assert expected in failure(folder)


@pytest.mark.parametrize(("text", "expected"), [("{", "cannot be read"), ("[1]", "not a JSON object")])
def test_damaged_config(text: str, expected: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert expected in failure(folder)
    (folder / "config.json").unlink()
    assert "config.json: missing" in failure(folder)


def test_english_only_whisper(folder: Path) -> None:
    edit_json(folder / "generation_config.json", is_multilingual=False)
    assert "English-only" in failure(folder)


def test_no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    assert "no tokenizer (vocab.json is missing)" in failure(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    assert "no such folder; give one, a Hub name" in failure(tmp_path / "not" / "there")
    (tmp_path / "file").write_text("x")
    assert "is a folder" in failure(tmp_path / "file")


def test_hub_name_is_downloaded_without_other_formats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls = []

    def download(name: str, allow_patterns: list[str]) -> str:
        calls.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_backbone("openai/whisper-small").name == "openai/whisper-small"
    ((name, patterns),) = calls
    assert name == "openai/whisper-small"
    kept = huggingface_hub.utils.filter_repo_objects(
        [
            "config.json",
            "flax_model.msgpack",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model.fp32-00001-of-00002.safetensors",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "tf_model.h5",
        ],
        allow_patterns=patterns,
    )
    assert list(kept) == [
        "config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
    ]


def test_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = failure("nobody/no-whisper-here")
    assert message.startswith(
        "nobody/no-whisper-here: no such folder, and not available from the Hugging Face Hub ("
    )


def test_bundled_backbone_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.importlib.resources, "files", lambda package: tmp_path)
    assert "the bundled backbone is missing" in failure("mini")


def test_bundled_backbone_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package" / "assets").mkdir(parents=True)
    folder.rename(tmp_path / "package" / "assets" / "mini")
    monkeypatch.setattr(checkpoint.importlib.resources, "files", lambda package: tmp_path / "package")
    assert load_backbone("mini").name == "mini"


def test_device_that_is_not_there(folder: Path) -> None:
    for device in ("cuda:99", "gpu"):
        with pytest.raises(UsageError, match=f"device '{device}' cannot be used"):
            load_backbone(folder, device)


def test_checkpoint_errors_are_ours() -> None:
    assert issubclass(CheckpointError, LoraWhisperError)


def test_float32_weights_stay_mapped_but_writing_them_spares_the_file(folder: Path) -> None:
    model, before = load_backbone(folder).model, (folder / "model.safetensors").read_bytes()
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(folder / "model.safetensors") in maps.read_text()
    for parameter in model.parameters():
        parameter.add_(1)
    assert (folder / "model.safetensors").read_bytes() == before


def test_suppressed_tokens_beyond_the_vocabulary_are_dropped(folder: Path) -> None:
    edit_json(folder / "generation_config.json", suppress_tokens=[-1, 7, 60_000], begin_suppress_tokens=None)
    backbone = load_backbone(folder)
    assert backbone.suppress_tokens == (7,)
    assert backbone.begin_suppress_tokens == (220,)  # transformers' default in config.json, less its 50256


def test_a_rounded_backbone_is_the_same_one() -> None:
    """Adapters that were trained on the weights before they were rounded must fit."""
    exact, rounded = load_backbone("mini"), load_backbone("mini", precision="bf16")
    assert {parameter.dtype for parameter in rounded.model.parameters()} == {torch.bfloat16}
    assert rounded.fingerprint == exact.fingerprint
