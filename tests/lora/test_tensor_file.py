"""Reading safetensors files: the same as the library, a checksum that notices damage, faults named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_whisper.errors import AdapterError
from lora_whisper.lora.tensor_file import read_tensor_file


def some_tensors(scale: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "whole": torch.randn(64 * scale, 33),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "nothing": torch.zeros(0, 4),
        "one": torch.tensor(3.0),
    }


def written(path: Path, entries: object, data: bytes) -> Path:
    head = json.dumps(entries).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return path


@pytest.mark.parametrize("scale", [1, 300])  # less and more than a piece, and than a huge page
def test_reads_what_the_library_reads(tmp_path: Path, scale: int) -> None:
    path = tmp_path / "some.safetensors"
    save_file(some_tensors(scale), path, metadata={"format": "pt"})
    found, expected = read_tensor_file(path).tensors, load_file(path)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    found["whole"].fill_(0)
    assert torch.equal(load_file(path)["whole"], expected["whole"])  # nothing is mapped


def test_reads_a_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    save_file({}, path, metadata={"format": "pt"})
    assert read_tensor_file(path).tensors == {}


def test_reads_what_is_not_aligned(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.0]).half(), torch.tensor([3.25])
    entries = {
        "a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
    }
    data = values[0][:1].numpy().tobytes() + values[1].numpy().tobytes()
    found = read_tensor_file(written(tmp_path / "odd", entries, data)).tensors
    assert (found["a"].item(), found["b"].item()) == (1.5, 3.25)


@pytest.mark.parametrize("scale", [1, 300])
def test_every_changed_bit_changes_the_checksum(tmp_path: Path, scale: int) -> None:
    path = tmp_path / "some.safetensors"
    save_file(some_tensors(scale), path)
    content = path.read_bytes()
    checksum = read_tensor_file(path).checksum
    assert read_tensor_file(path).checksum == checksum
    start = 8 + int.from_bytes(content[:8], "little")
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(start, len(content), (30,), generator=generator).tolist()
    for place in (start, len(content) - 1, *places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        assert read_tensor_file(path).checksum != checksum, place


def test_pages_in_another_order_change_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file({"a": torch.randn(8, 1024)}, path)  # pages of 4 KiB
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    pages = [content[start + 4096 * n : start + 4096 * (n + 1)] for n in range(8)]
    checksums = set()
    for order in ((0, 1, 2, 3), (1, 0, 2, 3), (0, 1, 3, 2), (0, 0, 2, 3)):
        path.write_bytes(content[:start] + b"".join([*(pages[n] for n in order), *pages[4:]]))
        checksums.add(read_tensor_file(path).checksum)
    zeroed = content[:start] + bytes(4096) + content[start + 4096 :]
    path.write_bytes(zeroed)
    checksums.add(read_tensor_file(path).checksum)
    assert len(checksums) == 5


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FAULTS = {
    "no object": ([], 8, "damaged"),
    "an entry that is none": ({"a": 7}, 8, "damaged"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, 8, "damaged ('shape')"),
    "integers": ({"a": {**ENTRY, "dtype": "I32"}}, 8, "a holds I32, not one of F64, F32"),
    "another length": ({"a": {**ENTRY, "shape": [3]}}, 8, "a is not where it should be"),
    "a negative length": ({"a": {**ENTRY, "shape": [-1, -2]}}, 8, "a has a negative length"),
    "beyond the end": ({"a": {**ENTRY, "data_offsets": [4, 12]}}, 8, "a is not where it should be"),
    "overlapping": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, 12, "b is not where"),
    "cut off": ({"a": ENTRY}, 5, "5 bytes of tensors, not 8"),
    "too long": ({"a": ENTRY}, 9, "9 bytes of tensors, not 8"),
    "odd offsets": ({"a": {**ENTRY, "data_offsets": [0]}}, 8, "damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_names_the_fault(tmp_path: Path, fault: str) -> None:
    entries, size, expected = FAULTS[fault]
    path = written(tmp_path / "bad.safetensors", entries, bytes(size))
    with pytest.raises(AdapterError) as raised:
        read_tensor_file(path)
    message = str(raised.value)
    assert expected in message and message.startswith(f"{path}: damaged (") and "\n" not in message


@pytest.mark.parametrize("content", [b"", b"abc", bytes(8), b"\xff" * 100, b"PK\x03\x04" + bytes(60)])
def test_what_is_no_such_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=r"damaged .*restore it from a copy"):
        read_tensor_file(path)
    with pytest.raises(AdapterError, match="only safetensors are read"):
        read_tensor_file(tmp_path / "missing")
    with pytest.raises(AdapterError, match="damaged"):
        read_tensor_file(tmp_path)
