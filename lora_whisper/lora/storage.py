"""Adapter folders: PEFT's own layout, and beside it what PEFT has no place for.

    adapter_config.json        PEFT's LoraConfig
    adapter_model.safetensors  base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight …
    lora_whisper.json          AdapterInfo, the fingerprint of the tensors, a checksum that is quick to verify
    gates.safetensors          learned weights of a mixture of experts, by our names: `….gate`

In memory the same tensor is called `encoder.blocks.0.attn.query.a`, (R, in), and its partner `….b`, (out, R).
The same adapter always gives the same bytes.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lora_whisper.errors import AdapterError, LoraWhisperError, OutputError
from lora_whisper.files import replaced_folder, write_json
from lora_whisper.languages import normalize_tag
from lora_whisper.lora.adapter import (
    AdapterInfo,
    Expert,
    Source,
    check_finite,
    is_finite,
    module_kind,
    tensors_fingerprint,
)
from lora_whisper.lora.parts import CONVOLUTIONS, LINEAR, MODULES, LoRAConfig
from lora_whisper.lora.tensor_file import TensorFile, read_tensor_file
from lora_whisper.model.checkpoint import huggingface_name, our_name
from lora_whisper.model.layers import KERNEL

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
INFO_FILE = "lora_whisper.json"
GATES_FILE = "gates.safetensors"
FORMAT = 1

_PEFT_LEAVES = {"a": "lora_A.weight", "b": "lora_B.weight"}
_PEFT_PREFIX = "base_model.model."
_GATE = ".gate"

# What PEFT can add to a LoRA; every other key is about training or about where the adapter goes.
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "loftq_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
)
# Ways to start that change the weights below the adapter.
_BACKBONE_CHANGING_STARTS = ("pissa", "olora", "loftq", "corda", "lora_ga")


@dataclass(frozen=True)
class Description:
    """What the JSON files of an adapter folder say.

    Attributes:
        folder: the folder.
        config: the adapter's shape, as far as PEFT's configuration tells it.
        info: what it is; None for a folder that PEFT wrote.
        fingerprint: of its tensors, as recorded.
        checksum: of its files, as recorded: only for finite tensors, and not by older versions.
    """

    folder: Path
    config: LoRAConfig
    info: AdapterInfo | None = None
    fingerprint: str | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class StoredAdapter:
    """The tensors of an adapter folder in float32, their shape, and the checksum of the files."""

    config: LoRAConfig
    tensors: dict[str, Tensor]
    checksum: str


def adapter_folders(root: Path) -> list[Path]:
    """Folders directly under `root` that hold an adapter, whole or damaged, sorted by name."""
    files = (path for name in (CONFIG_FILE, TENSORS_FILE, INFO_FILE) for path in root.glob(f"*/{name}"))
    return sorted({path.parent for path in files if not path.parent.name.startswith(".")})


def write_adapter(
    folder: Path,
    config: LoRAConfig,
    info: AdapterInfo,
    tensors: Mapping[str, Tensor],
    modules: Collection[str],
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The folder, written whole or not at all.

    Args:
        folder: new, empty, or an older adapter, which is replaced.
        config: the adapter's shape.
        info: what it is.
        tensors: its values, by our names.
        modules: paths of all adaptable layers of the backbone.
        dtype: of the tensors in the file.

    Raises:
        OutputError: `folder` cannot be written or holds something else.
    """
    occupied = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if occupied and not (folder / CONFIG_FILE).exists():
        raise OutputError(f"{folder}: exists and is not an adapter; choose another output folder")
    stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    gates = {name: tensor for name, tensor in stored.items() if name.endswith(_GATE)}
    named = {_peft_name(name): _as_in_peft(name, one) for name, one in stored.items() if name not in gates}
    described = {"format": FORMAT, **asdict(info)}
    fingerprint = described["fingerprint"] = tensors_fingerprint(config, stored, info.experts)
    with replaced_folder(folder) as temporary:
        try:
            save_file(named, temporary / TENSORS_FILE, metadata={"format": "pt"})
            if gates:
                save_file(gates, temporary / GATES_FILE)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{folder}: cannot be written ({error}); is the disk full?") from None
        if all(map(is_finite, stored.values())):
            files = _read_files(temporary, gated=bool(gates))
            described["checksum"] = _checksum(files, Description(folder, config, info, fingerprint))
        write_json(temporary / CONFIG_FILE, _peft_config(config, info, stored.keys() - gates.keys(), modules))
        write_json(temporary / INFO_FILE, described)
    return folder


def describe_adapter(folder: Path) -> Description:
    """What the adapter in `folder`, ours or PEFT's, is; its tensors are not read.

    Raises:
        AdapterError: a JSON file is missing or damaged, or tells of more than a plain LoRA.
    """
    config = _lora_config(folder / CONFIG_FILE, _read_json(folder / CONFIG_FILE))
    if not (folder / INFO_FILE).exists():
        return Description(folder, config)
    values = _read_json(folder / INFO_FILE)
    info = _adapter_info(folder / INFO_FILE, values)
    return Description(folder, config, info, values.get("fingerprint"), values.get("checksum"))


def read_adapter(
    described: Description,
    modules: Collection[str],
    device: torch.device | str = "cpu",
    thorough: bool = False,
) -> StoredAdapter:
    """The adapter that was described, in memory of its own.

    Args:
        described: its folder and what it should hold.
        modules: paths of all adaptable layers of the backbone.
        device: where its tensors go.
        thorough: compute the fingerprint even where the checksum is right.

    Raises:
        AdapterError: a file is missing or damaged, or holds more than a plain LoRA of these layers.
    """
    folder, info = described.folder, described.info
    gated = info is not None and bool(info.experts) and info.gating != "fixed"
    files = _read_files(folder, gated, device)
    tensors = _our_tensors(folder / TENSORS_FILE, files[0], modules)
    if not tensors and not (info and info.experts):
        raise AdapterError(f"{folder / TENSORS_FILE}: holds no tensors; restore it from a copy")
    config = replace(described.config, modules=_modules(name.rpartition(".")[0] for name in tensors))
    for file in files[1:]:
        tensors |= {name: tensor.to(torch.float32) for name, tensor in file.tensors.items()}
    checksum = _checksum(files, described)
    if checksum != described.checksum or thorough:
        _check(described, config, tensors)
    return StoredAdapter(config, tensors, checksum)


def _check(described: Description, config: LoRAConfig, tensors: Mapping[str, Tensor]) -> None:
    """Whether these are the tensors that were described, and sound.

    Raises:
        AdapterError: they are not.
    """
    info = described.info
    if info and described.fingerprint != tensors_fingerprint(config, tensors, info.experts):
        raise AdapterError(
            f"{described.folder}: tensors or configuration are not those that {INFO_FILE} describes; "
            "the adapter is damaged or was edited: restore it from a copy"
        )
    check_finite(tensors, str(described.folder))


def _read_files(folder: Path, gated: bool, device: torch.device | str = "cpu") -> list[TensorFile]:
    names = [TENSORS_FILE, GATES_FILE] if gated else [TENSORS_FILE]
    return [read_tensor_file(folder / name, device) for name in names]


def _checksum(files: Collection[TensorFile], described: Description) -> str:
    """One checksum of all that the fingerprint covers, and of the fingerprint."""
    info, config = described.info, described.config
    digest = hashlib.sha256(f"{described.fingerprint} {config.rank} {float(config.alpha)!r}".encode())
    for expert in info.experts if info else ():
        digest.update(f"{expert.fingerprint} {expert.weight!r}".encode())
    for file in files:
        digest.update(file.checksum.encode())
    return digest.hexdigest()


def _as_in_peft(name: str, tensor: Tensor) -> Tensor:
    """The tensor as PEFT shapes it: of a convolution, A is (R, in, kernel) and B (out, R, 1)."""
    path, _, leaf = name.rpartition(".")
    if module_kind(path) not in CONVOLUTIONS:
        return tensor
    return tensor.unflatten(1, (-1, KERNEL)) if leaf == "a" else tensor.unsqueeze(2)


def _peft_name(name: str) -> str:
    path, _, leaf = name.rpartition(".")
    return f"{_PEFT_PREFIX}{huggingface_name(path)}.{_PEFT_LEAVES[leaf]}"


def _peft_config(
    config: LoRAConfig, info: AdapterInfo, names: Collection[str], modules: Collection[str]
) -> dict[str, Any]:
    """Values of PEFT's `LoraConfig`; what is not listed has PEFT's default."""
    paths = {name.rpartition(".")[0] for name in names}
    kinds = {module_kind(path) for path in paths}
    targets = {huggingface_name(path) for path in paths}
    if paths == {path for path in modules if module_kind(path) in kinds}:
        targets = {target.rpartition(".")[2] for target in targets}  # short: every layer so called
    alpha = config.alpha
    return {
        "auto_mapping": {
            "base_model_class": "WhisperForConditionalGeneration",
            "parent_library": "transformers.models.whisper.modeling_whisper",
        },
        "base_model_name_or_path": info.backbone,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": config.dropout,
        "peft_type": "LORA",
        "r": config.rank,
        "target_modules": sorted(targets),
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing; pass a folder that holds one adapter") from None
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise AdapterError(f"{path}: not JSON ({error}); restore it from a copy") from None
    if not isinstance(values, dict):
        raise AdapterError(f"{path}: not a JSON object; restore it from a copy")
    return values


@lru_cache(maxsize=4)
def _our_names(modules: tuple[str, ...]) -> dict[str, str]:
    """PEFT's names of all tensors that an adapter can have → ours."""
    return {_peft_name(f"{path}.{leaf}"): f"{path}.{leaf}" for path in modules for leaf in _PEFT_LEAVES}


def _our_tensors(path: Path, file: TensorFile, modules: Collection[str]) -> dict[str, Tensor]:
    """Tensors of the file under our names, float32."""
    ours = _our_names(tuple(modules))
    tensors = {}
    for key, tensor in file.tensors.items():
        full_key = key.replace(_PEFT_PREFIX, f"{_PEFT_PREFIX}model.", 1)  # PEFT around a bare WhisperModel
        name = ours.get(key) or ours.get(full_key)
        if name is None:
            raise AdapterError(f"{path}: {key} does not belong to a LoRA of this backbone")
        tensors[name] = tensor.flatten(1).to(torch.float32)  # factors of convolutions are matrices to us
    return tensors


def _lora_config(path: Path, values: Mapping[str, Any]) -> LoRAConfig:
    """Our configuration from PEFT's; the modules are those that it lists, if it does.

    Raises:
        AdapterError: it is not a plain LoRA.
    """
    _check_plain_lora(path, values)
    targets = values.get("target_modules")
    try:
        rank, alpha = int(values["r"]), float(values["lora_alpha"])
        dropout = float(values.get("lora_dropout") or 0.0)
        if values.get("use_rslora"):
            alpha *= rank**0.5  # rank-stabilised: α/√r in place of α/r
        modules = _modules(map(our_name, map(str, targets if isinstance(targets, list) else ())))
        return LoRAConfig(rank, alpha, modules, dropout)
    except (KeyError, TypeError, ValueError, LoraWhisperError) as error:
        raise AdapterError(f"{path}: not a LoRA configuration ({error!r}); restore it from a copy") from None


def _modules(paths: Iterable[str]) -> tuple[str, ...]:
    """Which of `MODULES` these layers are; the linear ones without any, as for experts alone."""
    kinds = {module_kind(path) for path in paths}
    return tuple(kind for kind in MODULES if kind in kinds) or LINEAR


def _check_plain_lora(path: Path, values: Mapping[str, Any]) -> None:
    if values.get("peft_type") != "LORA":
        raise AdapterError(
            f"{path}: peft_type is {values.get('peft_type')!r}; only LORA adapters can be loaded"
        )
    found = [key for key in _UNSUPPORTED if values.get(key)]
    if values.get("bias", "none") != "none":
        found.append("bias")
    if str(values.get("init_lora_weights")).lower().startswith(_BACKBONE_CHANGING_STARTS):
        found.append("init_lora_weights")
    if found:
        settings = ", ".join(f"{key}={values[key]!r}" for key in found)
        raise AdapterError(f"{path}: {settings} is not supported; train or convert it to a plain LoRA")


def _adapter_info(path: Path, values: Mapping[str, Any]) -> AdapterInfo:
    if not isinstance(values.get("format"), int) or values["format"] > FORMAT:
        raise AdapterError(f"{path}: format {values.get('format')!r} is not {FORMAT}; update lora-whisper")
    known = {entry.name: values[entry.name] for entry in fields(AdapterInfo) if entry.name in values}
    try:
        known["language"] = normalize_tag(known["language"])
        if known.get("start") is not None:
            known["start"] = Source(**known["start"])
        known["experts"] = tuple(Expert(**expert) for expert in known.get("experts", ()))
        return AdapterInfo(**known)
    except (KeyError, TypeError, AttributeError, LoraWhisperError) as error:
        raise AdapterError(f"{path}: not about an adapter ({error}); restore it from a copy") from None
