"""Folders of toy adapters, and what a bank over them computes."""

import shutil
from pathlib import Path

import torch
from torch import Tensor
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.lora.adapter import Expert, Gating
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.model.routing import Routing

RANKS = {"pl": 4, "it": 4, "cy": 4, "zh": 4}
TENSORS, INFO = "adapter_model.safetensors", "lora_whisper.json"


def adapters_folder(folder: Path) -> Path:
    """Four adapters of one size."""
    bank = toy_bank(toy_backbone(), RANKS)
    for tag in bank.tags:
        bank.save(tag, folder / tag)
    return folder


def opened(root: Path, memory_bytes: int | None = None) -> AdapterBank:
    """A bank of a new backbone that reads the adapters on demand."""
    bank = AdapterBank(toy_backbone(), memory_bytes)
    bank.open_all(root)
    return bank


def eager(root: Path) -> AdapterBank:
    """One that has read them all."""
    bank = AdapterBank(toy_backbone())
    bank.load_all(root)
    return bank


def heard(bank: AdapterBank, routing: Routing | None, rows: int) -> Tensor:
    """Logits of a batch that is always the same."""
    generator = torch.Generator().manual_seed(3)
    mel = torch.randn(rows, 8, 40, generator=generator)
    tokens = torch.randint(256, (rows, 6), generator=generator)
    with torch.inference_mode():
        return bank.backbone.model(mel, tokens, routing=routing)


def mixture_folder(root: Path, folder: Path, gating: Gating = "layer", own: bool = True) -> Path:
    """A copy of the folder with `da`, which borrows Polish and Italian."""
    bank = eager(root)
    experts = [Expert(tag, bank[tag].fingerprint, weight) for tag, weight in (("pl", 0.7), ("it", 0.3))]
    config = LoRAConfig(rank=2) if own else None
    made = bank.add_mixture("da", experts, config, gating=gating, seed=5, token_language="en")
    for number, parameter in enumerate(made.parameters()):
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(number))
    shutil.copytree(root, folder)
    bank.save("da", folder / "da")
    return folder
