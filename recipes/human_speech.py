"""Adapt `mini` to people: `python recipes/human_speech.py SPEECH/manifest.jsonl` (minutes on two cores).

Each scored on what it has not been trained on: English digits of other speakers (a mixture), German
sentences, Chinese and Swedish words of the same speaker. They train in random voices, noise, echo, channels,
loudness and speed, with parts of the spectrograms hidden, some beside the same texts in synthetic voices.
The adapters of the digits start from one that has heard all other people, in all languages, first.
For the digits these need the extra `voices`, flite (`apt-get install flite`) and `scripts/kokoro.py`.
The Chinese words are spoken beside frequent ones of the language, which need the extra `pretrain`.
Writes runs/human/human_speech.json and prints the table of docs/results.md.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.batching import JoinedRows
from lora_whisper.data.conditions import OTHER_PEOPLE
from lora_whisper.data.kokoro import Kokoro
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.spoken import prepare_spoken
from lora_whisper.data.words import words
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.metrics import Rate
from lora_whisper.evaluation.report import percent
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.files import write_json
from lora_whisper.jobs import Corpus, adapter_rows, train_adapters
from lora_whisper.lora.bank import AdapterBank, Expert
from lora_whisper.lora.parts import LINEAR, MODULES, LoRAConfig
from lora_whisper.model.checkpoint import load_backbone
from lora_whisper.training.methods import Track
from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitors
from lora_whisper.training.trainer import TrainConfig, train

TEST_SPEAKERS = {"theo", "yweweler"}
PEOPLE_EPOCHS, PEOPLE_BATCH_S = 8, 40.0
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Experiment:
    """One adapter on human speech.

    Attributes:
        name: what is said, by whom.
        language: tag.
        speakers: whose recordings are used; None for all.
        part: "train", "dev" or "test" for the n-th utterance.
        paces: hear other paces and cuts, too.
        by_speaker: each speaker in turn is the development set of an adapter that the others train, and what
            is scored is the mixture of all of them, with equal weights; no utterance is in part "dev" then.
        epochs: of training.
        batch_s: seconds of a batch; small for little speech, which needs steps.
        copies: in how many synthetic voices each training text is spoken, too.
        n_words: of how many of the most frequent words of the language those are spoken likewise that are in
            no recording of part "dev" or "test".
        recorded: share of these voices that were made from recordings of other people.
        neural: share that are mixtures of Kokoro's.
        sample_rate: of the recordings, in Hz, if it is below Whisper's: these voices are as dull.
        after_people: the adapters start from one that has heard everybody else in the manifest, in all
            languages that the backbone knows.
        seed: of these voices and of training.
    """

    name: str
    language: str
    speakers: frozenset[str]
    part: Callable[[int, Utterance], str]
    epochs: int
    batch_s: float = 60.0
    copies: int = 0
    n_words: int = 0
    recorded: float = 0.0
    neural: float = 0.0
    sample_rate: int = SAMPLE_RATE
    paces: bool = False
    by_speaker: bool = False
    after_people: bool = False
    seed: int = 0


def other_speakers(_: int, utterance: Utterance) -> str:
    """Other speakers for the test."""
    return "test" if utterance.speaker in TEST_SPEAKERS else "train"


def every_tenth(index: int, _: Utterance) -> str:
    """Two utterances in ten for the test, one for development."""
    return {3: "test", 6: "dev", 8: "test"}.get(index % 10, "train")


EXPERIMENTS = (
    Experiment(
        "English digits, unseen speakers",
        "en",
        frozenset({"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}),
        other_speakers,
        10,
        5.0,
        copies=60,
        recorded=0.25,
        neural=0.5,
        sample_rate=8000,
        paces=True,
        by_speaker=True,
        after_people=True,
    ),
    Experiment(
        "German sentences, one speaker, unseen sentences", "de", frozenset({"Kerstin"}), every_tenth, 20
    ),
    Experiment(
        "Chinese words, one speaker, unseen words",
        "zh",
        frozenset({"Yue Tan"}),
        every_tenth,
        12,
        copies=1,
        n_words=40_000,
    ),
    Experiment("Swedish words, one speaker, unseen words", "sv", frozenset({"LoppanSune"}), every_tenth, 30),
)


def run(
    experiment: Experiment,
    utterances: Sequence[Utterance],
    backbone: str,
    shape: LoRAConfig,
    kokoro: Path,
    folder: Path,
) -> dict[str, Any]:
    """Rates before and after, as they are."""
    chosen = [u for u in utterances if u.language == experiment.language and u.speaker in experiment.speakers]
    parts: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for index, utterance in enumerate(chosen):
        parts[experiment.part(index, utterance)].append(utterance)
    bank = AdapterBank(load_backbone(backbone))
    before = evaluate(LoraWhisper(bank.backbone), parts["test"])
    language = experiment.language
    folds = {language: Corpus(parts["train"], parts["dev"])}
    if experiment.by_speaker:
        folds = {f"{language}-x-{name}": corpus for name, corpus in by_speakers(parts["train"]).items()}
    words_beside = other_words(experiment, [*parts["dev"], *parts["test"]])
    said = [*parts["train"], *words_beside]
    copies = spoken(experiment, said, kokoro, folder) if experiment.copies else []
    others = [u for u in utterances if u.speaker not in experiment.speakers]
    start = hear_people(bank, others, shape, experiment.seed, folder) if experiment.after_people else None
    epochs = {
        tag: trained(bank, tag, shape, start, corpus.beside(copies), experiment, folder / tag)
        for tag, corpus in folds.items()
    }
    if experiment.by_speaker:
        experts = [Expert(tag, bank[tag].fingerprint, 1 / len(folds)) for tag in folds]
        bank.add_mixture(language, experts)
    after = evaluate(LoraWhisper(bank.backbone, bank), parts["test"])
    for name, result in (("before", before), ("after", after)):
        result.save(folder / f"{name}.json")
    return {
        "name": experiment.name,
        "utterances": {name: len(part) for name, part in parts.items()},
        "train_minutes": round(sum(u.duration_s or 0 for u in parts["train"]) / 60, 1),
        "epochs": epochs,
        "before": rates(before, language),
        "after": rates(after, language),
    }


def other_words(experiment: Experiment, held_out: Sequence[Utterance]) -> list[Utterance]:
    """Frequent words of the language, without sound, but for the texts held out."""
    unwanted = {one.text for one in held_out}
    frequent = words(experiment.language, experiment.n_words) if experiment.n_words else ()
    return [Utterance(Path(), word, experiment.language) for word in frequent if word not in unwanted]


def spoken(
    experiment: Experiment, utterances: Sequence[Utterance], kokoro: Path, folder: Path
) -> list[Utterance]:
    """Their texts in synthetic voices."""
    manifest = prepare_spoken(
        utterances,
        experiment.copies,
        experiment.seed,
        folder / "spoken",
        recorded_share=experiment.recorded,
        sample_rate=experiment.sample_rate,
        neural=Kokoro(kokoro) if experiment.neural else None,
        neural_share=experiment.neural,
    )
    return read_manifest(manifest)


def hear_people(
    bank: AdapterBank, utterances: Sequence[Utterance], shape: LoRAConfig, seed: int, folder: Path
) -> str | None:
    """Train one adapter on all of these people, whatever known language they speak; its tag, if any do."""
    by_language = {
        f"{language}-x-people": said
        for language in bank.backbone.tokenizer.languages
        if (said := [one for one in utterances if one.language == language])
    }
    if not by_language:
        return None
    first, *rest = by_language
    shared = bank.add(first, shape, seed=seed)
    for tag in rest:
        bank.add_shared(tag, first)
    rows = JoinedRows(
        [adapter_rows(bank, bank[tag], said, print, OTHER_PEOPLE, seed) for tag, said in by_language.items()]
    )
    config = TrainConfig(
        epochs=PEOPLE_EPOCHS,
        learning_rate=LEARNING_RATE,
        batch_s=PEOPLE_BATCH_S,
        spec_augment=True,
        seed=seed,
    )
    track = Track("people", shared.named_parameters(), rows, route=shared.route)
    monitor = Monitors(ConsoleMonitor(), LogMonitor(folder / "people"))
    train(bank.backbone.model, [track], config, folder / "people" / "checkpoints", monitor=monitor)
    return first


def trained(
    bank: AdapterBank,
    tag: str,
    shape: LoRAConfig,
    start: str | None,
    corpus: Corpus,
    experiment: Experiment,
    folder: Path,
) -> int:
    """Train a new adapter; for how many epochs it was."""
    config = TrainConfig(
        epochs=experiment.epochs,
        learning_rate=LEARNING_RATE,
        batch_s=experiment.batch_s,
        patience=8,
        perturb=True,
        paces=experiment.paces,
        spec_augment=True,
        seed=experiment.seed,
    )
    parts = ([replace(one, language=tag) for one in part] for part in (corpus.train, corpus.dev))
    adapter = bank.add(tag, shape, seed=experiment.seed, start=start, token_language=experiment.language)
    monitor = Monitors(ConsoleMonitor(), LogMonitor(folder))
    states = train_adapters(bank, [adapter], Corpus(*parts), config, folder, monitor=monitor)
    return len(states[adapter.tag].epochs)


def by_speakers(utterances: Sequence[Utterance]) -> dict[str, Corpus]:
    """By the name of each speaker: those of all others to train on, and that one's to choose the epoch by."""
    return {
        name: Corpus(
            [one for one in utterances if one.speaker != name],
            [one for one in utterances if one.speaker == name],
        )
        for name in sorted({str(one.speaker) for one in utterances})
    }


def rates(result: EvaluationResult, tag: str) -> dict[str, dict[str, float]]:
    """Word and character error rate with their intervals."""
    score = result.scores()[tag]
    return {"wer": asdict(score.wer), "cer": asdict(score.cer)}


def main() -> None:
    """Run the experiments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--languages", nargs="+", default=[one.language for one in EXPERIMENTS])
    parser.add_argument("--convolutions", action="store_true", help="adapt the encoder's convolutions, too")
    parser.add_argument(
        "--kokoro", type=Path, default=Path("runs/kokoro"), help="see lora_whisper.data.kokoro"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic voices and the training")
    parser.add_argument("--out", type=Path, default=Path("runs/human"))
    arguments = parser.parse_args()
    utterances = read_manifest(arguments.manifest)
    shape = LoRAConfig(modules=MODULES if arguments.convolutions else LINEAR)
    rows = [
        run(one, utterances, arguments.backbone, shape, arguments.kokoro, arguments.out / one.language)
        for one in (replace(experiment, seed=arguments.seed) for experiment in EXPERIMENTS)
        if one.language in arguments.languages
    ]
    write_json(arguments.out / "human_speech.json", {"backbone": arguments.backbone, "experiments": rows})
    print("| speech | train, min | test clips | WER before | WER after | CER before | CER after |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        values = [percent(Rate(**row[when][rate])) for rate in ("wer", "cer") for when in ("before", "after")]
        head = [row["name"], str(row["train_minutes"]), str(row["utterances"]["test"])]
        print("| " + " | ".join(head + values) + " |")


if __name__ == "__main__":
    main()
