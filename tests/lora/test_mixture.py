"""Mixtures of experts: what they compute, how they flatten, what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.errors import AdapterError
from lora_whisper.lora.adapter import Adapter, Expert, Gating
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.expansion import adapter_candidates
from lora_whisper.lora.mixture import chosen_experts, flatten
from lora_whisper.lora.parts import MODULES, LoRAConfig

RANKS = {"pl": 4, "it": 2, "cy": 4}
GATINGS: tuple[Gating, ...] = ("fixed", "layer", "token")


def new_bank() -> AdapterBank:
    return toy_bank(toy_backbone(), RANKS, MODULES)


def experts_of(bank: AdapterBank, **weights: float) -> tuple[Expert, ...]:
    return tuple(Expert(tag, bank[tag].fingerprint, weight) for tag, weight in weights.items())


def mixture(bank: AdapterBank, gating: Gating = "fixed", own: bool = True, trained: bool = True) -> Adapter:
    config = LoRAConfig(3, 3.0, MODULES) if own else None
    made = bank.add_mixture(
        "da", experts_of(bank, pl=0.75, it=0.25), config, gating=gating, token_language="en"
    )
    if trained:
        generator = torch.Generator().manual_seed(9)
        for name, parameter in made.named_parameters().items():
            parameter.data.add_(
                torch.randn(parameter.shape, generator=generator) * (0.0 if name.endswith(".a") else 0.3)
            )
    return made


def logits(bank: AdapterBank, languages: list[str | None]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    mel = torch.randn(1, 8, 40, generator=generator).expand(len(languages), -1, -1)
    tokens = torch.randint(256, (1, 6), generator=generator).expand(len(languages), -1)
    with torch.inference_mode():
        return bank.backbone.model(mel, tokens, routing=bank.route(languages))


# --- choosing ---------------------------------------------------------------------------------------------


def test_the_nearest_experts_are_chosen_and_their_weights_sum_to_one() -> None:
    bank = new_bank()
    adapters = {adapter.tag: adapter for adapter in bank}
    chosen = chosen_experts({"pl": 0.3, "it": 0.6, "cy": 0.1}, adapters, most=2)
    assert [(one.language, one.fingerprint) for one in chosen] == [
        ("it", bank["it"].fingerprint),
        ("pl", bank["pl"].fingerprint),
    ]
    assert [one.weight for one in chosen] == pytest.approx([2 / 3, 1 / 3])
    assert [one.language for one in chosen_experts({"pl": 0.3, "it": 0.6}, adapters, threshold=0.4)] == ["it"]


def test_a_threshold_that_none_reaches_is_an_error() -> None:
    adapters = {adapter.tag: adapter for adapter in new_bank()}
    with pytest.raises(AdapterError, match=r"nearest: it with 0\.600"):
        chosen_experts({"pl": 0.4, "it": 0.6}, adapters, threshold=0.7)


# --- computing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("own", [True, False])
def test_an_untrained_mixture_is_the_weighted_sum_of_its_experts_whatever_the_gating(
    gating: Gating, own: bool
) -> None:
    bank = new_bank()
    mixture(bank, gating, own, trained=False)
    other = new_bank()
    reference, _ = other.add_flattened("is", mixture(other, "fixed", own, trained=False))
    assert reference.config.rank == (9 if own else 6)
    torch.testing.assert_close(logits(bank, ["da"]), logits(other, ["is"]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gating", GATINGS)
def test_a_mixed_batch_is_each_language_alone(gating: Gating) -> None:
    bank = new_bank()
    mixture(bank, gating)
    languages = ["pl", "da", None, "it", "da"]
    together = logits(bank, languages)
    for row, language in enumerate(languages):
        torch.testing.assert_close(together[row], logits(bank, [language])[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("gating", GATINGS)
def test_adding_a_mixture_changes_no_other_language_by_one_bit(gating: Gating) -> None:
    bank = new_bank()
    before = {tag: logits(bank, [tag]) for tag in (*RANKS, None)}
    prints = {tag: bank[tag].fingerprint for tag in RANKS}
    mixture(bank, gating)
    assert {tag: bank[tag].fingerprint for tag in RANKS} == prints
    for tag, expected in before.items():
        assert torch.equal(logits(bank, [tag]), expected)


# --- flattening -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gating", ["fixed", "layer"])
@pytest.mark.parametrize("own", [True, False])
def test_flattened_equals_the_mixture(gating: Gating, own: bool) -> None:
    bank = new_bank()
    made = mixture(bank, gating, own)
    flat, error = bank.add_flattened("is", made)
    assert error == 0 and not flat.experts
    torch.testing.assert_close(logits(bank, ["is"]), logits(bank, ["da"]), atol=1e-4, rtol=1e-4)


def test_the_average_of_a_and_b_is_not_the_mixture() -> None:
    bank = toy_bank(toy_backbone(), {"pl": 4, "it": 4})
    made = bank.add_mixture("da", experts_of(bank, pl=0.75, it=0.25), token_language="en")
    flat, path = flatten(made).tensors, next(iter(bank["pl"].parts))
    exact = flat[f"{path}.b"] @ flat[f"{path}.a"]
    weighted = [(bank["pl"].parts[path], 0.75), (bank["it"].parts[path], 0.25)]
    by_hand = torch.stack([w * part.scale * (part.b @ part.a) for part, w in weighted]).sum(0).detach()
    torch.testing.assert_close(exact, by_hand)
    a, b = (sum(w * getattr(part, leaf) for part, w in weighted) for leaf in ("a", "b"))
    average = (weighted[0][0].scale * b @ a).detach()
    assert (average - exact).norm() > 0.2 * exact.norm()


def test_nothing_starts_from_or_borrows_a_mixture() -> None:
    bank = new_bank()
    made = mixture(bank)
    with pytest.raises(AdapterError, match="flatten that first"):
        bank.add("sv", start="da", token_language="en")
    with pytest.raises(AdapterError, match="flatten it first"):
        bank.add_mixture("sv", (Expert("da", made.fingerprint, 1.0),), token_language="en")
    assert "da" not in adapter_candidates(bank) and set(adapter_candidates(bank)) <= {"pl", "it", "cy"}


def test_a_smaller_rank_loses_least_and_says_how_much() -> None:
    bank = new_bank()
    made = mixture(bank)
    errors = {rank: flatten(made, rank).error for rank in (1, 4, 8, 9, 20)}
    assert errors[1] > errors[4] > errors[8] > errors[9] == errors[20] == 0
    exact, near = flatten(made), flatten(made, 4)
    lost = total = 0.0
    for path in {name.rpartition(".")[0] for name in exact.tensors}:
        full = (exact.tensors[f"{path}.b"] @ exact.tensors[f"{path}.a"]).double()
        half = (near.tensors[f"{path}.b"] @ near.tensors[f"{path}.a"]).double()
        best = torch.linalg.svdvals(full)[4:].square().sum()
        assert float((full - half).square().sum()) == pytest.approx(float(best), rel=1e-3)
        lost, total = lost + float((full - half).square().sum()), total + float(full.square().sum())
    assert near.error == pytest.approx((lost / total) ** 0.5, rel=1e-3)


def test_merged_equals_the_mixture_and_a_router_cannot_be_merged() -> None:
    bank = new_bank()
    mixture(bank, "layer")
    generator = torch.Generator().manual_seed(3)
    mel, tokens = torch.randn(1, 8, 40, generator=generator), torch.randint(256, (1, 6), generator=generator)
    with torch.inference_mode():
        merged = bank.merge("da")(mel, tokens)
    torch.testing.assert_close(merged, logits(bank, ["da"]), atol=1e-4, rtol=1e-4)
    routed = new_bank()
    mixture(routed, "token")
    with pytest.raises(AdapterError, match="--gating layer"):
        routed.merge("da")


# --- keeping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("own", [True, False])
def test_a_saved_mixture_comes_back(tmp_path: Path, gating: Gating, own: bool) -> None:
    bank = new_bank()
    made = mixture(bank, gating, own)
    for tag in bank.tags:
        bank.save(tag, tmp_path / tag)
    again = AdapterBank(toy_backbone())
    again.load_all(tmp_path)
    assert again["da"].fingerprint == made.fingerprint and again["da"].info == made.info
    torch.testing.assert_close(logits(again, ["da"]), logits(bank, ["da"]), atol=1e-3, rtol=1e-3)
    assert (tmp_path / "da" / "gates.safetensors").exists() == (gating != "fixed")
    assert not any(name.endswith("gate") for name in load_file(tmp_path / "da" / "adapter_model.safetensors"))


def test_a_missing_or_changed_expert_is_an_error_and_nothing_is_loaded(tmp_path: Path) -> None:
    bank = new_bank()
    mixture(bank)
    for tag in ("pl", "da"):
        bank.save(tag, tmp_path / tag)
    fresh = AdapterBank(toy_backbone())
    with pytest.raises(AdapterError, match="expert it is missing"):
        fresh.load_all(tmp_path)
    assert fresh.tags == ()
    bank["it"].parts[next(iter(bank["it"].parts))].a.data[0, 0] += 1
    bank.save("it", tmp_path / "it")
    with pytest.raises(AdapterError, match="expert it has changed"):
        fresh.load_all(tmp_path)
    assert fresh.tags == ()


def test_an_expert_that_is_borrowed_cannot_be_removed() -> None:
    bank = new_bank()
    mixture(bank, "layer")
    with pytest.raises(AdapterError, match="expert of da"):
        bank.remove("pl")
    bank.remove("da")
    bank.remove("pl")
    assert not any(layer.gates for layer in bank.layers.values())


def test_a_mixture_of_mixtures_is_refused() -> None:
    bank = new_bank()
    mixture(bank)
    with pytest.raises(AdapterError, match="flatten it first"):
        bank.add_mixture("is", experts_of(bank, da=1.0), token_language="en")


def test_a_damaged_gate_is_an_error(tmp_path: Path) -> None:
    bank = new_bank()
    mixture(bank, "layer")
    bank.save("da", tmp_path / "da")
    info = json.loads((tmp_path / "da" / "lora_whisper.json").read_text())
    assert [expert["language"] for expert in info["experts"]] == ["pl", "it"]
    (tmp_path / "da" / "gates.safetensors").write_bytes(b"nonsense")
    bank.remove("da")
    with pytest.raises(AdapterError, match=r"gates\.safetensors: damaged"):
        bank.load(tmp_path / "da")
