"""Where the time goes: a training step and a decoded batch, peers' and ours, by kind of work.

"Before" is what one has without us, transformers with PEFT at its best; "after" is ours. The profiler itself
costs time, so the sums are a little longer than the times of the other topics; shares are what counts.
"""

import gc
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import decoding, training
from benchmarks.measure import Row, Setting, Variant
from benchmarks.workload import TINY

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler tells when it starts and stops

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution"),
    "attention kernels": ("scaled_dot_product",),
    "softmax and loss": ("softmax", "nll_loss", "exp", "amax", "max", "topk", "logsumexp"),
    "norms and activations": ("layer_norm", "gelu"),
    "copies and conversions": ("copy_", "cat", "index", "gather", "clone", "stack", "select"),
    "optimiser": ("Optimizer", "adamw", "addcdiv", "addcmul", "lerp", "norm"),
    "element by element": ("add", "sub", "mul", "div", "fill", "where", "sqrt", "pow", "sum"),
}
"""Kinds of work by what occurs in the name of an operation; the first that fits."""
OTHER = "all else"
_HOST = ("cpu_op", "user_annotation")
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")

Json = Mapping[str, Any]


def measure(setting: Setting) -> Iterator[Row]:
    """One row for each way; a few batches of the smallest geometry. In a quick run ours only."""
    few = replace(setting, quick=True)
    peers = [] if setting.quick else [(training, training.BEST), (decoding, decoding.NAMES)]
    ours = [(training, training.OURS), (decoding, decoding.OURS)]
    rounded = [(decoding, decoding.OURS_BF16)] if setting.device == "cpu" and not setting.quick else []
    for topic, name in (*peers, *ours, *rounded):
        yield _row(topic.variant(name, TINY, few), topic.__name__.split(".")[-1])
        gc.collect()


def kind_of(operation: str) -> str:
    """The kind of work of an operation of PyTorch, by its name."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), OTHER)


def self_seconds(events: Iterable[Json], on: Collection[str]) -> Iterator[tuple[str, float]]:
    """Names and seconds, without what ran inside, of the events of a trace whose category is in `on`."""
    by_thread: dict[Any, list[Json]] = {}
    for event in events:
        if event.get("cat") in on:
            by_thread.setdefault((event["pid"], event["tid"]), []).append(event)
    for thread in by_thread.values():
        inside = [0.0] * len(thread)  # microseconds
        around: list[int] = []  # those that have not ended yet, by number, the outermost first
        thread.sort(key=lambda event: (event["ts"], -event["dur"]))
        for number, event in enumerate(thread):
            while around and event["ts"] >= thread[around[-1]]["ts"] + thread[around[-1]]["dur"]:
                around.pop()
            if around:
                inside[around[-1]] += event["dur"]
            around.append(number)
        yield from ((one["name"], (one["dur"] - of) / 1e6) for one, of in zip(thread, inside, strict=True))


def _row(variant: Variant, work: str) -> Row:
    variant.prepare()
    gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiler:
        variant.measured()
    spent: dict[str, float] = dict.fromkeys((*KINDS, OTHER), 0.0)
    for name, self_s in self_seconds(_trace(profiler), _DEVICE if gpu else _HOST):
        spent[kind_of(name)] += self_s
    total = sum(spent.values())
    shares = {f"{kind.replace(' ', '_')}_percent": 100 * one / total for kind, one in spent.items()}
    name = f"where the time goes, {work}, {TINY}, {variant.name}"
    return Row(name, None, None, None, None, seconds=total, figures=shares)


def _trace(profiler: profile) -> list[Json]:
    """The events as they are exported: `key_averages` takes ten times as long for them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[Json] = json.loads(path.read_bytes())["traceEvents"]
    return events
