"""safetensors files, read once into one piece of memory, with a checksum on the way.

    8 bytes: n | n bytes of JSON: name → dtype, shape, where in the data | data

An adapter of whisper-small has 384 tensors in 52 MB. SHA-256 of them takes longer than reading them; XXH3
takes a tenth of that. It finds faults of disks and copies; it is no protection from people who deceive.

Nothing stays mapped: a file that is overwritten or cut off later changes nothing that was read.
"""

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from lora_whisper.errors import AdapterError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PIECE = 2**20
"""Bytes read at once: what fits the second-level cache, so that it is hashed from there."""

_LONGEST_HEAD = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True)
class TensorFile:
    """What a file holds: its tensors by name, as they are stored, and the checksum of all its bytes."""

    tensors: dict[str, Tensor]
    checksum: str


def read_tensor_file(path: Path, device: torch.device | str = "cpu") -> TensorFile:
    """The tensors of a safetensors file, in one piece of memory of their own on the device.

    Raises:
        AdapterError: it is missing, cannot be read, or is no whole safetensors file of real numbers.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = _read_head(file, size)
            places = _places(json.loads(head), size - 8 - len(head))
            data, checksum = _read_data(file, head, size - 8 - len(head))
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing; only safetensors are read, never pickles (.bin)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{path}: damaged ({error}); restore it from a copy") from None
    data = data.to(device)
    return TensorFile({name: _tensor(data, place) for name, place in places.items()}, checksum)


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the data, in bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def _read_head(file: BinaryIO, size: int) -> bytes:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _LONGEST_HEAD):
        raise ValueError("it does not begin as a safetensors file")
    return file.read(length)


def _places(entries: dict[str, Any], size: int) -> dict[str, _Place]:
    """Where the tensors lie, one after another, without gaps."""
    places = {name: _place(name, entry) for name, entry in entries.items() if name != "__metadata__"}
    end = 0
    for name, place in sorted(places.items(), key=lambda pair: (pair[1].start, pair[1].end)):
        if place.start != end or place.end - place.start != prod(place.shape) * place.dtype.itemsize:
            raise ValueError(f"{name} is not where it should be")
        end = place.end
    if end != size:
        raise ValueError(f"{size} bytes of tensors, not {end}")
    return places


def _place(name: str, entry: dict[str, Any]) -> _Place:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"{name} holds {entry['dtype']}, not one of {', '.join(_DTYPES)}")
    start, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(length) for length in entry["shape"])
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has a negative length")
    return _Place(dtype, shape, start, end)


def _read_data(file: BinaryIO, head: bytes, size: int) -> tuple[Tensor, str]:
    """The rest of the file, (size,) uint8, and the checksum of all of it."""
    data = torch.empty(size, dtype=torch.uint8)
    numbers: npt.NDArray[np.uint8] = data.numpy()
    checksum = xxhash.xxh3_128(head)
    for start in range(0, size, _PIECE):
        piece = numbers[start : start + _PIECE]
        _fill(file, piece)
        checksum.update(piece.data)
    return data, checksum.hexdigest()


def _fill(file: BinaryIO, piece: npt.NDArray[np.uint8]) -> None:
    done = 0
    while done < len(piece):
        read = file.readinto(piece[done:].data)  # type: ignore[attr-defined]
        if not read:
            raise ValueError("it ends too early")
        done += read


def _tensor(data: Tensor, place: _Place) -> Tensor:
    """The tensor at a place, sharing memory with the data where its alignment allows."""
    values = data[place.start : place.end]
    if place.start % place.dtype.itemsize:
        values = values.clone()
    return values.view(place.dtype).view(place.shape)
