"""Decoding in eight languages with faster-whisper: one merged model per language, ours un-merged beside it.

faster-whisper knows no adapters, so each language is a model of its own, converted by CTranslate2. Its work
is done by what its `BatchedInferencePipeline` calls inside, on all utterances of a language at once:
features, `pad_or_trim` to 30 s, encode, `generate`. Splitting by voice activity and putting segments together
are left out, which is faster for it.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks import peers_transformers as peers
from benchmarks.decoding import N_TOKENS, transcription
from benchmarks.measure import Row, Setting, Variant, alternate, peaks, ratio_row, require, timed
from benchmarks.workload import LANGUAGES, TINY, Speech, backbone, bank_of, merged_into, utterances
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.model.checkpoint import save_backbone

if TYPE_CHECKING:
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper

OURS, FASTER = "ours", "faster-whisper"
GOAL = 2.5
BEAMS = 5
"""As wide as it is by their default."""
QUICK_LANGUAGES = 2
"""In a quick run: converting a model takes as long as decoding with it."""


@dataclass(frozen=True, eq=False)
class Theirs:
    """Their side, loaded.

    Attributes:
        models: by language.
        features: of utterances, padded to 30 s.
        load_s: how long the models took to load.
    """

    models: Mapping[str, "Whisper"]
    features: Callable[[Sequence[Speech]], "StorageView"]
    load_s: float

    def variant(self, speech: Sequence[Speech]) -> Variant:
        """What decodes the speech, one language after the other; a warm-up decodes one of them."""
        rows = {tag: [one for one in speech if one.language == tag] for tag in self.models}

        def decode(tags: Iterable[str]) -> None:
            for tag in tags:
                encoded = self.models[tag].encode(self.features(rows[tag]))
                _generate(self.models[tag], encoded, tag, len(rows[tag]))

        return Variant(FASTER, timed(lambda: decode(self.models)), lambda: decode(LANGUAGES[:1]), True)


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of each geometry."""
    if setting.device != "cpu":  # its wheel brings no cuDNN; the goal is for two cores
        return
    for geometry in setting.chosen((TINY,), (TINY,)):
        yield from _geometry(geometry, setting)
        gc.collect()


def _geometry(geometry: str, setting: Setting) -> Iterator[Row]:
    languages = LANGUAGES[:QUICK_LANGUAGES] if setting.quick else LANGUAGES
    theirs, speech = _load(geometry, languages, setting), utterances(8 if setting.quick else 64, languages)
    one = backbone(geometry, setting.folder, setting.device)
    ours = transcription(LoraWhisper(one, bank_of(one, languages)), speech, BEAMS)
    variants = [theirs.variant(speech), Variant(OURS, ours)]
    memory = peaks(variants, setting)
    times = alternate(variants, setting.rounds(2))
    figures = {"their_models_load_s": theirs.load_s, **memory.of(FASTER, OURS)}
    what = f"{len(speech)} utterances in {len(languages)} languages, beam {BEAMS}"
    title = f"decoding, {geometry}, {what}, against {FASTER}"
    yield ratio_row(title, times[FASTER], times[OURS], GOAL, figures, _NOTES)


_NOTES = (
    f"from samples to {N_TOKENS} tokens an utterance, float32; theirs: a merged model for each language",
    "theirs: what BatchedInferencePipeline calls inside, one batch a language, 30 s windows",
)


def _load(geometry: str, languages: Sequence[str], setting: Setting) -> Theirs:
    """Their side.

    Raises:
        MissingPeer: faster-whisper is not installed.
    """
    peers.available()  # the converter reads with transformers
    require("faster_whisper", "ctranslate2", remedy=peers.REMEDY)
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper
    from faster_whisper.audio import pad_or_trim
    from faster_whisper.feature_extractor import FeatureExtractor

    folders = _converted(geometry, languages, setting)
    began = time.perf_counter()
    threads = torch.get_num_threads()
    models = {
        tag: Whisper(str(folder), compute_type="float32", intra_threads=threads)
        for tag, folder in folders.items()
    }
    load_s = time.perf_counter() - began
    extractor = FeatureExtractor(feature_size=80)

    def features(speech: Sequence[Speech]) -> StorageView:
        mels = [extractor(one.samples)[..., :-1] for one in speech]
        return StorageView.from_array(np.stack([pad_or_trim(mel) for mel in mels]))

    return Theirs(models, features, load_s)


def _generate(model: "Whisper", encoded: "StorageView", tag: str, n_rows: int) -> None:
    start = ["<|startoftranscript|>", f"<|{tag}|>", "<|transcribe|>", "<|notimestamps|>"]
    found = model.generate(
        encoded,
        [start] * n_rows,
        beam_size=BEAMS,
        max_length=2 * N_TOKENS,  # it spends half of it on the text
        suppress_tokens=[_END],
        return_scores=True,
        return_no_speech_prob=True,
    )
    lengths = {len(one.sequences_ids[0]) for one in found}
    if lengths != {N_TOKENS}:
        raise RuntimeError(f"CTranslate2 gave texts of {lengths} tokens instead of {N_TOKENS}")


_END = 50_257
"""End of text in every multilingual vocabulary, ours of the benchmark included."""


def _converted(geometry: str, languages: Sequence[str], setting: Setting) -> dict[str, Path]:
    """Folders of the merged models in CTranslate2's format, by language; written at first use."""
    from ctranslate2.converters import TransformersConverter

    root = setting.folder / f"ctranslate2-{geometry}"
    folders = {tag: root / tag for tag in languages}
    if all(folder.exists() for folder in folders.values()):
        return folders
    one = backbone(geometry, setting.folder, "cpu")
    bank = bank_of(one, languages)
    merged = setting.folder / f"merged-{geometry}"
    for tag, folder in folders.items():
        save_backbone(merged_into(one, bank, tag), merged, torch.float32)
        TransformersConverter(str(merged)).convert(str(folder), force=True)
    return folders
