"""Backbones on disk: Hugging Face's Whisper layout in and out, names theirs ↔ ours, the fingerprint."""

import hashlib
import importlib.resources
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_whisper.audio import AudioContext
from lora_whisper.errors import CheckpointError, OutputError, UsageError
from lora_whisper.files import replaced_folder, write_json
from lora_whisper.memory import keep_freed_memory
from lora_whisper.model.configuration import (
    audio_context,
    dimensions,
    generation_config,
    known_tokens,
    model_config,
    preprocessor_config,
)
from lora_whisper.model.few_bits import keep_in_few_bits
from lora_whisper.model.tokenizer import Tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper

Precision = Literal["fp32", "bf16"]

MINI = "mini"
"""Name of the bundled backbone."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHARD_INDEX = "model.safetensors.index.json"
_HUB_FILES = ("model.safetensors", "model-*-of-*.safetensors", "*.json", "*.txt")

_TO_HUGGINGFACE = {
    "blocks": "layers",
    "attn": "self_attn",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn": "encoder_attn",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "mlp_ln": "final_layer_norm",
    "ln_post": "layer_norm",
    "ln": "layer_norm",
    "token_embedding": "embed_tokens",
    "positional_embedding": "embed_positions",
}
_TO_OURS = {theirs: ours for ours, theirs in _TO_HUGGINGFACE.items()}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen Whisper and what is needed to decode with it.

    Attributes:
        model: all parameters frozen, in eval mode.
        tokenizer: its vocabulary.
        name: what it was loaded by: a Hub name, a folder, or "mini".
        audio_context: "dynamic" if it was trained on windows as long as the speech, "full" (30 s) otherwise.
        alignment_heads: (decoder layer, head) pairs whose attention follows the audio.
        suppress_tokens: never sampled (sound effects, brackets).
        begin_suppress_tokens: not sampled as the first token (blank, end).
        bits: in how many its weights are kept, if in few (8 or 4).
    """

    model: Whisper
    tokenizer: Tokenizer
    name: str
    audio_context: AudioContext = "full"
    alignment_heads: tuple[tuple[int, int], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bits: int | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the weights when first asked for; `weights_fingerprint` reads them anew."""
        return weights_fingerprint(self.model)


def weights_fingerprint(model: Whisper, changing: Iterable[nn.Parameter] = ()) -> str:
    """Identity of a model's weights, `sha256:` and 16 hex digits, adapters not counted.

    Values enter as float16, so that the float32 and float16 copies of a checkpoint count as the same weights.

    Args:
        model: whose weights.
        changing: of these, names and shapes count and values do not.
    """
    digest, skipped = hashlib.sha256(), set(map(id, changing))
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        if id(parameter) not in skipped:
            digest.update(parameter.detach().to("cpu", torch.float16).contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()[:16]}"


def huggingface_name(name: str) -> str:
    """Hugging Face's name of our parameter or module: `decoder.ln` gives `model.decoder.layer_norm`."""
    parts = (_TO_HUGGINGFACE.get(part, part) for part in name.split(".") if part != "mlp")
    return "model." + ".".join(parts) + (".weight" if name.endswith("positional_embedding") else "")


def our_name(name: str) -> str:
    """Our name of Hugging Face's parameter or module, with or without the leading `model.`."""
    theirs = name.removeprefix("model.").replace("embed_positions.weight", "embed_positions")
    ours = ".".join(_TO_OURS.get(part, part) for part in theirs.split("."))
    return re.sub(r"\.(fc[12])\b", r".mlp.\1", ours).replace("encoder.ln.", "encoder.ln_post.")


def load_backbone(
    name: str | Path,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    bits: int | None = None,
) -> Backbone:
    """A frozen backbone.

    Args:
        name: a folder in Hugging Face's Whisper layout, a name on the Hugging Face Hub, or "mini".
        device: where the weights go.
        precision: of its weights and of all that is computed with them; adapters are merged in float32.
        bits: 8 or 4: keep the weights of linear layers in so many, for a small GPU. They are rounded.

    Raises:
        CheckpointError: it is not to be found, incomplete, damaged, or no multilingual Whisper.
        UsageError: there is no such device, or no such number of bits.
        MissingExtra: few bits are asked for, and bitsandbytes is not installed.
    """
    keep_freed_memory()
    folder = _find(str(name))
    config = _read_json(folder / "config.json")
    dims = dimensions(config, folder)
    generation = _read_json(folder / "generation_config.json", optional=True)
    if generation.get("is_multilingual") is False:
        raise CheckpointError(f"{name}: an English-only Whisper; take the multilingual one (without .en)")
    tokenizer = Tokenizer.load(folder)
    if tokenizer.n_vocab > dims.n_vocab:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.n_vocab} tokens, config.json only {dims.n_vocab}; "
            "these files do not belong together"
        )
    suppressed = config | generation  # checkpoints of 2022 have no generation_config.json
    backbone = Backbone(
        model=_load_model(folder, dims),
        tokenizer=tokenizer,
        name=str(name),
        audio_context=audio_context(config, folder),
        alignment_heads=tuple((layer, head) for layer, head in generation.get("alignment_heads") or ()),
        suppress_tokens=known_tokens(suppressed.get("suppress_tokens"), dims),
        begin_suppress_tokens=known_tokens(suppressed.get("begin_suppress_tokens"), dims),
        bits=bits,
    )
    if precision == "bf16" or bits:
        _ = backbone.fingerprint  # that of the weights before they are rounded
    if precision == "bf16":
        backbone.model.to(torch.bfloat16)
    _to_device(backbone.model, device, bits)
    return backbone


def save_backbone(backbone: Backbone, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a backbone as a Hugging Face Whisper folder, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    with replaced_folder(folder) as new:
        write_json(new / "config.json", model_config(backbone, dtype))
        write_json(new / "generation_config.json", generation_config(backbone))
        write_json(new / "preprocessor_config.json", preprocessor_config(backbone.model.dims))
        backbone.tokenizer.save(new)
        tensors = {
            huggingface_name(name): parameter.detach().to("cpu", dtype).contiguous()
            for name, parameter in backbone.model.named_parameters()
        }
        try:
            save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{folder}: the weights cannot be written ({error})") from None


def _find(name: str) -> Path:
    """Folder of a backbone, downloaded if it is on the Hub."""
    if name == MINI:
        folder = Path(str(importlib.resources.files("lora_whisper"))) / "assets" / MINI
        if not (folder / "config.json").exists():
            raise CheckpointError(f"{folder}: the bundled backbone is missing; install lora-whisper again")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{name}: a backbone is a folder in Hugging Face's layout, not a file")
    if not _HUB_NAME.fullmatch(name):
        raise CheckpointError(
            f"{name}: no such folder; give one, a Hub name such as openai/whisper-small, or {MINI}"
        )
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # noqa: BLE001  (whatever the network stack raises, the remedy is the same)
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(
            f"{name}: no such folder, and not available from the Hugging Face Hub ({reason}); "
            "check the name and the network, or give a local folder"
        ) from None


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return {}
        raise CheckpointError(
            f"{path}: missing; a backbone is a Whisper folder in Hugging Face's layout"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); download the model again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object; download the model again")
    return value


def _load_model(folder: Path, dims: ModelDimensions) -> Whisper:
    """The model with the folder's weights, without ever holding them twice."""
    with torch.device("meta"):
        model = Whisper(dims)
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        tensors |= _read_tensors(path)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    output = tensors.pop("proj_out.weight", None)
    _check(tensors, expected, folder)
    state = {our_name(name): tensor for name, tensor in tensors.items()}
    if output is not None and not torch.equal(output, state["decoder.token_embedding.weight"]):
        raise CheckpointError(
            f"{folder}: proj_out.weight is not the token embedding; Whisper's output is tied to it"
        )
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def _weight_files(folder: Path) -> list[Path]:
    whole = folder / "model.safetensors"
    if whole.exists():
        return [whole]
    if not (folder / _SHARD_INDEX).exists():
        raise CheckpointError(
            f"{whole}: missing; save the model as safetensors (save_pretrained of transformers does)"
        )
    index = _read_json(folder / _SHARD_INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{folder / _SHARD_INDEX}: no weight_map in it; download the model again")
    return [folder / str(file) for file in sorted(set(index.values()))]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file in float32; those stored so stay mapped from the file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; download the model again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged or cut off ({error}); download the model again") from None


def _check(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Raise one CheckpointError that names all tensors that are not as expected."""
    shapes = {our_name(name): tuple(tensor.shape) for name, tensor in tensors.items()}
    missing = [huggingface_name(name) for name in expected if name not in shapes]
    unexpected = [name for name in tensors if our_name(name) not in expected]
    wrong = [
        f"{huggingface_name(name)} is {shapes[name]}, should be {shape}"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of wrong shape": wrong}
    parts = [f"{len(names)} {fault} ({_some(names)})" for fault, names in faults.items() if names]
    if parts:
        raise CheckpointError(
            f"{folder}: tensors do not fit config.json: {', '.join(parts)}; download the model again"
        )


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return "; ".join(names[:most]) + ("; …" if len(names) > most else "")


def _to_device(model: Whisper, device: torch.device | str, bits: int | None) -> None:
    try:
        if bits:
            keep_in_few_bits(model, bits, device)
        else:
            model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that CUDA is compiled in
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"device {str(device)!r} cannot be used ({reason}); try cpu") from None
