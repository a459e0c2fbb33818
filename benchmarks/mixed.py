"""What mixing languages costs: eight in a batch through their adapters, against one that is merged."""

import gc
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.decoding import transcription
from benchmarks.machine import decoding_dtype
from benchmarks.measure import Row, Setting, Variant, alternate, ratio_row
from benchmarks.workload import LANGUAGES, MINI, SMALL, backbone, bank_of, merged_into, utterances
from lora_whisper.decoding.transcribe import LoraWhisper

GOAL = 0.9


def measure(setting: Setting) -> Iterator[Row]:
    """The row of each geometry; ours on both sides."""
    for geometry in setting.chosen((MINI,), (MINI, SMALL)):
        yield _row(geometry, setting)
        gc.collect()


def _row(geometry: str, setting: Setting) -> Row:
    speech = utterances(8 if geometry == SMALL else 16 if setting.quick else 32, LANGUAGES)
    alike = [replace(each, language=LANGUAGES[0]) for each in speech]
    dtype = decoding_dtype(setting.device)
    one = backbone(geometry, setting.folder, setting.device, dtype)
    bank = bank_of(one, LANGUAGES, dtype)
    merged = LoraWhisper(merged_into(one, bank, LANGUAGES[0]))
    variants = [
        Variant("merged", transcription(merged, alike)),
        Variant("mixed", transcription(LoraWhisper(one, bank), speech)),
    ]
    times = alternate(variants, setting.rounds(5 if geometry == MINI else 2))
    name = f"decoding, {geometry}, {len(speech)} utterances in 8 languages, against one merged language"
    return ratio_row(name, times["merged"], times["mixed"], GOAL, notes=("ours on both sides, greedy",))
