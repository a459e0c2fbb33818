import pytest
import torch

from lora_whisper.model.packing import Packing
from lora_whisper.model.routing import Routing
from lora_whisper.model.shapes import rounded_up
from lora_whisper.model.whisper import position_mask

LENGTHS = [50, 31, 0, 17]
SHAPE = (4, 50, 3)


def batch(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padded", [True, False])
def test_what_is_packed_is_unpacked(dtype: torch.dtype, padded: bool) -> None:
    x = batch(dtype)
    mask = position_mask(torch.tensor(LENGTHS), SHAPE[1]) if padded else None
    packing = Packing.of(x, mask, None)
    found = packing.unpack(packing.pack(x), x.shape)
    expected = x if mask is None else x * mask.view(4, 50, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_each_run_has_one_of_few_sizes_in_bf16() -> None:
    """Found by profiling: in a batch of several languages each total was a shape of its own."""
    routing = Routing.one_per_row([0, 0, 1, 1])
    mask = position_mask(torch.tensor(LENGTHS), SHAPE[1])
    packing = Packing.of(batch(torch.bfloat16), mask, routing)
    assert packing.routing is not None
    assert [(run.start, run.stop) for run in packing.routing.runs] == [(0, 88), (88, 112)]
    assert packing.n_packed == 112 == rounded_up(81) + rounded_up(17)
    assert packing.stretches == [
        slice(0, 50),
        slice(50, 81),
        slice(81, 88),
        slice(88, 105),
        slice(105, 112),
    ]


def test_nothing_is_filled_up_in_float32() -> None:
    mask = position_mask(torch.tensor(LENGTHS), SHAPE[1])
    packing = Packing.of(batch(torch.float32), mask, Routing.one_per_row([0, 0, 1, 1]))
    assert packing.n_packed == sum(LENGTHS)
    assert packing.places is None
