"""How the bundled backbone `mini` is made: a small Whisper, trained from random weights on synthetic speech.

A connectionist temporal classification (CTC) head on the encoder helps attention to find the audio (Kim
et al. 2016, arXiv 1609.06773). It is carried from stage to stage, beside a backbone that is a plain Whisper.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_whisper.data.batching import IGNORED, Batch, FixedRows, Row, RowEncoder
from lora_whisper.data.domains import find_domain
from lora_whisper.data.texts import TextSource
from lora_whisper.errors import UsageError
from lora_whisper.memory import keep_freed_memory
from lora_whisper.model.checkpoint import Backbone, load_backbone, save_backbone
from lora_whisper.model.tokenizer import Tokenizer, train_tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper
from lora_whisper.training.ctc import ctc_loss
from lora_whisper.training.curriculum import Curriculum, RowFactory, row_makers
from lora_whisper.training.methods import Learned, full
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.trainer import TrainConfig, train

CTC_FILE = "ctc.safetensors"
CPU = torch.device("cpu")

CTC_STRIDE = 2
"""The CTC loss looks at every second encoder position: 25 a second, at half the cost."""


@dataclass(frozen=True)
class Pretraining:
    """The recipe of a backbone.

    Attributes:
        languages: Whisper codes; each gets a token.
        dev_utterances: per language, for the development loss.
        n_text_tokens: size of the vocabulary without the special tokens.
        n_state: width of encoder and decoder.
        n_audio_layer: encoder blocks.
        n_text_layer: decoder blocks.
        ctc_weight: of the encoder's auxiliary loss.
        language_weight: how much a language token counts in the loss, against 1 of any other token, in a
            language with as many rows as the mean; those with fewer rows count more in proportion.
        seed: of weights, speech and order.
    """

    languages: tuple[str, ...]
    dev_utterances: int = 50
    n_text_tokens: int = 1024
    n_state: int = 192
    n_audio_layer: int = 4
    n_text_layer: int = 4
    ctc_weight: float = 0.3
    language_weight: float = 1.0
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
        """The loss, a scalar, of encoder output (B, S, D): of the rows with text, not of the others."""
        targets, n_targets = self._text(batch.labels)
        scores = self.projection(audio[:, ::CTC_STRIDE]).float().log_softmax(-1)
        everywhere = torch.full((len(audio),), audio.shape[1], device=audio.device)
        positions = everywhere if batch.n_positions is None else batch.n_positions
        lengths = (positions + CTC_STRIDE - 1) // CTC_STRIDE
        losses = ctc_loss(scores, targets, lengths, n_targets, self.n_text_tokens)
        spoken = n_targets > 0
        return self.weight * (losses * spoken / n_targets.clamp(min=1)).sum() / spoken.sum().clamp(min=1)

    def _text(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The text tokens of each row at its start, (B, L), and how many there are, (B,)."""
        is_text = (labels != IGNORED) & (labels < self.n_text_tokens)
        places = (is_text.cumsum(1) - 1).where(is_text, labels.shape[1])  # of others: behind the end
        targets = labels.new_zeros(labels.shape[0], labels.shape[1] + 1).scatter_(1, places, labels)
        return targets[:, :-1], is_text.sum(1)


@dataclass(frozen=True)
class Stage:
    """A part of the pre-training.

    Attributes:
        curriculum: what is heard.
        config: how it is learned.
        learned: which weights learn; the CTC head only beside all of them.
    """

    curriculum: Curriculum
    config: TrainConfig
    learned: Learned = "all"


def pretrain(
    recipe: Pretraining,
    stages: Sequence[Stage],
    folder: Path,
    monitor: Callable[[Path], Monitor] | None = None,
    device: torch.device = CPU,
    kokoro: Path | None = None,
) -> Backbone:
    """Make a backbone, each stage with the weights of the one before, those of the CTC head included.

    Args:
        recipe: its geometry and vocabulary.
        stages: what it hears, in order.
        folder: stage n writes `stage-n/ctc.safetensors` and, when it is finished, `stage-n/backbone`;
            finished stages are not repeated, unfinished ones resumed.
        monitor: makes what is told of each step, from the folder of the stage.
        device: where it learns; on a GPU, the rows of the next stage are made meanwhile.
        kokoro: folder of the neural voices, if a stage hears them.

    Raises:
        UsageError: there is no stage, or a stage hears natural voices that are not there; see
            `RowFactory.rehearse` for more of these.
    """
    tokenizer = train_tokenizer(_texts(recipe), recipe.n_text_tokens, recipe.languages)
    model = Whisper(recipe.dimensions(tokenizer.n_vocab)).initialise(recipe.seed).to(device)
    head = CTCHead(recipe.n_state, tokenizer.eot, recipe.ctc_weight, recipe.seed).to(device)
    backbone = None
    keep_freed_memory()
    with Speech(recipe, stages, tokenizer, device.type != "cpu", kokoro) as speech:
        speech.rehearse()
        for number, stage in enumerate(stages):
            place = folder / f"stage-{number + 1}"
            if (place / "backbone").exists():
                backbone = load_backbone(place / "backbone")
                model.load_state_dict(backbone.model.state_dict())
                head.load_state_dict(load_file(place / CTC_FILE))
                continue
            rows, dev = speech.of_stage(number)
            weights = token_weights(tokenizer, stage.curriculum, recipe.language_weight).to(device)
            listening = head if stage.learned == "all" else None
            track = full(model, FixedRows(rows), FixedRows(dev), listening, weights, stage.learned)
            train(model, [track], stage.config, place / "checkpoints", monitor=monitor and monitor(place))
            save_file(head.state_dict(), place / CTC_FILE)
            backbone = Backbone(copy.deepcopy(model).cpu().eval(), tokenizer, "mini", audio_context="dynamic")
            save_backbone(backbone, place / "backbone")
    if backbone is None:
        raise UsageError("pre-training without stages; name at least one")
    return replace(backbone, model=backbone.model.requires_grad_(False))


class Speech:
    """Makes the rows of the stages, on all cores.

    Args:
        recipe: of the backbone.
        stages: of its pre-training.
        tokenizer: of the backbone.
        ahead: whether those of the next stage are begun as soon as one has its own: a GPU leaves cores idle.
        kokoro: folder of the neural voices, if a stage hears them.
    """

    def __init__(
        self,
        recipe: Pretraining,
        stages: Sequence[Stage],
        tokenizer: Tokenizer,
        ahead: bool,
        kokoro: Path | None = None,
    ) -> None:
        self._recipe, self._stages, self._ahead, self._kokoro = recipe, stages, ahead, kokoro
        self._encoder = RowEncoder(tokenizer, n_mels=80, context="dynamic", learn_prompt=True)
        self._coming: dict[int, Future[tuple[list[Row], list[Row]]]] = {}

    def __enter__(self) -> "Speech":
        spared = 2 if self._ahead else 0  # cores for the training itself
        self._makers = row_makers(max(1, (os.cpu_count() or 1) - spared))
        self._n_threads = torch.get_num_threads()
        if self._ahead:
            torch.set_num_threads(spared)  # more would wait for each other on cores that make rows
        self._collector = ThreadPoolExecutor(1)
        return self

    def rehearse(self) -> None:
        """See `RowFactory.rehearse`."""
        for number in range(len(self._stages)):
            self._factory(number, "train").rehearse()

    def __exit__(self, *_: object) -> None:
        self._makers.shutdown(cancel_futures=True)
        self._collector.shutdown(cancel_futures=True)
        torch.set_num_threads(self._n_threads)

    def of_stage(self, number: int) -> tuple[list[Row], list[Row]]:
        """Training and development rows of stage `number`, counted from 0."""
        coming = self._coming.pop(number, None) or self._collector.submit(self._make, number)
        rows = coming.result()
        if self._ahead and number + 1 < len(self._stages):
            self._coming[number + 1] = self._collector.submit(self._make, number + 1)
        return rows

    def _make(self, number: int) -> tuple[list[Row], list[Row]]:
        dev_counts = dict.fromkeys(self._recipe.languages, self._recipe.dev_utterances)
        dev = self._factory(number, "dev").rows(dev_counts, self._makers)
        counts = self._stages[number].curriculum.utterances
        return self._factory(number, "train").rows(counts, self._makers), dev

    def _factory(self, number: int, split: str) -> RowFactory:
        curriculum, seed = self._stages[number].curriculum, self._recipe.seed + number
        return RowFactory(curriculum, split, seed, self._encoder, self._kokoro)


def token_weights(tokenizer: Tokenizer, curriculum: Curriculum, language_weight: float) -> Tensor:
    """Weight of each token in the loss, (V,): rare languages must be told from frequent ones too."""
    weights = torch.ones(tokenizer.n_vocab)
    mean = sum(curriculum.utterances.values()) / len(curriculum.utterances)
    for tag, count in curriculum.utterances.items():
        weights[tokenizer.language_token(tag)] = language_weight * max(1.0, mean / max(count, 1))
    return weights


def _texts(recipe: Pretraining) -> Iterator[str]:
    """Training texts from which the vocabulary is learned."""
    kinds = find_domain("general").kinds
    for tag in recipe.languages:
        source = TextSource(tag, "train", kinds)
        generator = np.random.default_rng(recipe.seed)
        for _ in range(2000):
            yield " " + source.text(generator).written
