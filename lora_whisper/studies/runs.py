"""One run of a study: an arm and a seed → its weights, its result files and its costs, in its own folder.

A finished run has `run.json` and is not repeated; an unfinished one goes on from its checkpoint.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.files import prepare_folder, write_json
from lora_whisper.memory import peak_memory_bytes
from lora_whisper.model.checkpoint import save_backbone
from lora_whisper.new_language import fingerprints
from lora_whisper.studies.arms import Arm
from lora_whisper.studies.bench import Bench, Speech
from lora_whisper.studies.models import Model, models
from lora_whisper.training.monitor import LogMonitor
from lora_whisper.training.state import TrackState
from lora_whisper.training.trainer import train

DONE = "run.json"
TOLD, RECOGNISED = "told.json", "recognised.json"
"""Result files: the language told, and recognised among those that the model serves."""


@dataclass(frozen=True)
class Job:
    """A run to do.

    Attributes:
        arm: what is made.
        bench: of which size.
        root: folder of the bench: its speech in `speech`, its runs in `seed-N/ARM`.
        seed: of the run.
    """

    arm: Arm
    bench: Bench
    root: Path
    seed: int

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return self.root / f"seed-{self.seed}" / self.arm.name

    @property
    def done(self) -> bool:
        """Whether it has been done."""
        return (self.folder / DONE).exists()

    @property
    def ready(self) -> bool:
        """Whether the run that it goes on from has been done."""
        return not self.arm.after or (self.folder.parent / self.arm.after / DONE).exists()


@dataclass(frozen=True, eq=False)
class _Trained:
    """A model after its training, and what that took."""

    model: Model
    states: Sequence[TrackState]
    train_s: float
    unchanged: bool


def run(job: Job) -> None:
    """Train what the arm trains, score it, and keep what it cost."""
    if job.done:
        return
    folder = prepare_folder(job.folder)
    speech = Speech(job.bench, job.root / "speech")
    told: list[EvaluationResult] = []
    recognised: list[EvaluationResult] = []
    costs: list[dict[str, Any]] = []
    for number, model in enumerate(models(job.arm, job.bench, speech, folder.parent, job.seed)):
        trained = _train(model, job, folder / "checkpoints" / str(number))
        result, decode_s = _score(model, speech, "oracle")
        told.append(result)
        if all(model.bank.has_token(tag) for tag in model.serves) and len(model.serves) > 1:
            recognised.append(_score(model, speech, "auto")[0])
        costs.append(_costs(trained, result, decode_s))
        _save(trained, job)
    _joined(told).save(folder / TOLD)
    if recognised:
        _joined(recognised).save(folder / RECOGNISED)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    about = {"arm": job.arm.name, "about": job.arm.about, "seed": job.seed, "isolated": job.arm.isolated}
    write_json(folder / DONE, {**about, **_summed(costs), "peak_memory_bytes": peak_memory_bytes()})


def _train(model: Model, job: Job, folder: Path) -> _Trained:
    """The model with its learners trained, together, each on its own languages."""
    before = fingerprints(model.bank)
    own = {tag for learner in model.learners for tag in learner.dev}
    began = time.monotonic()
    states: list[TrackState] = []
    if model.learners:
        states = train(
            model.bank.backbone.model,
            [learner.track for learner in model.learners],
            job.bench.config(job.seed, job.arm.changes_backbone),
            folder,
            validate=model.validate,
            monitor=LogMonitor(folder.parent.parent),
        )
        model.bank.backbone.model.requires_grad_(False)
    after = fingerprints(model.bank)
    unchanged = all(after[tag] == value for tag, value in before.items() if tag not in own)
    return _Trained(model, states, time.monotonic() - began, unchanged)


def _score(model: Model, speech: Speech, language: Any) -> tuple[EvaluationResult, float]:
    """What the model hears in the test speech of the languages that it serves, and the seconds it takes."""
    proxies = {tag: code for tag, code in model.tokens.items() if not model.bank.has_token(tag)}
    asr = LoraWhisper(model.bank.backbone, model.bank, proxies=proxies)
    utterances = [one for one in speech.test if one.language in model.serves]
    began = time.monotonic()
    languages = list(model.serves) if language == "auto" else None
    return evaluate(asr, utterances, language=language, languages=languages), time.monotonic() - began


def _save(trained: _Trained, job: Job) -> None:
    """Keep the weights that other arms go on from."""
    if job.arm.trained == "adapters":
        for adapter in trained.model.bank:
            trained.model.bank.save(adapter.tag, job.folder / "adapters" / adapter.tag)
    elif job.arm.changes_backbone and job.arm.sharing == "all":
        name = f"{job.bench.backbone}, {job.arm.name}"
        save_backbone(replace(trained.model.bank.backbone, name=name), job.folder / "backbone")


def _costs(trained: _Trained, result: EvaluationResult, decode_s: float) -> dict[str, Any]:
    """What a model took and how its training went, ready for JSON."""
    learners = trained.model.learners
    return {
        "parameters": sum(p.numel() for one in learners for p in one.track.parameters.values()),
        "train_s": trained.train_s,
        "heard_s": sum(sum(one.track.train.durations_s) for one in learners),
        "decode_s": decode_s,
        "decoded_s": sum(one.duration_s for one in result.utterances),
        "unchanged": trained.unchanged,
        "epochs": {
            state.track.name: [{"step": one.step, **one.scores} for one in state.epochs]
            for state in trained.states
        },
        "tokens": dict(trained.model.tokens),
        "likeness": {tag: dict(found) for tag, found in trained.model.likeness.items()},
        "beginnings": {tag: dict(found) for tag, found in trained.model.beginnings.items()},
        "groups": [list(one.dev) for one in learners],
    }


def _summed(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The costs of several models together."""
    names = ("parameters", "train_s", "heard_s", "decode_s", "decoded_s")
    joined: dict[str, Any] = {name: sum(one[name] for one in costs) for name in names}
    joined["unchanged"] = all(one["unchanged"] for one in costs)
    joined["groups"] = [group for one in costs for group in one["groups"]]
    for name in ("tokens", "likeness", "beginnings"):
        joined[name] = {tag: value for one in costs for tag, value in one[name].items()}
    joined["epochs"] = {
        "+".join(group): epochs
        for one in costs
        for group, epochs in zip(one["groups"], one["epochs"].values(), strict=True)
    }
    return joined


def _joined(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """One result of several models, each of which heard other languages."""
    first = results[0]
    return replace(
        first,
        adapters={tag: print_ for one in results for tag, print_ in one.adapters.items()},
        utterances=tuple(one for result in results for one in result.utterances),
        failures=tuple(one for result in results for one in result.failures),
    )
