import pytest
import torch

from lora_whisper.model.shapes import STEPS_PER_OCTAVE, compiled, rounded_up


@pytest.mark.parametrize("size", [1, 8, 9, 150, 255, 256, 257, 1500, 5228, 48000])
def test_little_is_added(size: int) -> None:
    rounded = rounded_up(size)
    assert rounded >= size
    assert rounded % 8 == 0
    assert rounded - size < max(8, size / STEPS_PER_OCTAVE)


def test_few_sizes_occur() -> None:
    assert len({rounded_up(size) for size in range(4096, 8192)}) == STEPS_PER_OCTAVE + 1
    assert {rounded_up(size, 64) % 64 for size in range(1, 5000)} == {0}


def test_only_bf16_on_a_cpu_is_compiled() -> None:
    x = torch.zeros(2)
    assert not compiled(x)
    assert compiled(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(x)
