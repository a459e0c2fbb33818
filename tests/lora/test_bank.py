"""The bank: what adapters promise each other and the backbone, look-up by language, numbers of parameters."""

import gc
import sys
from pathlib import Path
from string import ascii_lowercase
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.errors import AdapterError, BackboneMismatch, UnknownLanguage
from lora_whisper.languages import normalize_tag
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import MODULES, LoRAConfig
from lora_whisper.lora.updates import Adapted
from lora_whisper.model.checkpoint import Backbone, weights_fingerprint
from lora_whisper.model.layers import Linear
from lora_whisper.model.whisper import ModelDimensions, Whisper

RANKS = {"pl": 4, "it": 2, "cy": 4}
SMALL = LoRAConfig(rank=2, alpha=4)


@pytest.fixture
def bank() -> AdapterBank:
    return toy_bank(toy_backbone(), RANKS, MODULES)


def batch(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, 8, 40, generator=generator), torch.randint(256, (rows, 6), generator=generator)


def logits(bank: AdapterBank, languages: list[str | None]) -> Tensor:
    mel, tokens = batch(len(languages))
    with torch.inference_mode():
        return bank.backbone.model(mel, tokens, routing=bank.route(languages))


# --- Promise 2: fresh and absent adapters -----------------------------------------------------------------


@pytest.mark.parametrize("languages", [["da", "da"], ["da", "pl"], [None, "da"], ["da", "is"]])
def test_a_fresh_adapter_is_the_backbone_bit_for_bit(languages: list[str | None]) -> None:
    expected = logits(AdapterBank(toy_backbone()), [None, None])
    bank = toy_bank(toy_backbone(), RANKS)
    bank.add("da", SMALL, token_language="en")
    bank.add("is", LoRAConfig(rank=5, modules=("q", "fc2")), token_language="en")
    found = logits(bank, languages)
    for row, language in enumerate(languages):
        assert torch.equal(found[row], expected[row]) == (language != "pl")


def test_adapters_off_is_the_backbone_bit_for_bit_whatever_is_loaded(bank: AdapterBank) -> None:
    plain = toy_backbone().model
    mel, tokens = batch(3)
    expected = plain(mel, tokens)
    assert torch.equal(logits(bank, [None] * 3), expected)
    mixed = logits(bank, ["pl", None, "it"])
    assert torch.equal(mixed[1], expected[1])
    assert (mixed - expected)[[0, 2]].abs().amax((1, 2)).min() > 0.01
    assert weights_fingerprint(bank.backbone.model) == weights_fingerprint(plain)
    assert list(bank.backbone.model.state_dict()) == list(plain.state_dict())


def test_a_mixed_batch_is_each_language_alone(bank: AdapterBank) -> None:
    languages = ["pl", "it", None, "cy", "pl"]
    mixed = logits(bank, languages)
    for language in set(languages):
        alone = logits(bank, [language] * len(languages))
        rows = [row for row, other in enumerate(languages) if other == language]
        torch.testing.assert_close(mixed[rows], alone[rows], atol=1e-4, rtol=1e-4)


# --- Promise 4: merging -----------------------------------------------------------------------------------


def test_merged_equals_unmerged(bank: AdapterBank) -> None:
    mel, tokens = batch(2)
    before = weights_fingerprint(bank.backbone.model)
    merged = bank.merge("it")
    torch.testing.assert_close(merged(mel, tokens), logits(bank, ["it", "it"]), atol=1e-4, rtol=1e-4)
    assert (merged(mel, tokens) - logits(bank, [None, None])).abs().max() > 0.01
    assert {type(layer) for layer in merged.modules() if isinstance(layer, Linear)} == {Linear}
    for parameter in merged.parameters():
        parameter.data.zero_()  # the copy shares nothing
    assert weights_fingerprint(bank.backbone.model) == before
    assert all(isinstance(bank.backbone.model.get_submodule(path), Adapted) for path in bank.layers)
    assert logits(bank, ["it", "it"]).abs().max() > 0.01


# --- Promise 5: what one language's optimiser may touch ---------------------------------------------------


def test_training_one_language_leaves_the_others_and_the_backbone_byte_identical(bank: AdapterBank) -> None:
    before = {adapter.tag: adapter.fingerprint for adapter in bank}
    backbone = {name: value.clone() for name, value in bank.backbone.model.state_dict().items()}
    optimiser = torch.optim.AdamW(bank["pl"].parameters(), lr=0.1, weight_decay=0.5)
    mel, tokens = batch(3)
    for _ in range(2):
        bank.backbone.model(mel, tokens, routing=bank.route(["pl", "it", None])).logsumexp(
            -1
        ).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    after = {adapter.tag: adapter.fingerprint for adapter in bank}
    assert {tag for tag in before if before[tag] != after[tag]} == {"pl"}
    for name, value in bank.backbone.model.state_dict().items():
        assert torch.equal(value, backbone[name]), name
    assert all(parameter.grad is None for parameter in bank.backbone.model.parameters())
    assert all(parameter.grad is None for parameter in bank["cy"].parameters())


# --- Promise 7: numbers of parameters ---------------------------------------------------------------------

GEOMETRIES = {  # width, encoder layers, decoder layers
    "tiny": (384, 4, 4),
    "base": (512, 6, 6),
    "small": (768, 12, 12),
    "medium": (1024, 24, 24),
    "large-v3": (1280, 32, 32),
    "turbo": (1280, 32, 4),
}
WITHOUT_OUT = LoRAConfig(modules=("q", "k", "v", "fc1", "fc2"))


@pytest.mark.parametrize(
    ("size", "config", "expected"),
    [
        ("tiny", LoRAConfig(), 2_162_688),
        ("base", LoRAConfig(), 4_325_376),
        ("small", LoRAConfig(), 12_976_128),  # the paper's 13 M
        ("small", WITHOUT_OUT, 11_206_656),
        ("medium", LoRAConfig(), 34_603_008),
        ("large-v3", LoRAConfig(), 57_671_680),
        ("turbo", LoRAConfig(), 27_852_800),
    ],
)
def test_number_of_parameters(size: str, config: LoRAConfig, expected: int) -> None:
    width, encoder, decoder = GEOMETRIES[size]
    with torch.device("meta"):
        heads = width // 64
        model = Whisper(
            ModelDimensions(80, 1500, width, heads, encoder, 100, 448, width, heads, decoder)
        ).eval()
    tokenizer = SimpleNamespace(languages=("pl",))
    backbone = SimpleNamespace(
        model=model, tokenizer=tokenizer, name=size, fingerprint="0", audio_context="full"
    )
    assert AdapterBank(backbone).add("pl", config).n_parameters == expected


# --- Adding, finding, removing ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_adapter_whatever_the_language() -> None:
    bank = AdapterBank(toy_backbone())
    one, two, other = (
        bank.add("pl", SMALL, seed=1),
        bank.add("it", SMALL, seed=1),
        bank.add("cy", SMALL, seed=2),
    )
    assert one.fingerprint == two.fingerprint != other.fingerprint
    first, second = list(one.parts.values())[:2]
    assert not torch.equal(first.a, second.a)  # layers differ


def test_a_layer_starts_the_same_whatever_other_modules_take_part() -> None:
    bank = AdapterBank(toy_backbone())
    path = "decoder.blocks.1.cross_attn.query"
    few = bank.add("pl", LoRAConfig(modules=("q",)))
    assert torch.equal(few.parts[path].a, bank.add("it").parts[path].a)
    assert {path.rpartition(".")[2] for path in few.parts} == {"query"}


def test_tags_are_normalised() -> None:
    bank = AdapterBank(toy_backbone())
    adapter = bank.add("zh_hant", SMALL)
    assert adapter.tag == "zh-Hant"
    assert adapter.info.token_language == "zh"
    assert bank["ZH-hant"] is adapter
    assert "zh_Hant" in bank
    assert "zh" not in bank
    with pytest.raises(AdapterError, match="an adapter for zh-Hant already; remove it first"):
        bank.add("zh-hant", SMALL)
    with pytest.raises(UnknownLanguage, match="polnish"):
        bank.add("polnish", SMALL)


def test_a_warm_start_copies_and_then_goes_its_own_way(bank: AdapterBank) -> None:
    source = bank["pl"].fingerprint
    adapter = bank.add("sk", start="pl")
    assert adapter.fingerprint == source
    assert (adapter.info.start.language, adapter.info.start.fingerprint) == ("pl", source)
    assert (adapter.config, adapter.info.token_language) == (bank["pl"].config, "pl")
    assert torch.equal(logits(bank, ["sk", "sk"]), logits(bank, ["pl", "pl"]))
    adapter.parameters()[0].data.add_(1)
    assert bank["pl"].fingerprint == source != adapter.fingerprint


def test_a_warm_start_needs_the_shape_of_its_source(bank: AdapterBank) -> None:
    with pytest.raises(AdapterError, match=r"sk cannot start from pl.*rank=8"):
        bank.add("sk", LoRAConfig(rank=8), start="pl")
    with pytest.raises(UnknownLanguage, match="no adapter for 'ja'; there are pl, it, cy"):
        bank.add("sk", start="ja")
    assert bank.tags == ("pl", "it", "cy")


def test_a_language_without_a_token_needs_a_proxy() -> None:
    bank = AdapterBank(toy_backbone())
    assert bank.has_token("zh-TW")
    assert not bank.has_token("szl")
    with pytest.raises(UnknownLanguage, match=r"szl: toy has no token for it; choose"):
        bank.add("szl", SMALL)
    with pytest.raises(UnknownLanguage, match="xx: toy has no token"):
        bank.add("pl", SMALL, token_language="xx")
    assert bank.add("szl", SMALL, token_language="pl").info.token_language == "pl"


def test_routes_to_the_nearest_parent(bank: AdapterBank) -> None:
    routing = bank.route(["it-CH", None, "pl", "it"])
    it, pl = bank["it"].slot, bank["pl"].slot
    assert routing.adapter_ids.tolist() == [[it], [-1], [pl], [it]]
    assert routing.gates.tolist() == [[1.0], [0.0], [1.0], [1.0]]
    exact = bank.add("it-CH", start="it")
    assert bank.route(["it-CH"]).adapter_ids.tolist() == [[exact.slot]]
    assert bank.route([None, None]) is None


def test_an_unknown_language_is_told_what_there_is(bank: AdapterBank) -> None:
    with pytest.raises(UnknownLanguage, match="no adapter for 'da'; there are pl, it, cy"):
        bank.route(["pl", "da"])
    with pytest.raises(UnknownLanguage, match="none yet"):
        AdapterBank(toy_backbone())["pl"]


def test_removing_leaves_the_others_as_they_are(bank: AdapterBank) -> None:
    expected = logits(bank, ["it", "cy"])
    bank.remove("pl")
    assert bank.tags == ("it", "cy")
    assert torch.equal(logits(bank, ["it", "cy"]), expected)
    with pytest.raises(UnknownLanguage, match="'pl'"):
        bank.route(["pl"])
    bank.add("pl", SMALL)
    assert torch.equal(logits(bank, ["it", "cy"]), expected)


def test_two_banks_share_a_backbone_without_meeting() -> None:
    backbone = toy_backbone()
    one = toy_bank(backbone, {"pl": 4})
    expected = logits(one, ["pl"])
    two = toy_bank(backbone, {"pl": 2, "it": 4})
    assert torch.equal(logits(one, ["pl"]), expected)
    assert not torch.equal(logits(two, ["pl"]), expected)
    assert one.tags == ("pl",)
    two.remove("pl")
    assert torch.equal(logits(one, ["pl"]), expected)


def test_adding_the_thousandth_adapter_costs_what_the_first_did() -> None:
    bank, calls = AdapterBank(toy_backbone()), []
    tiny = LoRAConfig(rank=1, modules=("q",))
    tags = [
        f"q{a}{b}{region}"
        for region in ("", "-PL", "-IT", "-DE")
        for a in "abcdefghij"
        for b in ascii_lowercase
    ]
    gc.disable()  # or what others left behind would be counted when it is collected
    try:
        for tag in tags[:1000]:
            normalize_tag(tag)  # which is remembered
            calls.append(0)
            sys.setprofile(lambda *event: calls.__setitem__(-1, calls[-1] + 1))
            bank.add(tag, tiny, token_language="en")
            sys.setprofile(None)
    finally:
        gc.enable()
    assert len(bank) == 1000
    assert max(calls[1:]) < 1.1 * min(calls[1:])


def test_restores_a_copy_in_place(bank: AdapterBank) -> None:
    kept, fingerprint, parameters = bank.tensors("pl"), bank["pl"].fingerprint, bank["pl"].parameters()
    for parameter in parameters:
        parameter.data.add_(1)
    assert bank["pl"].fingerprint != fingerprint
    bank.restore("pl", kept)
    assert bank["pl"].fingerprint == fingerprint
    assert all(now is then for now, then in zip(bank["pl"].parameters(), parameters, strict=True))
    with pytest.raises(AdapterError, match="do not fit adapter it"):
        bank.restore("it", kept)
    with pytest.raises(AdapterError, match="do not fit adapter pl"):
        bank.restore("pl", dict(list(kept.items())[1:]))


# --- Saving and loading -----------------------------------------------------------------------------------


def test_loads_what_it_saved(bank: AdapterBank, tmp_path: Path) -> None:
    bank.add("sk", start="pl")
    for tag in bank.tags:
        bank.save(tag, tmp_path / tag)
    fresh = AdapterBank(toy_backbone())
    loaded = fresh.load_all(tmp_path)
    assert sorted(fresh.tags) == [adapter.tag for adapter in loaded] == ["cy", "it", "pl", "sk"]
    for adapter in loaded:
        assert adapter.info == bank[adapter.tag].info
        assert adapter.config == bank[adapter.tag].config
        assert adapter.fingerprint == bank[adapter.tag].fingerprint
    assert all(parameter.requires_grad for parameter in loaded[0].parameters())
    languages = ["sk", "it", None, "cy"]
    assert torch.equal(logits(fresh, languages), logits(bank, languages))
    with pytest.raises(AdapterError, match="adapter for pl already"):
        fresh.load(tmp_path / "pl")


def test_an_adapter_keeps_its_audio_context(tmp_path: Path) -> None:
    bank = toy_bank(toy_backbone("full"), {"pl": 2})
    bank.save("pl", tmp_path / "pl")
    assert AdapterBank(toy_backbone("dynamic")).load(tmp_path / "pl").info.audio_context == "full"


@pytest.mark.parametrize("name", ["tuned", "toy"])
def test_refuses_an_adapter_of_another_backbone(bank: AdapterBank, tmp_path: Path, name: str) -> None:
    bank.save("pl", tmp_path / "pl")
    toy = toy_backbone()
    toy.model.encoder.conv1.weight.data.mul_(1.5)
    other = Backbone(toy.model, toy.tokenizer, name)
    with pytest.raises(BackboneMismatch) as raised:
        AdapterBank(other).load(tmp_path / "pl")
    message = str(raised.value)
    for part in (str(tmp_path / "pl"), "toy", bank.backbone.fingerprint, name, other.fingerprint):
        assert part in message
    assert "\n" not in message


def test_refuses_a_folder_without_adapters(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(AdapterError, match="no adapters there; expected folders such as"):
            AdapterBank(toy_backbone()).load_all(root)


def test_a_damaged_adapter_among_others_is_not_passed_over(bank: AdapterBank, tmp_path: Path) -> None:
    for tag in bank.tags:
        bank.save(tag, tmp_path / tag)
    (tmp_path / "it" / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"it/adapter_config.json: missing"):
        AdapterBank(toy_backbone()).load_all(tmp_path)


def test_languages_that_share_an_adapter_change_together() -> None:
    bank = toy_bank(toy_backbone(), {"it": 2})
    shared = bank.add_shared("pl", "it")
    assert (shared.tag, shared.info.token_language, bank["it"].tag) == ("pl", "pl", "it")
    assert shared.fingerprint == bank["it"].fingerprint and shared.slot != bank["it"].slot
    next(iter(bank["it"].parts.values())).b.data.add_(1)
    assert shared.fingerprint == bank["it"].fingerprint
    bank.remove("it")
    assert bank.route(["pl"]) is not None and bank.tags == ("pl",)
