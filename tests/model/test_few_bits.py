"""Frozen weights in 8 and in 4 bits: as large as they should be, as near as they should be, and lazy."""

import sys

import pytest
import torch
from torch import Tensor
from toy_whisper import toy_bank

from lora_whisper.audio import features
from lora_whisper.data.espeak import synthesise
from lora_whisper.errors import MissingExtra, UsageError
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.model.checkpoint import Backbone, load_backbone, weights_fingerprint
from lora_whisper.model.few_bits import FewBits

WEIGHT = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
MEL = torch.stack([features(synthesise(text, "pl"))[:, :150] for text in ("dobry wieczór", "ala ma kota")])


@pytest.fixture(params=[8, 4])
def bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def gradients(backbone: Backbone, precision: torch.dtype) -> Tensor:
    """Of an adapter's B in the first layer, for a loss of the encoder's outputs."""
    bank = AdapterBank(backbone)
    adapter = bank.add("pl", LoRAConfig(8, 8.0), seed=3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        backbone.model.encode(MEL, None, bank.route(["pl", "pl"])).float().square().sum().backward()
    found = adapter.named_parameters()["encoder.blocks.0.attn.value.b"].grad
    assert found is not None
    return found


def test_a_weight_is_near_and_small(bits: int) -> None:
    few = FewBits.of(WEIGHT, bits)
    off = (few.decoded() - WEIGHT).norm() / WEIGHT.norm()
    assert off < {8: 0.02, 4: 0.12}[bits]
    assert few.codes.numel() * few.codes.element_size() == WEIGHT.numel() * bits // 8
    assert few.shape == WEIGHT.shape and few.dtype == torch.float32


def test_it_takes_part_as_what_it_stands_for(bits: int) -> None:
    few, x = FewBits.of(WEIGHT, bits), torch.randn(5, 64)
    assert torch.equal(torch.nn.functional.linear(x, few), x @ few.decoded().T)
    assert torch.equal(torch.ones(2, 96) @ few, torch.ones(2, 96) @ few.decoded())
    assert isinstance(few.bfloat16(), FewBits)
    assert torch.equal(few.bfloat16() + 0, few.decoded().bfloat16())


def test_a_backbone_is_known_by_the_weights_it_was_loaded_with(bits: int) -> None:
    whole, few = load_backbone("mini"), load_backbone("mini", bits=bits)
    assert few.fingerprint == whole.fingerprint
    assert weights_fingerprint(few.model) != whole.fingerprint
    assert few.bits == bits and whole.bits is None
    embedding = few.model.decoder.token_embedding.weight
    assert torch.equal(embedding, whole.model.decoder.token_embedding.weight)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_are_nearly_those_over_all_bits(bits: int, precision: torch.dtype) -> None:
    expected = gradients(load_backbone("mini"), torch.float32)
    found = gradients(load_backbone("mini", bits=bits), precision)
    assert (
        torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0)
        > {8: 0.99, 4: 0.9}[bits]
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_nothing_decoded_is_kept_for_the_way_back(precision: torch.dtype) -> None:
    backbone = load_backbone("mini", bits=4)
    bank = AdapterBank(backbone)
    bank.add("pl", LoRAConfig(8, 8.0))
    layers = [layer.weight for layer in backbone.model.modules() if isinstance(layer, torch.nn.Linear)]
    shapes = {tuple(weight.shape) for weight in layers}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16),
    ):
        backbone.model.encode(MEL, None, bank.route(["pl", "pl"]))
    weights = [tensor for tensor in kept if tuple(tensor.shape) in shapes]
    assert weights and all(isinstance(tensor, FewBits) for tensor in weights)


def test_adapters_are_decoded_in_any_way(bits: int) -> None:
    few = load_backbone("mini", bits=bits)
    bank = toy_bank(few, {"pl": 8, "it": 4})
    with torch.inference_mode():
        long = few.model.encode(MEL, None, bank.route(["pl", "it"]))
        each = [
            few.model.encode(MEL[i : i + 1], None, bank.route([tag])) for i, tag in enumerate(("pl", "it"))
        ]
    torch.testing.assert_close(long, torch.cat(each), atol=1e-4, rtol=1e-4)


def test_other_numbers_of_bits_and_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="8 or 4 bits, not in 3"):
        load_backbone("mini", bits=3)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(MissingExtra, match=r"lora-whisper\[bits\]"):
        load_backbone("mini", bits=4)
