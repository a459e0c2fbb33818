"""What is measured on: models of real sizes with random weights, and speech of the lengths that FLEURS has.

Speed depends on the sizes of tensors and on how long utterances are, not on what they say. So the weights are
random, the speech is noise, the words are drawn from a vocabulary of the real size with the real special
tokens; nothing is downloaded. Both sides read the very same folders and samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from statistics import NormalDist

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, pre_tokenizers

import lora_whisper
from lora_whisper.audio import SAMPLE_RATE, AudioContext, features
from lora_whisper.data.batching import Row
from lora_whisper.languages import WHISPER_LANGUAGES
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.model.checkpoint import Backbone, load_backbone, save_backbone
from lora_whisper.model.tokenizer import N_TIMESTAMPS, TIMESTAMP_STEP_S, Tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper

LANGUAGES = ("en", "de", "es", "fr", "it", "pt", "pl", "nl")
"""Eight that every backbone here has a token for."""
LORA = LoRAConfig()
"""Rank 32 in six modules of encoder and decoder: what both sides train."""

SHORTEST_S, LONGEST_S, MEAN_S, SPREAD = 3.0, 25.0, 12.0, 0.4
"""Of the utterances: log-normal with that mean and that deviation of the logarithm, cut at both ends."""
TOKENS_PER_SECOND = 3.0
TEXT_TOKENS = 50_257
_FIRST_WORD = 256  # below stand the bytes


@dataclass(frozen=True)
class Geometry:
    """The sizes of one Whisper."""

    name: str
    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    n_mels: int = 80
    n_languages: int = 99

    @property
    def n_vocab(self) -> int:
        """Text tokens, eight special ones, languages and times."""
        return TEXT_TOKENS + 8 + self.n_languages + N_TIMESTAMPS

    @property
    def dims(self) -> ModelDimensions:
        """The same as the model wants them."""
        return ModelDimensions(
            n_mels=self.n_mels,
            n_audio_ctx=1500,
            n_audio_state=self.width,
            n_audio_head=self.heads,
            n_audio_layer=self.encoder_layers,
            n_vocab=self.n_vocab,
            n_text_ctx=448,
            n_text_state=self.width,
            n_text_head=self.heads,
            n_text_layer=self.decoder_layers,
        )


MINI, TINY, SMALL, TURBO = "mini", "tiny", "small", "large-v3-turbo"
GEOMETRIES = {
    TINY: Geometry(TINY, 384, 6, 4, 4),
    SMALL: Geometry(SMALL, 768, 12, 12, 12),
    TURBO: Geometry(TURBO, 1280, 20, 32, 4, n_mels=128, n_languages=100),
}
"""Besides the bundled `mini`, which has weights of its own."""


@dataclass(frozen=True, eq=False)
class Speech:
    """An utterance.

    Attributes:
        samples: (n_samples,) at 16 kHz.
        language: its tag.
        words: numbers that stand for the tokens of its text.
    """

    samples: NDArray[np.float32]
    language: str
    words: tuple[int, ...]

    def text(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The tokens of its text."""
        return tuple(number % tokenizer.eot for number in self.words)

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.samples) / SAMPLE_RATE


def durations_s(count: int) -> list[float]:
    """Lengths of `count` utterances as FLEURS has them, ascending: 3 to 25 s, 12 s in the mean."""
    normal = NormalDist(float(np.log(MEAN_S)) - SPREAD**2 / 2, SPREAD)
    drawn = (exp(normal.inv_cdf((place + 0.5) / count)) for place in range(count))
    return [min(max(one, SHORTEST_S), LONGEST_S) for one in drawn]


def utterances(count: int, languages: Sequence[str], seed: int = 0, length_s: float = 0.0) -> list[Speech]:
    """Utterances of noise, the languages in turns; all of one length if that is given."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation([length_s] * count if length_s else durations_s(count))
    made = []
    for number, one_s in enumerate(lengths.tolist()):
        samples = (0.1 * rng.standard_normal(round(one_s * SAMPLE_RATE))).astype(np.float32)
        words = rng.integers(_FIRST_WORD, TEXT_TOKENS, round(one_s * TOKENS_PER_SECOND))
        made.append(Speech(samples, languages[number % len(languages)], tuple(words.tolist())))
    return made


def tokenizer(n_languages: int) -> Tokenizer:
    """A tokenizer with as many text tokens as Whisper's, made-up ones, and with its special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"Ġw{number}" for number in range(TEXT_TOKENS - len(letters)))]
    backend = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|startoftranscript|>"]
    names += [f"<|{code}|>" for code in list(WHISPER_LANGUAGES)[:n_languages]]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    names += ["<|notimestamps|>", *(f"<|{i * TIMESTAMP_STEP_S:.2f}|>" for i in range(N_TIMESTAMPS))]
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return Tokenizer(backend)


def backbone_folder(name: str, root: Path) -> str:
    """The folder of a geometry's backbone under `root`, written at first use; `mini` is bundled."""
    if name == MINI:
        return str(Path(lora_whisper.__file__).parent / "assets" / MINI)
    folder = root / name
    if not (folder / "config.json").exists():
        geometry = GEOMETRIES[name]
        model = Whisper(geometry.dims).initialise(seed=0).requires_grad_(False).eval()
        model.decoder.token_embedding.weight[TEXT_TOKENS:] *= 0.01  # or times and languages would be said
        save_backbone(Backbone(model, tokenizer(geometry.n_languages), name, "dynamic"), folder)
    return str(folder)


def backbone(name: str, root: Path, device: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """A geometry's backbone on a device, in some precision, used to windows as long as the speech."""
    one = load_backbone(backbone_folder(name, root), device)
    one.model.to(dtype)
    return one


def bank_of(
    one: Backbone, languages: Sequence[str], dtype: torch.dtype = torch.float32, config: LoRAConfig = LORA
) -> AdapterBank:
    """A bank with an adapter of each language that changes what is heard, in this precision."""
    bank = AdapterBank(one)
    for seed, tag in enumerate(languages):
        generator = torch.Generator().manual_seed(seed)
        for part in bank.add(tag, config, seed=seed).parts.values():
            part.b.data.copy_(torch.empty(part.b.shape).normal_(std=1e-2, generator=generator))
            part.a.data, part.b.data = part.a.data.to(dtype), part.b.data.to(dtype)
    return bank


def merged_into(one: Backbone, bank: AdapterBank, tag: str) -> Backbone:
    """The backbone with an adapter of the bank merged into its weights."""
    return replace(one, model=bank.merge(tag))


def row_of(speech: Speech, one: Backbone, context: AudioContext = "dynamic") -> Row:
    """The utterance as our trainer reads it."""
    start = one.tokenizer.start_sequence(speech.language)
    mel = features(speech.samples, one.model.dims.n_mels, context).half()
    return Row(mel, (*start, *speech.text(one.tokenizer), one.tokenizer.eot), len(start))


class FreshRows:
    """Rows whose features are computed anew at each use, as in the first pass over a corpus."""

    def __init__(self, speech: Sequence[Speech], one: Backbone, context: AudioContext = "dynamic") -> None:
        self._speech, self._backbone, self._context = speech, one, context
        self.durations_s = [each.duration_s for each in speech]

    def row(self, index: int, epoch: int = 0) -> Row:  # noqa: ARG002  the same in all epochs
        """The row at `index`."""
        return row_of(self._speech[index], self._backbone, self._context)
