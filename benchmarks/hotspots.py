"""Where the time goes: a training step and a decoded batch, peers' and ours, by kind of work.

"Before" is what one has without us, transformers with PEFT at its best; "after" is ours. The profiler itself
costs time, so the sums are a little longer than the times of the other topics; shares are what counts.
"""

import gc
import os
from collections.abc import Iterator
from dataclasses import replace

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


def _row(variant: Variant, work: str) -> Row:
    variant.prepare()
    gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiler:
        variant.measured()
    spent: dict[str, float] = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in profiler.key_averages():
        self_us = event.self_device_time_total if gpu else event.self_cpu_time_total
        spent[kind_of(event.key)] += self_us / 1e6
    total = sum(spent.values())
    shares = {f"{kind.replace(' ', '_')}_percent": 100 * one / total for kind, one in spent.items()}
    name = f"where the time goes, {work}, {TINY}, {variant.name}"
    return Row(name, None, None, None, None, seconds=total, figures=shares)
