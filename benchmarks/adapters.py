"""Many languages: 1 to 1,000 adapters in a bank that reads them when they are used.

A batch of eight languages is decoded with ever more adapters in the bank; it must not notice them. Beside
it: how long a folder of adapters takes to open and one adapter to add, what the bank holds in memory, and how
long the first use of one takes when its file is in the disk cache.
"""

import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.decoding import transcription
from benchmarks.measure import MIB, Row, Setting, Variant, alternate, ratio_row
from benchmarks.workload import LANGUAGES, MINI, SMALL, TINY, Speech, backbone, bank_of, utterances
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone

SIZES, QUICK_SIZES = (1, 10, 100, 1000), (1, 1000)
GOAL, COLD_GOAL_S = 0.95, 0.05
N_UTTERANCES = 16
N_IN_MEMORY = 64
"""Adapters that the memory of a bank has room for."""
REPEATS = 5


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of banks of each size, and of the first use of an adapter."""
    for geometry in setting.chosen((MINI,), (TINY,)):
        yield from _sizes(geometry, setting)
        gc.collect()
    yield _cold(TINY if setting.quick else SMALL, setting)


def _sizes(geometry: str, setting: Setting) -> Iterator[Row]:
    one = backbone(geometry, setting.folder, setting.device)
    stored = _Stored(one, setting.folder / f"stored-{geometry}")
    sizes = QUICK_SIZES if setting.quick else SIZES
    banks = {size: stored.bank(size) for size in (*sizes, len(LANGUAGES))}
    opened = {size: _seconds(lambda size=size: stored.bank(size)) for size in sizes}
    variants = [Variant(str(size), _batch(one, bank, size)) for size, bank in banks.items()]
    times = alternate(variants, setting.rounds(2))
    for size in sizes[1:]:
        figures = {
            "open_s": opened[size],
            "add_s": _add_s(banks[size]),
            "in_memory_mib": banks[size].cache.n_bytes / MIB,
            "on_disk_mib": size * stored.n_bytes / MIB,
        }
        name = f"decoding, {geometry}, 8 of {size:,} adapters in the bank, against a bank of 1"
        goal = GOAL if size == SIZES[-1] else None
        yield ratio_row(name, times["1"], times[str(size)], goal, figures, _NOTES)
    few, many = len(LANGUAGES), SIZES[-1]
    name = f"decoding, {geometry}, the same 8 adapters in a bank of {many:,}, against a bank of {few}"
    yield ratio_row(name, times[str(few)], times[str(many)], GOAL)


_NOTES = (
    f"{N_UTTERANCES} utterances; where the bank has one adapter, all of them use it",
    f"adapters are read when they are used; the bank has memory for {N_IN_MEMORY}",
)


def _batch(one: Backbone, bank: AdapterBank, size: int) -> Callable[[], float]:
    """What decodes a batch in the languages of the bank, at most eight."""
    return transcription(LoraWhisper(one, bank), _speech(LANGUAGES[:size]))


def _speech(languages: Sequence[str]) -> list[Speech]:
    return utterances(N_UTTERANCES, languages)


class _Stored:
    """Folders of adapters: eight real ones, and as many more as are wanted, which share a file with those."""

    def __init__(self, one: Backbone, root: Path) -> None:
        self._backbone, self._root = one, root
        bank = bank_of(one, LANGUAGES)
        self.n_bytes = sum(parameter.nbytes for parameter in bank[LANGUAGES[0]].parameters())
        self._real = {tag: bank.save(tag, root / "real" / tag) for tag in LANGUAGES}
        for tag in LANGUAGES:
            bank.remove(tag)

    def bank(self, size: int) -> AdapterBank:
        """A new bank of so many adapters, none of them read."""
        bank = AdapterBank(self._backbone, memory_bytes=N_IN_MEMORY * self.n_bytes)
        bank.open_all(self._folder(size))
        return bank

    def _folder(self, size: int) -> Path:
        root = self._root / str(size)
        if not root.exists():
            for number in range(size):
                base = LANGUAGES[number % len(LANGUAGES)]
                tag = base if number < len(LANGUAGES) else f"{base}-x-n{number}"
                _linked(self._real[base], root / tag, tag)
        return root


def _linked(source: Path, folder: Path, tag: str) -> None:
    """An adapter folder for another tag, with the same tensor file."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            os.link(path, folder / path.name)
            continue
        values = json.loads(path.read_text(encoding="utf-8"))
        if "language" in values:
            values["language"] = tag
        (folder / path.name).write_text(json.dumps(values), encoding="utf-8")


def _add_s(bank: AdapterBank) -> float:
    """Median seconds to add a new adapter to the bank."""
    times = []
    for number in range(REPEATS):
        tag = f"sv-x-a{number}"
        times.append(_seconds(lambda tag=tag: bank.add(tag, token_language="en")))
        bank.remove(tag)
    return statistics.median(times)


def _cold(geometry: str, setting: Setting) -> Row:
    """The first use of an opened adapter whose file is in the disk cache."""
    one = backbone(geometry, setting.folder, setting.device)
    tag = LANGUAGES[0]
    stored = _Stored(one, setting.folder / f"stored-{geometry}")
    _ = one.fingerprint  # of the backbone's weights; computed once
    times = []
    for _ in range(REPEATS + 1):
        bank = stored.bank(1)
        times.append(_seconds(lambda bank=bank: bank.route([tag])))
    times = times[1:]  # the first reads the file from disk
    return Row(
        f"first use of an adapter, {geometry}, its file in the disk cache",
        None,
        min(times),
        max(times),
        COLD_GOAL_S,
        seconds=statistics.median(times),
        figures={"size_mib": stored.n_bytes / MIB},
    )


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
