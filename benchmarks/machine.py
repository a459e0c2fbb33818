"""What a measurement is made on: processor, cores, libraries, precision."""

import importlib.metadata
import os
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lora_whisper.training.trainer import resolve_precision

PACKAGES = ("torch", "transformers", "peft", "accelerate", "faster-whisper", "ctranslate2", "lora-whisper")


def describe(device: str) -> dict[str, Any]:
    """The machine and its software, as JSON keeps it."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_memory_gib(), 1),
        "device": torch.cuda.get_device_name(0) if device == "cuda" else device,
        "precision": {
            "training": "bf16" if trains_in_bf16(device) else "fp32",
            "decoding": str(decoding_dtype(device)).removeprefix("torch."),
        },
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def trains_in_bf16(device: str) -> bool:
    """Whether our trainer chooses bf16 there: where the hardware multiplies it natively."""
    return resolve_precision("auto", torch.device(device)) is not nullcontext


def decoding_dtype(device: str) -> torch.dtype:
    """What both sides decode in."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def _processor() -> str:
    """Its name and, as that often says little, the instructions that matter here."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    values: dict[str, str] = {}
    for line in info.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    flags = set(values.get("flags", "").split())
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags]
    model = f"family {values.get('cpu family', '?')} model {values.get('model', '?')}"
    return f"{values.get('model name', platform.processor())} ({model}; {' '.join(known)})"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
