"""From adapter folders to adapters of a backbone: which there are, whether they fit, which token they use."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lora_whisper.errors import AdapterError, BackboneMismatch, UnknownLanguage
from lora_whisper.languages import normalize_tag, whisper_code
from lora_whisper.lora.adapter import Adapter, AdapterInfo, parts_from
from lora_whisper.lora.mixture import gates_from
from lora_whisper.lora.storage import Description, StoredAdapter, adapter_folders, describe_adapter
from lora_whisper.lora.updates import Adapted

if TYPE_CHECKING:
    from lora_whisper.model.checkpoint import Backbone


def described_in(root: Path) -> list[Description]:
    """What the adapters directly under `root` are, those that borrow others last; no tensors are read.

    Raises:
        AdapterError: there are none, or one cannot be described.
    """
    found = [describe_adapter(folder) for folder in adapter_folders(root)]
    if not found:
        raise AdapterError(f"{root}: no adapters there; expected folders such as {root / 'pl'}")
    return sorted(found, key=lambda one: bool(one.info and one.info.experts))


def fitting_info(
    backbone: "Backbone",
    described: Description,
    language: str | None = None,
    token_language: str | None = None,
) -> AdapterInfo:
    """What an adapter is, completed; for PEFT's folders what can be known.

    Args:
        backbone: what it should fit.
        described: the adapter.
        language: tag to hold it under; None for what the folder records (PEFT's record none).
        token_language: Whisper code of the token for it; None for what the folder records.

    Raises:
        BackboneMismatch: it was trained on another backbone.
        AdapterError: the language is not known.
        UnknownLanguage: there is no token for the language.
    """
    folder, info = described.folder, described.info
    if info is not None:
        if info.backbone_fingerprint != backbone.fingerprint:
            raise BackboneMismatch(
                f"{folder}: trained on {info.backbone} (weights {info.backbone_fingerprint}), but "
                f"{backbone.name} (weights {backbone.fingerprint}) is loaded; load the former instead"
            )
        tag = normalize_tag(language or info.language)
        token = token_for(backbone, tag, token_language or info.token_language)
        return replace(info, language=tag, token_language=token)
    if language is None:
        raise AdapterError(f"{folder}: records no language; say which one it is for")
    tag = normalize_tag(language)
    return AdapterInfo(
        language=tag,
        token_language=token_for(backbone, tag, token_language),
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        audio_context="full",  # whoever trains with transformers trains on 30 s
        seed=0,
        package_version="peft",
    )


def token_for(backbone: "Backbone", tag: str, wanted: str | None, source: AdapterInfo | None = None) -> str:
    """Whisper code of the token for a language: the wanted one, or its own, or that of what it is made from.

    Raises:
        UnknownLanguage: the backbone has none of them.
    """
    inherited = source.token_language if source else None
    for code in [wanted] if wanted else [whisper_code(tag), inherited]:
        if code is not None and code in backbone.tokenizer.languages:
            return code
    raise UnknownLanguage(
        f"{wanted or tag}: {backbone.name} has no token for it; "
        "choose the token of a similar language (token_language)"
    )


def made(
    layers: Mapping[str, Adapted],
    slot: int,
    stored: StoredAdapter,
    info: AdapterInfo,
    experts: tuple[Adapter, ...],
    where: Path,
) -> Adapter:
    """The adapter made of tensors that were read, whose memory it takes over.

    Raises:
        AdapterError: they do not fit the layers or the experts.
    """
    parts = parts_from(layers, stored.config, stored.tensors, str(where), copy=False)
    gates = gates_from(layers, stored.tensors, 1 + len(experts), str(where)) if experts else {}
    return Adapter(slot, stored.config, parts, info, experts, gates)


def attach(layers: Mapping[str, Adapted], adapter: Adapter) -> None:
    """Hand the layers their parts of an adapter, under its slot."""
    for path, part in adapter.parts.items():
        layers[path].adapters[adapter.slot] = part
    for path, gate in adapter.gates.items():
        layers[path].gates[adapter.slot] = gate


def detach(layers: Mapping[str, Adapted], adapter: Adapter) -> None:
    """Take them from the layers again."""
    for path in adapter.gates:
        layers[path].gates.pop(adapter.slot, None)
    for path in adapter.parts:
        layers[path].adapters.pop(adapter.slot, None)
