"""A tiny random Whisper that writes letters, ends at different times, and is changed by each adapter."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LINEAR, LoRAConfig
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.tokenizer import Tokenizer, train_tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper

CODES = ("en", "pl", "it", "cy", "zh")
MAX_TOKENS = 24
_LETTERS = (*range(32, 58), *range(64, 90))  # A to Z, a to z


@cache
def toy_tokenizer() -> Tokenizer:
    return train_tokenizer(["ala ma kota a kot ma ale"] * 4, 280, CODES)


def toy_backbone(audio_context: str = "dynamic", max_tokens: int = MAX_TOKENS) -> Backbone:
    """A new one at each call, always the same weights."""
    tokenizer = toy_tokenizer()
    dims = ModelDimensions(8, 1500, 32, 4, 2, tokenizer.n_vocab, 2 * max_tokens, 32, 4, 2)
    model = Whisper(dims).initialise(seed=0).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.mul_(8)
    model.decoder.token_embedding.weight[tokenizer.eot] *= 1.5  # or nothing would ever end
    silent = tuple(token for token in range(tokenizer.eot) if token not in _LETTERS)
    return Backbone(model, tokenizer, "toy", audio_context, suppress_tokens=silent)


def toy_bank(backbone: Backbone, ranks: dict[str, int], modules: tuple[str, ...] = LINEAR) -> AdapterBank:
    """Adapters with random B: each changes what is heard."""
    bank = AdapterBank(backbone)
    for number, (tag, rank) in enumerate(ranks.items()):
        adapter = bank.add(tag, LoRAConfig(rank, float(rank), modules), seed=number)
        generator = torch.Generator().manual_seed(number)
        for part in adapter.parts.values():
            part.b.data.normal_(std=0.5, generator=generator)
    return bank


def toy_speech(duration_s: float, seed: int) -> NDArray[np.float32]:
    """Noise that changes its colour ten times a second, (n_samples,)."""
    random = np.random.default_rng(seed)
    n_samples = round(duration_s * SAMPLE_RATE)
    pitch = np.repeat(random.uniform(100, 4000, n_samples // 1600 + 1), 1600)[:n_samples]
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
    return (0.3 * tone + 0.02 * random.standard_normal(n_samples)).astype(np.float32)
