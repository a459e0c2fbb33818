"""How the bundled backbone `mini` is made: a small Whisper, trained from random weights on synthetic speech.

A connectionist temporal classification (CTC) head on the encoder helps attention to find the audio (Kim
et al. 2016, arXiv 1609.06773). It is carried from stage to stage, beside a backbone that is a plain Whisper.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_whisper.data.batching import IGNORED, Batch, FixedRows, RowEncoder
from lora_whisper.data.domains import find_domain
from lora_whisper.data.texts import TextSource
from lora_whisper.errors import UsageError
from lora_whisper.files import write_json
from lora_whisper.memory import keep_freed_memory
from lora_whisper.model.checkpoint import Backbone, load_backbone, save_backbone
from lora_whisper.model.tokenizer import Tokenizer, train_tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper
from lora_whisper.training.curriculum import Curriculum, RowFactory
from lora_whisper.training.difficulty import word_losses
from lora_whisper.training.methods import full
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.remembering import remember, remembering
from lora_whisper.training.trainer import TrainConfig, resolve_precision, train

CTC_FILE = "ctc.safetensors"
LOSSES_FILE = "word-losses.json"

_OUTPUTS = ("attn.out.", "cross_attn.out.", "mlp.fc2.")
"""What of a block adds to the residual stream."""

_MEASURED = 3
"""Every third row tells how well its words are spelled: enough of them, for a third of the time."""

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
    n_text_layer: int = 3
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


@dataclass(frozen=True)
class Stage:
    """A part of the pre-training.

    Attributes:
        curriculum: what is heard.
        config: how it is learned.
        kept: share of the weights before it in those at its end, which keeps what was known and has most of
            what was learned (Wortsman et al., WiSE-FT, arXiv 2109.01903).
        decoder_only: whether the encoder stays as it is and hears each row once: for the same time, the
            decoder reads several times as many words.
        hard_names: whether proper names come the oftener the worse the stage before, one of the decoder,
            spelled them.
        more_text_layers: blocks that the decoder gets before it, on top of those it has; they change nothing
            at first, since what they add is multiplied by zeros (Chen et al., Net2Net, arXiv 1511.05641).
    """

    curriculum: Curriculum
    config: TrainConfig
    kept: float = 0.0
    decoder_only: bool = False
    hard_names: bool = False
    more_text_layers: int = 0


def pretrain(
    recipe: Pretraining,
    stages: Sequence[Stage],
    folder: Path,
    monitor: Callable[[Path], Monitor] | None = None,
) -> Backbone:
    """Make a backbone, each stage with the weights of the one before, those of the CTC head included.

    Args:
        recipe: its geometry and vocabulary.
        stages: what it hears, in order.
        folder: stage n writes `stage-n/ctc.safetensors`, if it is one of the decoder
            `stage-n/word-losses.json`, and, when it is finished, `stage-n/backbone`;
            finished stages are not repeated, unfinished ones resumed.
        monitor: makes what is told of each step, from the folder of the stage.

    Raises:
        UsageError: there is no stage, or one of hard names does not follow one of the decoder.
    """
    for before_it, stage in zip((None, *stages), stages, strict=False):
        if stage.hard_names and not (before_it and before_it.decoder_only):
            raise UsageError("a stage of hard names needs one of the decoder before it, which measures them")
    tokenizer = train_tokenizer(_texts(recipe), recipe.n_text_tokens, recipe.languages)
    head = CTCHead(recipe.n_state, tokenizer.eot, recipe.ctc_weight, recipe.seed)
    backbone = None
    for number, stage in enumerate(stages):
        place = folder / f"stage-{number + 1}"
        if (place / "backbone").exists():
            backbone = load_backbone(place / "backbone")
            tokenizer = backbone.tokenizer
            head.load_state_dict(load_file(place / CTC_FILE))
            continue
        keep_freed_memory()
        dims = backbone.model.dims if backbone else recipe.dimensions(tokenizer.n_vocab)
        dims = replace(dims, n_text_layer=dims.n_text_layer + stage.more_text_layers)
        model = Whisper(dims).initialise(recipe.seed)
        if backbone is not None:
            _take_over(model, backbone.model)
        before = copy.deepcopy(model) if stage.kept else None
        told = monitor(place) if monitor else None
        losses = folder / f"stage-{number}" / LOSSES_FILE if stage.hard_names else None
        _train_stage(recipe, stage, recipe.seed + number, model, head, tokenizer, place, told, losses)
        save_file(head.state_dict(), place / CTC_FILE)
        if before is not None:
            _go_back(model, before, stage.kept)
        backbone = Backbone(model.requires_grad_(False).eval(), tokenizer, "mini", audio_context="dynamic")
        save_backbone(backbone, place / "backbone")
    if backbone is None:
        raise UsageError("pre-training without stages; name at least one")
    return backbone


def _train_stage(
    recipe: Pretraining,
    stage: Stage,
    seed: int,
    model: Whisper,
    head: CTCHead,
    tokenizer: Tokenizer,
    folder: Path,
    monitor: Monitor | None,
    losses: Path | None,
) -> None:
    encoder = RowEncoder(tokenizer, n_mels=80, context="dynamic", learn_prompt=True)
    dev_counts = dict.fromkeys(recipe.languages, recipe.dev_utterances)
    dev = RowFactory(stage.curriculum, "dev", seed, encoder).rows(dev_counts)
    rows = RowFactory(stage.curriculum, "train", seed, encoder, losses).rows(stage.curriculum.utterances)
    weights = token_weights(tokenizer, stage.curriculum, recipe.language_weight)
    if not stage.decoder_only:
        track = full(model, FixedRows(rows), FixedRows(dev), head, weights)
        train(model, [track], stage.config, folder / "checkpoints", monitor=monitor)
        return
    with resolve_precision(stage.config.precision, model.device)():
        remember(model, rows)
        remember(model, dev)
    with remembering(model):
        track = full(model, FixedRows(rows), FixedRows(dev), token_weights=weights)
        train(model, [track], stage.config, folder / "checkpoints", monitor=monitor)
        with resolve_precision(stage.config.precision, model.device)():
            write_json(folder / LOSSES_FILE, word_losses(model, tokenizer, rows[::_MEASURED]))


@torch.no_grad()
def _take_over(model: Whisper, before: Whisper) -> None:
    """The weights of a model with as many blocks or fewer; new ones begin as copies of the last, muted."""
    model.load_state_dict(before.state_dict(), strict=False)
    for block in model.decoder.blocks[len(before.decoder.blocks) :]:
        block.load_state_dict(before.decoder.blocks[-1].state_dict())
        for name, weight in block.named_parameters():
            if name.startswith(_OUTPUTS):
                weight.zero_()


@torch.no_grad()
def _go_back(model: Whisper, before: Whisper, share: float) -> None:
    for weight, earlier in zip(model.parameters(), before.parameters(), strict=True):
        weight.lerp_(earlier, share)


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
