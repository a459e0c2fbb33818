from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_whisper import toy_backbone, toy_bank

from lora_whisper import new_language
from lora_whisper.data.manifest import read_manifest
from lora_whisper.errors import AdapterError, TrainingError
from lora_whisper.jobs import Corpus, hold_out
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.new_language import (
    METHODS,
    Beginning,
    Change,
    add_language,
    add_language_the_best_way,
    begin,
    changes,
    check_unchanged,
    fingerprints,
    scores,
    warnings,
)
from lora_whisper.training.trainer import TrainConfig

CONFIG = TrainConfig(epochs=2, learning_rate=1e-3, batch_s=4.0, precision="fp32", seed=3)


@pytest.fixture
def corpus(speech_folder: Path) -> Corpus:
    return hold_out(read_manifest(speech_folder / "manifest.jsonl"), share=0.2)


@pytest.fixture
def bank() -> AdapterBank:
    return toy_bank(toy_backbone(), {"en": 4, "it": 4})


def test_a_new_language_starts_from_the_most_similar_and_changes_no_other(
    corpus: Corpus, tmp_path: Path
) -> None:
    bank = AdapterBank(toy_backbone())
    for tag in ("en", "it"):
        adapter = bank.add(tag, LoRAConfig(4), seed=len(tag))
        for part in adapter.parts.values():
            torch.nn.init.normal_(part.b, std=0.3)
        bank.save(tag, tmp_path / "adapters" / tag)
    files = {p: p.read_bytes() for p in (tmp_path / "adapters").rglob("*") if p.is_file()}
    backbone = {name: tensor.clone() for name, tensor in bank.backbone.model.state_dict().items()}
    values = {tag: bank.tensors(tag) for tag in ("en", "it")}

    expansion = add_language(bank, "pl", corpus, CONFIG, tmp_path / "run")
    bank.save("pl", tmp_path / "adapters" / "pl")

    closest = next(iter(expansion.similarity))
    start = expansion.adapter.info.start
    assert start is not None and start.language == closest
    assert list(expansion.similarity) in (["en", "it"], ["it", "en"])
    assert all(p.read_bytes() == content for p, content in files.items())
    for tag, before in values.items():
        assert all(torch.equal(tensor, before[name]) for name, tensor in bank[tag].tensors().items())
    after = bank.backbone.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in backbone.items())


def test_a_new_language_may_start_from_a_named_one_or_from_scratch(corpus: Corpus, tmp_path: Path) -> None:
    bank = AdapterBank(toy_backbone())
    for tag in ("en", "it"):
        bank.add(tag, LoRAConfig(4, 8, ("q", "conv1")))
    for number, source in enumerate(("en", "it")):
        part = add_language(
            bank, "pl", corpus, CONFIG, tmp_path / str(number), beginning=Beginning(source=source)
        )
        assert part.adapter.info.start is not None and part.adapter.info.start.language == source
        bank.remove("pl")
    fresh = add_language(
        bank, "pl", corpus, CONFIG, tmp_path / "scratch", beginning=Beginning("scratch", rank=2)
    )
    assert fresh.adapter.info.start is None
    assert fresh.adapter.config == LoRAConfig(2, 4, ("q", "conv1"))  # the shape of the most similar one


def test_a_language_without_a_token_borrows_that_of_its_source(speech_folder: Path, tmp_path: Path) -> None:
    rows = read_manifest(speech_folder / "manifest.jsonl", languages=["it"])
    corpus = hold_out([replace(row, language="sc") for row in rows], share=0.2)
    bank = AdapterBank(toy_backbone())
    bank.add("it", LoRAConfig(4))
    assert add_language(bank, "sc", corpus, CONFIG, tmp_path).adapter.info.token_language == "it"


@pytest.mark.parametrize("gating", ["fixed", "layer", "token"])
def test_a_mixture_learns_its_own_parameters_and_changes_no_expert(
    bank: AdapterBank, corpus: Corpus, tmp_path: Path, gating: str
) -> None:
    before = fingerprints(bank)
    beginning = Beginning("moe", gating=gating)  # type: ignore[arg-type]
    untrained = begin(bank, "pl", {"en": 0.5, "it": 0.5}, beginning, CONFIG.seed).tensors()
    untrained = {name: tensor.clone() for name, tensor in untrained.items()}
    bank.remove("pl")
    expansion = add_language(bank, "pl", corpus, CONFIG, tmp_path, beginning=beginning)
    check_unchanged(before, bank)
    info = expansion.adapter.info
    assert {expert.language for expert in info.experts} == {"en", "it"}
    assert sum(expert.weight for expert in info.experts) == pytest.approx(1)
    trained = expansion.adapter.tensors()
    assert trained.keys() == untrained.keys() and any(name.endswith(".gate") for name in trained) == (
        gating != "fixed"
    )
    unmoved = [name for name in trained if torch.equal(trained[name], untrained[name])]
    assert not [name for name in unmoved if name.endswith((".b", ".gate"))]


def test_a_threshold_keeps_far_languages_away(bank: AdapterBank) -> None:
    found = {"it": 0.6, "en": 0.4}
    for method in ("warm-start", "moe"):
        with pytest.raises(AdapterError, match="threshold"):
            begin(bank, "pl", found, Beginning(method, threshold=0.7), 0)  # type: ignore[arg-type]
    only = begin(bank, "pl", found, Beginning("moe", threshold=0.5), 0)
    assert [(expert.language, expert.weight) for expert in only.info.experts] == [("it", 1.0)]


def test_the_best_method_is_kept_and_the_others_are_told(
    bank: AdapterBank, corpus: Corpus, tmp_path: Path
) -> None:
    before = fingerprints(bank)
    expansion = add_language_the_best_way(bank, "pl", corpus, CONFIG, tmp_path)
    check_unchanged(before, bank)
    assert tuple(expansion.tried) == METHODS
    best = min(expansion.tried, key=lambda method: expansion.tried[method])
    info = bank["pl"].info
    assert ("moe" if info.experts else "warm-start" if info.start else "scratch") == best
    assert expansion.adapter is bank["pl"] and set(bank.tags) == {"en", "it", "pl"}


def test_a_method_that_is_too_far_does_not_compete(bank: AdapterBank, corpus: Corpus, tmp_path: Path) -> None:
    strict = Beginning(threshold=1.0)
    expansion = add_language_the_best_way(bank, "pl", corpus, CONFIG, tmp_path, beginning=strict)
    assert tuple(expansion.tried) == ("scratch",)
    assert expansion.adapter.info.start is None and not expansion.adapter.info.experts


def test_without_development_data_there_is_nothing_to_choose_by(
    bank: AdapterBank, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match="--dev"):
        add_language_the_best_way(bank, "pl", replace(corpus, dev=[]), CONFIG, tmp_path)


def test_a_change_of_another_adapter_or_the_backbone_does_not_go_unnoticed(bank: AdapterBank) -> None:
    before = fingerprints(bank)
    check_unchanged(before, bank)
    part = next(iter(bank["it"].parts.values()))
    part.a.data[0, 0] += 1e-3
    with pytest.raises(TrainingError, match="changed it"):
        check_unchanged(before, bank)
    part.a.data[0, 0] -= 1e-3
    bank.backbone.model.decoder.ln.bias.data[0] += 1
    with pytest.raises(TrainingError, match="the backbone"):
        check_unchanged(before, bank)


def test_the_forgetting_table_is_zero_for_the_old_ones(
    bank: AdapterBank, corpus: Corpus, tmp_path: Path
) -> None:
    test = [*corpus.of("it").dev, *corpus.of("pl").dev]
    before = scores(bank, test, None)
    add_language(bank, "pl", corpus, CONFIG, tmp_path)
    table = {change.language: change for change in changes(before, scores(bank, test, None))}
    assert table["it"].same_text and table["it"].before == table["it"].after
    assert set(table) == {"it", "pl"} and changes(None, None) == []


def test_signs_of_failure_are_named(
    bank: AdapterBank, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_language, "LARGE_SHARE", 0.0)
    expansion = add_language(bank, "pl", corpus, CONFIG, tmp_path)
    told = " | ".join(
        warnings(
            bank, expansion, [Change("it", "word", 0.1, 0.2, False), Change("pl", "word", 0.5, 0.5, True)]
        )
    )
    assert (
        "it reads differently" in told
        and "pl is no better" in told
        and "% of the backbone's parameters" in told
    )
    fine = warnings(
        bank, expansion, [Change("it", "word", 0.1, 0.1, True), Change("pl", "word", 0.5, 0.2, False)]
    )
    assert all("parameters" in warning for warning in fine)
