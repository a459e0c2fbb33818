from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_whisper import toy_backbone

from lora_whisper.data.batching import UtteranceRows
from lora_whisper.data.conditions import OTHER_PEOPLE, ROBUST, Condition
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.errors import LoraWhisperError, TrainingError, UnknownLanguage
from lora_whisper.jobs import Corpus, data_fingerprint, hold_out, similarity, train_adapters
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.training.trainer import TrainConfig

CONFIG = TrainConfig(epochs=2, learning_rate=1e-3, batch_s=4.0, precision="fp32", seed=3)


@pytest.fixture
def corpus(speech_folder: Path) -> Corpus:
    return hold_out(read_manifest(speech_folder / "manifest.jsonl"), share=0.2)


def test_hold_out_takes_every_nth_of_each_language(corpus: Corpus) -> None:
    assert [u.id for u in corpus.dev] == ["pl-4", "pl-9", "it-4", "it-9"]
    assert len(corpus.train) == 16
    assert corpus.languages == ["pl", "it"]


def test_others_are_learned_from_but_not_what_only_the_held_out_say() -> None:
    def said(*texts: str) -> list[Utterance]:
        return [Utterance(Path(f"{text}.wav"), text, "pl") for text in texts]

    corpus = Corpus(said("a", "b"), said("b", "c")).beside(said("a", "b", "c", "d"))
    assert [one.text for one in corpus.train] == ["a", "b", "a", "b", "d"]
    assert [one.text for one in corpus.dev] == ["b", "c"]


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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"perturb": True}, ROBUST),
        ({"paces": True}, OTHER_PEOPLE),
        ({"perturb": True, "paces": True}, OTHER_PEOPLE),
    ],
)
def test_conditions_are_those_asked_for(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, bool],
    expected: Condition | None,
) -> None:
    given = []

    class Rows(UtteranceRows):
        def __init__(self, *arguments: Any, condition: Condition | None = None, **more: Any) -> None:
            given.append(condition)
            super().__init__(*arguments, condition=condition, **more)

    monkeypatch.setattr("lora_whisper.jobs.UtteranceRows", Rows)
    bank = AdapterBank(toy_backbone())
    train_adapters(bank, [bank.add("pl", LoRAConfig(4))], corpus, replace(CONFIG, **options), tmp_path)
    assert given == [expected, None]  # to train and to choose the epoch


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


def test_similarity_needs_no_adapters(corpus: Corpus) -> None:
    found = similarity(toy_backbone(), {"pl": "pl", "en": "en", "it": "it"}, corpus.of("pl").train)
    assert sum(found.values()) == pytest.approx(1) and len(found) == 3
