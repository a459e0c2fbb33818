"""The whole system at once, offline: speech, adapters, a new language, scores, and the proof of no harm.

Speech of the "field" domain (voices, texts and a telephone channel that `mini` has never met) is synthesised;
the bare backbone is scored on it; adapters are trained for some base languages; a language that `mini` has no
token for is added from the most similar adapter; and everything is scored again.
"""

import hashlib
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_whisper.data.batching import Batch, collate
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.report import (
    LearningCurve,
    Report,
    Similarity,
    Unchanged,
    compare,
    examples,
    write_report,
)
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.files import prepare_folder, write_json
from lora_whisper.jobs import Corpus, adapter_rows, similarity, train_adapters
from lora_whisper.languages import language
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.model.checkpoint import load_backbone
from lora_whisper.new_language import Expansion, add_language
from lora_whisper.training.monitor import ConsoleMonitor, LogMonitor, Monitor, Monitors, TensorBoardMonitor
from lora_whisper.training.state import TrackState
from lora_whisper.training.trainer import TrainConfig

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration.

    Attributes:
        base: languages that get an adapter first.
        new: the language that is added then.
        train: utterances of each language to train on.
        dev: to choose the best epoch by.
        test: to score.
        epochs: of training.
        learning_rate: for adapters of a backbone as small as `mini`.
        seed: of the speech and of the training.
    """

    base: tuple[str, ...] = ("pl", "pt", "it")
    new: str = "ca"
    train: int = 400
    dev: int = 40
    test: int = 120
    epochs: int = 10
    learning_rate: float = 2e-3
    seed: int = 2024

    @property
    def languages(self) -> tuple[str, ...]:
        """Base languages and the new one."""
        return (*self.base, self.new)


def run_demo(
    folder: Path, config: DemoConfig | None = None, backbone_name: str = "mini", say: Say = print
) -> dict[str, Any]:
    """The summary of a complete run, as also written to `folder/summary.json`; `folder/report.html` shows it.

    Args:
        folder: for everything the demonstration makes; an interrupted run there is resumed.
        config: its size.
        backbone_name: name or folder of the backbone.
        say: is told what is going on.

    Raises:
        OutputError: the folder cannot be written.
        MissingExtra: the `demo` extra is not installed.
    """
    config = config or DemoConfig()
    began = time.monotonic()
    _clear_finished(prepare_folder(folder))
    say(f"1/6  synthesising speech in {', '.join(config.languages)} (field domain, seed {config.seed})")
    corpus, test = _speech(folder / "data", config)
    bank = AdapterBank(load_backbone(backbone_name))

    say(f"2/6  scoring the bare backbone {backbone_name}")
    candidates = {tag: tag for tag in config.base}
    likeness = {
        tag: similarity(bank.backbone, candidates, _of(corpus.train, tag)) for tag in config.languages
    }
    proxies = {config.new: next(iter(likeness[config.new]))}
    before = evaluate(LoraWhisper(bank.backbone, proxies=proxies), test)

    say(f"3/6  training adapters for {', '.join(config.base)}, together")
    states = _train_base(bank, corpus, config, folder)
    keepsake = Keepsake(bank, test, folder / "adapters")

    say(f"4/6  adding {language(config.new).name}, warm-started from the most similar adapter")
    expansion = add_language(
        bank, config.new, corpus, _training(config), folder / "new", monitor=_monitor(folder)
    )
    bank.save(config.new, folder / "adapters" / config.new)

    say("5/6  scoring all adapters, comparing the old ones with what they were")
    after = evaluate(LoraWhisper(bank.backbone, bank), test)
    unchanged = keepsake.compare()

    say("6/6  writing the report")
    run = DemoRun(
        config=config,
        bank=bank,
        test=test,
        likeness=likeness,
        states={**states, config.new: expansion.state},
        expansion=expansion,
        before=before,
        after=after,
        unchanged=unchanged,
        seconds=round(time.monotonic() - began, 1),
    )
    say(_write(run, folder).verdict())
    say(f"report: {folder / 'report.html'}   summary: {folder / 'summary.json'}")
    return _summary(run)


@dataclass(frozen=True, eq=False)
class DemoRun:
    """All that a finished demonstration knows.

    Attributes:
        config: its size.
        bank: backbone and all adapters.
        test: the utterances scored.
        likeness: language → base language → similarity, of the speech to learn from.
        states: how the training of each language went.
        expansion: how the new language was added.
        before: scores of the bare backbone.
        after: scores of the adapters.
        unchanged: what must not have changed, then and now.
        seconds: from the start to the scores.
    """

    config: DemoConfig
    bank: AdapterBank
    test: Sequence[Utterance]
    likeness: Mapping[str, Mapping[str, float]]
    states: Mapping[str, TrackState]
    expansion: Expansion
    before: EvaluationResult
    after: EvaluationResult
    unchanged: Sequence[Unchanged]
    seconds: float


def _write(run: DemoRun, folder: Path) -> Report:
    """The report, written with everything else that is kept."""
    run.before.save(folder / "results-before.json")
    run.after.save(folder / "results-after.json")
    parameters = {adapter.tag: adapter.n_parameters for adapter in run.bank}
    report = Report(
        title="LoRA-Whisper demonstration",
        introduction=_introduction(run),
        languages=compare(run.before, run.after, new=[run.config.new], adapter_parameters=parameters),
        curves=_curves(run.states),
        similarity=_similarity(run),
        unchanged=run.unchanged,
        examples=examples(run.before, run.after, audio={u.id: u.audio for u in run.test if u.id}),
        environment=_environment(run),
    )
    write_report(report, folder / "report.html")
    write_json(folder / "summary.json", _summary(run))
    return report


def _clear_finished(folder: Path) -> None:
    """Remove what a finished run left, so that this one starts anew; an unfinished one is resumed."""
    if (folder / "summary.json").exists():
        for name in ("base", "new", "adapters", "data", "tensorboard"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("log.jsonl", "summary.json"):
            (folder / name).unlink(missing_ok=True)


def _speech(folder: Path, config: DemoConfig) -> tuple[Corpus, list[Utterance]]:
    """Utterances to learn from, and others to score."""
    sizes = {"train": config.train, "dev": config.dev, "test": config.test}
    manifests = {
        split: prepare_synthetic(config.languages, split, size, config.seed, folder, domain="field")
        for split, size in sizes.items()
    }
    parts = {split: read_manifest(path) for split, path in manifests.items()}
    return Corpus(parts["train"], parts["dev"]), parts["test"]


def _train_base(bank: AdapterBank, corpus: Corpus, config: DemoConfig, folder: Path) -> dict[str, TrackState]:
    """Train and save the adapters of the base languages."""
    adapters = [bank.add(tag, LoRAConfig(), seed=config.seed) for tag in config.base]
    states = train_adapters(
        bank, adapters, corpus, _training(config), folder / "base", monitor=_monitor(folder)
    )
    for tag in config.base:
        bank.save(tag, folder / "adapters" / tag)
    return states


def _of(utterances: Sequence[Utterance], tag: str) -> list[Utterance]:
    return [utterance for utterance in utterances if utterance.language == tag]


def _training(config: DemoConfig) -> TrainConfig:
    return TrainConfig(epochs=config.epochs, learning_rate=config.learning_rate, seed=config.seed)


def _monitor(folder: Path) -> Monitor:
    return Monitors(ConsoleMonitor(), LogMonitor(folder), TensorBoardMonitor(folder / "tensorboard"))


class Keepsake:
    """What the backbone and the adapters of a bank are now, to be compared with later.

    Attributes:
        hashes: SHA-256 of each adapter's saved files, and of the backbone's weights, by name.
        logits: scores of a fixed batch, by name; "backbone" is the bare one.
    """

    def __init__(self, bank: AdapterBank, utterances: Sequence[Utterance], folder: Path) -> None:
        self._bank, self._folder, self._tags = bank, folder, bank.tags
        self._batches = {tag: self._batch(tag, utterances) for tag in self._tags}
        self.hashes, self.logits = self._hashes(), self._logits()

    def compare(self) -> tuple[Unchanged, ...]:
        """Each thing then and now."""
        hashes, logits = self._hashes(), self._logits()
        return tuple(
            Unchanged(name, self.hashes[name], hashes[name], torch.equal(self.logits[name], logits[name]))
            for name in self.hashes
        )

    def _batch(self, tag: str, utterances: Sequence[Utterance]) -> Batch:
        rows = adapter_rows(self._bank, self._bank[tag], _of(utterances, tag)[:4])
        return collate([rows.row(i) for i in range(len(rows.utterances))])

    def _hashes(self) -> dict[str, str]:
        weights = hashlib.sha256()
        for _, tensor in sorted(self._bank.backbone.model.state_dict().items()):
            weights.update(tensor.detach().cpu().numpy().tobytes())
        return {"backbone": weights.hexdigest()} | {
            f"adapter {tag}": _folder_hash(self._folder / tag) for tag in self._tags
        }

    @torch.inference_mode()
    def _logits(self) -> dict[str, Tensor]:
        model = self._bank.backbone.model
        logits = {}
        for tag, batch in self._batches.items():
            routing = self._bank.route([tag] * len(batch.mel))
            logits[f"adapter {tag}"] = model(batch.mel, batch.tokens, batch.n_positions, routing)
        batch = next(iter(self._batches.values()))
        return {"backbone": model(batch.mel, batch.tokens, batch.n_positions)} | logits


def _folder_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of the files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _summary(run: DemoRun) -> dict[str, Any]:
    """What `summary.json` holds; the rates are CER."""
    return {
        "languages": {
            tag: {
                "before": asdict(run.before.scores()[tag].cer),
                "after": asdict(run.after.scores()[tag].cer),
                "new": tag == run.config.new,
            }
            for tag in run.config.languages
        },
        "unchanged": all(one.holds for one in run.unchanged),
        "seconds": run.seconds,
    }


def _introduction(run: DemoRun) -> str:
    names = [language(tag).name for tag in run.config.base]
    heard_as = run.expansion.similarity.items()
    shares = ", ".join(f"{language(tag).name} {share:.0%}" for tag, share in heard_as)
    source = run.expansion.adapter.info.start
    origin = f"the {language(source.language).name} adapter" if source else "nothing"
    return (
        "The bundled backbone has learned from synthetic speech. Here it meets other voices, other "
        f"texts and a noisy telephone. Adapters were trained for {', '.join(names)}; then "
        f"{language(run.config.new).name}, which the backbone has no token for, was added. The backbone "
        f"takes it for: {shares}; so it started from {origin}."
    )


def _curves(states: Mapping[str, TrackState]) -> list[LearningCurve]:
    return [
        LearningCurve(
            tag,
            [epoch.epoch for epoch in state.epochs],
            [epoch.scores["loss"] for epoch in state.epochs],
            [epoch.scores["cer"] for epoch in state.epochs],
        )
        for tag, state in states.items()
    ]


def _similarity(run: DemoRun) -> Similarity:
    source = run.expansion.adapter.info.start
    rows, columns = run.config.languages, run.config.base
    return Similarity(
        rows=rows,
        columns=columns,
        values=[[run.likeness[row][column] for column in columns] for row in rows],
        chosen={run.config.new: source.language} if source else {},
    )


def _environment(run: DemoRun) -> dict[str, str]:
    config, backbone = run.config, run.bank.backbone
    return {
        "LoRA-Whisper": f"{run.before.package_version} ({(run.before.git_revision or 'no checkout')[:12]})",
        "backbone": f"{backbone.name}, weights {backbone.fingerprint[:19]}…",
        "PyTorch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "Python": platform.python_version(),
        "utterances per language": f"{config.train} train, {config.dev} dev, {config.test} test",
        "training": f"{config.epochs} epochs, learning rate {config.learning_rate:g}, seed {config.seed}",
        "time": f"{run.seconds:.0f} s",
    }
