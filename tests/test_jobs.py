from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_whisper import toy_backbone

from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.errors import LoraWhisperError, TrainingError, UnknownLanguage
from lora_whisper.jobs import Corpus, add_language, data_fingerprint, hold_out, similarity, train_adapters
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.layers import LoRAConfig
from lora_whisper.training.trainer import TrainConfig

CONFIG = TrainConfig(epochs=2, learning_rate=1e-3, batch_s=4.0, precision="fp32", seed=3)


@pytest.fixture
def corpus(speech_folder: Path) -> Corpus:
    return hold_out(read_manifest(speech_folder / "manifest.jsonl"), share=0.2)


def test_hold_out_takes_every_nth_of_each_language(corpus: Corpus) -> None:
    assert [u.id for u in corpus.dev] == ["pl-4", "pl-9", "it-4", "it-9"]
    assert len(corpus.train) == 16
    assert corpus.languages == ["pl", "it"]


def test_a_corpus_of_one_language(corpus: Corpus) -> None:
    assert {u.language for u in corpus.of("it").train} == {"it"}
    with pytest.raises(UnknownLanguage, match="no training utterances in cy; there are some in pl, it"):
        corpus.of("cy")


def test_training_records_what_it_was(corpus: Corpus, tmp_path: Path) -> None:
    bank = AdapterBank(toy_backbone())
    adapters = [bank.add(tag, LoRAConfig(4)) for tag in ("pl", "it")]
    before = {adapter.tag: adapter.fingerprint for adapter in adapters}
    states = train_adapters(bank, adapters, corpus, CONFIG, tmp_path)
    assert {tag: len(state.epochs) for tag, state in states.items()} == {"pl": 2, "it": 2}
    for adapter in adapters:
        assert adapter.fingerprint != before[adapter.tag]
        assert set(adapter.info.scores) == {"dev_loss", "dev_wer", "dev_cer"}
        assert adapter.info.seed == 3
        assert adapter.info.data_fingerprint == data_fingerprint(corpus.of(adapter.tag).train)
    assert adapters[0].info.data_fingerprint != adapters[1].info.data_fingerprint


def test_bad_audio_is_reported_and_the_rest_is_trained(corpus: Corpus, tmp_path: Path) -> None:
    gone = Utterance(tmp_path / "gone.wav", "kot", "pl", duration_s=1.0)
    faults: list[LoraWhisperError] = []
    bank = AdapterBank(toy_backbone())
    damaged = replace(corpus, train=[gone, *corpus.train])
    train_adapters(
        bank,
        [bank.add("pl", LoRAConfig(4))],
        damaged,
        CONFIG,
        tmp_path / "run",
        report=lambda utterance, error: faults.append(error),
    )
    assert len(faults) == 1 and "gone.wav" in str(faults[0])


def test_without_anyone_to_report_to_bad_audio_ends_the_job(corpus: Corpus, tmp_path: Path) -> None:
    bank = AdapterBank(toy_backbone())
    only = Corpus([Utterance(tmp_path / "gone.wav", "kot", "pl", duration_s=1.0)], [])
    with pytest.raises(TrainingError, match=r"gone\.wav"):
        train_adapters(bank, [bank.add("pl", LoRAConfig(4))], only, CONFIG, tmp_path / "run")


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
        bank.add(tag, LoRAConfig(4))
    for number, source in enumerate(("en", "it")):
        part = add_language(bank, "pl", corpus, CONFIG, tmp_path / str(number), start=source)
        assert part.adapter.info.start is not None and part.adapter.info.start.language == source
        bank.remove("pl")
    fresh = add_language(bank, "pl", corpus, CONFIG, tmp_path / "scratch", lora=LoRAConfig(2))
    assert fresh.adapter.info.start is None and fresh.adapter.config.rank == 2


def test_a_language_without_a_token_borrows_that_of_its_source(speech_folder: Path, tmp_path: Path) -> None:
    rows = read_manifest(speech_folder / "manifest.jsonl", languages=["it"])
    corpus = hold_out([replace(row, language="sc") for row in rows], share=0.2)
    bank = AdapterBank(toy_backbone())
    bank.add("it", LoRAConfig(4))
    assert add_language(bank, "sc", corpus, CONFIG, tmp_path).adapter.info.token_language == "it"


def test_similarity_needs_no_adapters(corpus: Corpus) -> None:
    found = similarity(toy_backbone(), {"pl": "pl", "en": "en", "it": "it"}, corpus.of("pl").train)
    assert sum(found.values()) == pytest.approx(1) and len(found) == 3
