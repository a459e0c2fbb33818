"""What a bare machine lacks: stand-ins, so that PyTorch, transformers and PEFT are enough to measure speed.

On such a machine nothing can be installed. The package needs `langcodes` for its language tags, `xxhash` for
the checksums of adapter folders, and imports `soxr`, with which it resamples. The benchmark has eight plain
tags, throws its folders away and makes its audio itself. Where they are installed nothing happens here.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from benchmarks.measure import MissingPeer

NEEDED = ("torch", "numpy", "safetensors", "tokenizers", "huggingface_hub")
"""Of these, transformers brings those that are not PyTorch's."""


@dataclass(frozen=True)
class Language:
    """As much of `langcodes.Language` as the package uses, for tags that are plain codes."""

    language: str

    @classmethod
    def get(cls, tag: str) -> "Language":
        """The language of a tag such as `pl`."""
        return cls(tag.lower())

    @property
    def script(self) -> str:
        """Any: nothing that is measured depends on it."""
        return "Latn"

    def is_valid(self) -> bool:
        """Whether it looks like a code."""
        return self.language.isalpha() and len(self.language) in (2, 3)

    def to_tag(self) -> str:
        """The code."""
        return self.language

    def display_name(self) -> str:
        """The code, as names are not known."""
        return self.language

    def maximize(self) -> "Language":
        """Itself."""
        return self


def stand_in() -> list[str]:
    """Put stand-ins in the place of modules that are not installed; their names.

    Raises:
        MissingPeer: something is missing that nothing can stand in for.
    """
    missing = absent(NEEDED)
    if missing:
        raise MissingPeer(f"{', '.join(missing)} not installed; the benchmarks need PyTorch and transformers")
    names = absent(tuple(STAND_INS))
    for name in names:
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(STAND_INS[name])
    if "soxr" in names:
        importlib.import_module("lora_whisper.data.conditions")  # which imports it and does not use it here
        del sys.modules["soxr"]  # transformers would take it for the real one
    return names


def absent(names: Sequence[str]) -> list[str]:
    """Which of these modules can neither be imported nor have a stand-in."""
    return [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]


def standardize_tag(tag: str, macro: bool = False) -> str:  # noqa: ARG001  the name that langcodes gives it
    """The tag itself."""
    return tag


def xxh3_128(data: bytes) -> "hashlib.blake2b":
    """A checksum of as many bits; another one, but consistent."""
    return hashlib.blake2b(data, digest_size=16)


STAND_INS: Mapping[str, Mapping[str, Callable[..., object]]] = {
    "langcodes": {"Language": Language, "standardize_tag": standardize_tag},
    "soxr": {},
    "xxhash": {"xxh3_128": xxh3_128},
}
"""What is used of each module."""
