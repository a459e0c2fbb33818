"""Decoding a batch in eight languages, each through its own un-merged adapter: ours against PEFT.

From samples to a fixed number of greedy tokens, features included, so that everybody does the same work:
random weights never end a text by themselves. PEFT knows two ways: `adapter_names` routes the rows of a mixed
batch, `set_adapter` takes one language after the other.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from unittest.mock import patch

import torch

from benchmarks import peers_transformers as peers
from benchmarks.machine import decoding_dtype
from benchmarks.measure import Row, Setting, Variant, alternate, peaks, ratio_row, timed
from benchmarks.workload import (
    LANGUAGES,
    TINY,
    Speech,
    backbone,
    backbone_folder,
    bank_of,
    utterances,
)
from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.search import DecodingOptions
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.model.replay import Decoder

N_TOKENS = 40
"""Of each utterance, after the start sequence."""
OURS, OURS_BF16 = "ours", "ours in bf16"
LAUNCHED = "ours without CUDA graphs"
NAMES, SET = "PEFT adapter_names", "PEFT set_adapter, language by language"
GOALS = {NAMES: 6.0, SET: None}
GPU_GOALS = {NAMES: 12.0, SET: None}
THEIR_ROWS = {"cpu": 32, "cuda": 64}
"""Rows of a batch of theirs."""


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of each geometry."""
    for geometry in setting.chosen((TINY,), (TINY,)):
        yield from _geometry(geometry, setting)
        gc.collect()


def variant(name: str, geometry: str, setting: Setting) -> Variant:
    """One way to decode with a geometry, models loaded."""
    speech = utterances(n_utterances(setting), LANGUAGES)
    if name in (OURS, OURS_BF16, LAUNCHED):
        dtype = torch.bfloat16 if name == OURS_BF16 else decoding_dtype(setting.device)
        one = backbone(geometry, setting.folder, setting.device, dtype)
        run = transcription(LoraWhisper(one, bank_of(one, LANGUAGES, dtype)), speech)
        return Variant(name, launched(run) if name == LAUNCHED else run)
    return _theirs(name, geometry, setting, speech)


def n_utterances(setting: Setting) -> int:
    """How many are decoded."""
    return 8 if setting.quick else 64


def transcription(asr: LoraWhisper, speech: Sequence[Speech], beams: int = 1) -> Callable[[], float]:
    """What transcribes the speech with ours and returns the seconds that it takes."""
    clips = [Clip(one.samples, one.language) for one in speech]
    end = asr.backbone.tokenizer.eot
    options = DecodingOptions(max_tokens=N_TOKENS, suppress_tokens=(end,), beams=beams)

    def run() -> None:
        for outcome in asr.transcribe_batch(clips, options=options):
            if outcome.error is not None:
                raise outcome.error

    return timed(run)


def launched(run: Callable[[], float]) -> Callable[[], float]:
    """The same work with every kernel of the decoder launched by itself."""

    def each_kernel() -> float:
        with patch.object(Decoder, "fastest", Decoder):
            return run()

    return each_kernel


def _geometry(geometry: str, setting: Setting) -> Iterator[Row]:
    on_cpu = setting.device == "cpu"
    theirs = (NAMES,) if setting.quick else (NAMES, SET)
    another = OURS_BF16 if on_cpu else LAUNCHED
    variants = [variant(name, geometry, setting) for name in (*theirs, OURS, another)]
    memory = peaks(variants, setting)
    times = alternate(variants, setting.rounds(2 if on_cpu else 4))
    goals = GOALS if on_cpu else GPU_GOALS
    work = f"decoding, {geometry}, {n_utterances(setting)} utterances in 8 languages"
    for name in theirs:
        figures = memory.of(name, OURS)
        yield ratio_row(f"{work}, against {name}", times[name], times[OURS], goals[name], figures, _NOTES)
    if on_cpu:
        name = f"{work}, ours in bf16, against {NAMES} in fp32"
        figures = memory.of(NAMES, OURS_BF16)
        yield ratio_row(name, times[NAMES], times[OURS_BF16], goals[NAMES], figures, _NOTES[1:])
    else:
        figures = memory.of(LAUNCHED, OURS)
        yield ratio_row(f"{work}, against {LAUNCHED}", times[LAUNCHED], times[OURS], None, figures, ())


_NOTES = (
    f"from samples to {N_TOKENS} greedy tokens an utterance, un-merged adapters, the same precision",
    "theirs encodes 30 s of each utterance: their encoder takes nothing else",
)


def _theirs(name: str, geometry: str, setting: Setting, speech: Sequence[Speech]) -> Variant:
    peers.available()
    folder, dtype = backbone_folder(geometry, setting.folder), decoding_dtype(setting.device)
    one = backbone(geometry, setting.folder, "cpu")
    bank = bank_of(one, LANGUAGES)
    root = setting.folder / f"adapters-{geometry}"
    folders = {tag: bank.save(tag, root / tag) for tag in LANGUAGES}
    del one, bank
    model = peers.with_adapters(peers.load(folder, setting.device, dtype), folders)
    extractor = peers.extractor(folder)
    size = THEIR_ROWS[torch.device(setting.device).type]

    def decode(batch: Sequence[Speech], adapters: Sequence[str] | None) -> None:
        samples = [one.samples for one in batch]
        mel = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=setting.device)
        peers.generate(model, mel.input_features, [one.language for one in batch], N_TOKENS, adapters)

    def mixed(rows: Sequence[Speech]) -> None:
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            decode(batch, [one.language for one in batch])

    def one_by_one(rows: Sequence[Speech]) -> None:
        for tag in LANGUAGES:
            batch = [one for one in rows if one.language == tag]
            if batch:
                model.set_adapter(tag)
                decode(batch, None)

    first = [one for one in speech if one.language == LANGUAGES[0]]
    work, largest = (mixed, speech[:size]) if name == NAMES else (one_by_one, first)
    return Variant(name, timed(lambda: work(speech)), lambda: work(largest), theirs=True)
