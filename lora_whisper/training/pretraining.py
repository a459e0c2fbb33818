"""How the bundled backbone `mini` is made: a small Whisper, trained from random weights on synthetic speech.

A connectionist temporal classification (CTC) head on the encoder helps attention to find the audio (Kim
et al. 2016, arXiv 1609.06773); it is dropped afterwards, so that a plain Whisper remains.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lora_whisper.audio import N_SAMPLES, SAMPLE_RATE
from lora_whisper.data.batching import IGNORED, Batch, FixedRows, Row, RowEncoder
from lora_whisper.data.domains import find_domain
from lora_whisper.data.synthetic import SyntheticSpeech
from lora_whisper.data.texts import TextSource
from lora_whisper.languages import language
from lora_whisper.model.checkpoint import Backbone, save_backbone
from lora_whisper.model.tokenizer import train_tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper
from lora_whisper.training.methods import full
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.trainer import TrainConfig, train

CHUNK = 250
"""Utterances that a worker synthesises at a time."""

CTC_STRIDE = 2
"""The CTC loss looks at every second encoder position: 25 a second, at half the cost."""


@dataclass(frozen=True)
class Pretraining:
    """The recipe of a backbone.

    Attributes:
        languages: Whisper codes; each gets a token.
        utterances: per language, for training.
        dev_utterances: per language, for the development loss.
        joined: share of rows that are two to five utterances in a row, so that long audio is known too.
        n_text_tokens: size of the vocabulary without the special tokens.
        n_state: width of encoder and decoder.
        n_audio_layer: encoder blocks.
        n_text_layer: decoder blocks.
        ctc_weight: of the encoder's auxiliary loss.
        seed: of weights, speech and order.
    """

    languages: tuple[str, ...]
    utterances: int = 5000
    dev_utterances: int = 50
    joined: float = 0.1
    n_text_tokens: int = 1024
    n_state: int = 192
    n_audio_layer: int = 4
    n_text_layer: int = 3
    ctc_weight: float = 0.3
    seed: int = 0

    def dimensions(self, n_vocab: int) -> ModelDimensions:
        """The geometry: Whisper's window, mel bins and longest text, at this size."""
        heads = self.n_state // 64
        return ModelDimensions(
            n_mels=80,
            n_audio_ctx=1500,
            n_audio_state=self.n_state,
            n_audio_head=heads,
            n_audio_layer=self.n_audio_layer,
            n_vocab=n_vocab,
            n_text_ctx=448,
            n_text_state=self.n_state,
            n_text_head=heads,
            n_text_layer=self.n_text_layer,
        )


class CTCHead(nn.Module):
    """Weighted CTC loss of the text tokens given the encoder output.

    Args:
        n_state: D.
        n_text_tokens: text tokens are 0 … n_text_tokens - 1; the blank comes after them.
        weight: of the loss.
        seed: of the initial weights.
    """

    def __init__(self, n_state: int, n_text_tokens: int, weight: float, seed: int) -> None:
        super().__init__()
        self.n_text_tokens, self.weight = n_text_tokens, weight
        self.projection = nn.Linear(n_state, n_text_tokens + 1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.projection.weight.normal_(0, 0.02, generator=generator)
            self.projection.bias.zero_()

    def forward(self, audio: Tensor, batch: Batch) -> Tensor:
        """The loss, a scalar, of encoder output (B, S, D)."""
        is_text = (batch.labels != IGNORED) & (batch.labels < self.n_text_tokens)
        scores = self.projection(audio[:, ::CTC_STRIDE]).float().log_softmax(-1).transpose(0, 1)
        everywhere = torch.full((len(audio),), audio.shape[1])
        positions = everywhere if batch.n_positions is None else batch.n_positions
        lengths = (positions + CTC_STRIDE - 1) // CTC_STRIDE
        loss = F.ctc_loss(
            scores,
            batch.labels[is_text],
            lengths,
            is_text.sum(1),
            blank=self.n_text_tokens,
            zero_infinity=True,
        )
        return self.weight * loss


def pretrain(
    recipe: Pretraining, config: TrainConfig, folder: Path, monitor: Monitor | None = None
) -> Backbone:
    """Make a backbone and write it to `folder/backbone`; an unfinished run in `folder` is resumed."""
    tokenizer = train_tokenizer(_texts(recipe), recipe.n_text_tokens, recipe.languages)
    encoder = RowEncoder(tokenizer, n_mels=80, context="dynamic", learn_prompt=True)
    dev = FixedRows(synthetic_rows(recipe, "dev", recipe.dev_utterances, encoder))
    rows = FixedRows(synthetic_rows(recipe, "train", recipe.utterances, encoder))
    model = Whisper(recipe.dimensions(tokenizer.n_vocab)).initialise(recipe.seed)
    head = CTCHead(recipe.n_state, tokenizer.eot, recipe.ctc_weight, recipe.seed)
    train(model, [full(model, rows, dev, head)], config, folder / "checkpoints", monitor=monitor)
    backbone = Backbone(model.requires_grad_(False).eval(), tokenizer, "mini", audio_context="dynamic")
    save_backbone(backbone, folder / "backbone")
    return backbone


def _texts(recipe: Pretraining) -> Iterator[str]:
    """Training texts from which the vocabulary is learned."""
    kinds = find_domain("general").kinds
    for tag in recipe.languages:
        source = TextSource(tag, "train", kinds)
        generator = np.random.default_rng(recipe.seed)
        for _ in range(min(recipe.utterances, 2000)):
            yield " " + source.text(generator).written


def synthetic_rows(recipe: Pretraining, split: str, count: int, encoder: RowEncoder) -> list[Row]:
    """`count` rows of each language, the same for the same recipe, made on all cores."""
    jobs = [
        (recipe, split, tag, range(start, min(start + CHUNK, count)), encoder)
        for tag in recipe.languages
        for start in range(0, count, CHUNK)
    ]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return [
            Row(torch.from_numpy(mel), tokens, n_prompt)
            for chunk in pool.map(_synthesise_chunk, jobs)
            for mel, tokens, n_prompt in chunk
        ]


_Job = tuple[Pretraining, str, str, range, RowEncoder]


def _synthesise_chunk(job: _Job) -> list[tuple[NDArray[np.float16], tuple[int, ...], int]]:
    """Rows of one job, as arrays: they travel between processes without shared memory."""
    recipe, split, tag, indices, encoder = job
    torch.set_num_threads(1)
    speech = SyntheticSpeech([tag], split, recipe.seed)
    rows = []
    for index in indices:
        audio, text = joined_utterance(speech, tag, index, recipe)
        row = encoder.row(audio, text, tag)
        rows.append((row.mel.numpy(), row.tokens, row.n_prompt))
    return rows


def joined_utterance(
    speech: SyntheticSpeech, tag: str, index: int, recipe: Pretraining
) -> tuple[NDArray[np.float32], str]:
    """Audio and text of one row: mostly a single utterance, sometimes up to five with pauses between."""
    generator = np.random.default_rng([recipe.seed, index])
    count = int(generator.integers(2, 6)) if generator.random() < recipe.joined else 1
    audio, text, _ = speech.utterance(tag, index)
    space = "" if language(tag).unit == "character" else " "
    for part in range(1, count):
        more, words, _ = speech.utterance(tag, 1_000_000 * part + index)
        pause = np.zeros(int(generator.uniform(0.2, 0.8) * SAMPLE_RATE), np.float32)
        if len(audio) + len(pause) + len(more) > N_SAMPLES - SAMPLE_RATE // 2:
            break
        audio, text = np.concatenate([audio, pause, more]), text + space + words
    return audio, text
