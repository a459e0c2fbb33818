import json
import math
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_training import DIMS, Bench, equal, rows

from lora_whisper.data.batching import FixedRows
from lora_whisper.errors import TrainingError, UsageError
from lora_whisper.model.whisper import Whisper
from lora_whisper.training import trainer
from lora_whisper.training.checkpoint import latest_checkpoint
from lora_whisper.training.methods import Track, full
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import EpochReport, StepReport
from lora_whisper.training.trainer import TrainConfig, Validate, group_by_length, train

CONFIG = TrainConfig(epochs=3, learning_rate=1e-2, batch_s=2.0, precision="fp32", save_every=2)


class StopAt(Monitor):
    """Stops the run by an exception after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, report: StepReport) -> None:
        if report.step == self._step:
            raise KeyboardInterrupt


class Recorder(Monitor):
    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochReport] = []

    def step(self, report: StepReport) -> None:
        self.steps.append(report)

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    bench, recorder = Bench(1), Recorder()
    train(bench.model, [bench.track(0)], TrainConfig(epochs=15, learning_rate=1e-2, batch_s=2.0), tmp_path,
          monitor=recorder)  # fmt: skip
    assert recorder.steps[-1].losses["l0"] < 0.5 * recorder.steps[0].losses["l0"]


def test_training_one_language_leaves_backbone_and_other_adapters_untouched(tmp_path: Path) -> None:
    bench = Bench(2)
    backbone = {name: tensor.clone() for name, tensor in bench.model.state_dict().items()}
    other, own = bench.values(1), bench.values(0)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    assert equal(bench.values(1), other)
    assert equal(dict(bench.model.state_dict()), backbone)
    assert not equal(bench.values(0), own)


@pytest.mark.parametrize("n_steps", [1, 10_000])
def test_training_together_equals_training_alone(tmp_path: Path, n_steps: int) -> None:
    """Exactly in the first step; after all of them up to rounding, which Adam enlarges."""
    together = Bench(3)
    run_until(together, [0, 1, 2], tmp_path / "together", n_steps)
    for slot in range(3):
        alone = Bench(3)
        run_until(alone, [slot], tmp_path / f"alone-{slot}", n_steps)
        for name, value in alone.values(slot).items():
            torch.testing.assert_close(together.values(slot)[name], value, rtol=1e-3, atol=2e-3)


def run_until(bench: Bench, slots: list[int], folder: Path, n_steps: int) -> None:
    try:
        train(bench.model, [bench.track(s) for s in slots], CONFIG, folder, monitor=StopAt(n_steps))
    except KeyboardInterrupt:
        return


def test_each_language_keeps_its_own_gradient_norm(tmp_path: Path) -> None:
    """A neighbour with enormous gradients must not shrink the others by a common clipping norm."""
    norms = []
    for slots in ([0], [0, 1]):
        bench, recorder = Bench(2), Recorder()
        for parameter in bench.parameters[1].values():
            parameter.data *= 20
        train(bench.model, [bench.track(s) for s in slots], CONFIG, tmp_path / str(slots), monitor=recorder)
        norms.append(recorder.steps[0].norms["l0"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_hidden_bands_are_the_same_together_alone_and_resumed(tmp_path: Path) -> None:
    config = replace(CONFIG, spec_augment=True)
    together, alone, resumed = Bench(2), Bench(2), Bench(2)
    train(together.model, [together.track(0), together.track(1)], config, tmp_path / "both")
    with pytest.raises(KeyboardInterrupt):
        train(alone.model, [alone.track(1)], config, tmp_path / "cut", monitor=StopAt(3))
    train(resumed.model, [resumed.track(1)], config, tmp_path / "cut")
    plain = Bench(2)
    train(plain.model, [plain.track(1)], CONFIG, tmp_path / "plain")
    for name, value in together.values(1).items():
        torch.testing.assert_close(resumed.values(1)[name], value, atol=2e-4, rtol=1e-3)
    assert not equal(plain.values(1), resumed.values(1))


def test_recomputing_saves_memory_and_changes_nothing(tmp_path: Path) -> None:
    kept, values = [], []
    for recompute in (False, True):
        bench, sizes = Bench(1, dropout=0.3), [0]

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes[0] += tensor.numel()
            return tensor

        config = replace(CONFIG, epochs=1, recompute=recompute)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            train(bench.model, [bench.track(0)], config, tmp_path / str(recompute))
        kept.append(sizes[0])
        values.append(bench.values(0))
    assert equal(*values)
    assert kept[1] < 0.9 * kept[0]


def test_muon_resumes_exactly(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="muon")
    models = [Whisper(DIMS).initialise(0) for _ in range(3)]
    tracks = [full(model, rows(0), rows(100, 4)) for model in models]
    train(models[0], [tracks[0]], config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(models[1], [tracks[1]], config, tmp_path / "cut", monitor=StopAt(3))
    train(models[2], [tracks[2]], config, tmp_path / "cut")
    whole, resumed = models[0].state_dict(), models[2].state_dict()
    assert equal(whole, resumed) and not equal(whole, Whisper(DIMS).initialise(0).state_dict())


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    unbroken = Bench(2, dropout=0.3)
    whole = train(unbroken.model, [unbroken.track(0), unbroken.track(1)], CONFIG, tmp_path / "whole")
    broken = Bench(2, dropout=0.3)
    with pytest.raises(KeyboardInterrupt):
        train(
            broken.model, [broken.track(0), broken.track(1)], CONFIG, tmp_path / "cut", monitor=StopAt(stop)
        )
    resumed, recorder = Bench(2, dropout=0.3), Recorder()
    states = train(
        resumed.model, [resumed.track(0), resumed.track(1)], CONFIG, tmp_path / "cut", monitor=recorder
    )
    for slot in range(2):
        assert equal(resumed.values(slot), unbroken.values(slot))
        assert states[slot].epochs == whole[slot].epochs
        for mine, theirs in zip(
            resumed.parameters[slot].values(), unbroken.parameters[slot].values(), strict=True
        ):
            assert torch.equal(
                states[slot].optimizer.state[mine]["exp_avg_sq"],
                whole[slot].optimizer.state[theirs]["exp_avg_sq"],
            )
    assert recorder.steps[0].step <= stop + 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_trainer import Bench, CONFIG, Monitor, train

class Kill(Monitor):
    def step(self, report):
        if report.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

bench = Bench(1)
train(bench.model, [bench.track(0)], CONFIG, Path(sys.argv[1]), monitor=Kill())
"""


def test_a_killed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = Bench(1)
    train(unbroken.model, [unbroken.track(0)], CONFIG, tmp_path / "whole")
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), str(here), str(here.parent)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert latest_checkpoint(tmp_path / "cut") is not None
    resumed = Bench(1)
    train(resumed.model, [resumed.track(0)], CONFIG, tmp_path / "cut")
    assert equal(resumed.values(0), unbroken.values(0))


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = Bench(1)
    train(first.model, [first.track(0)], CONFIG, tmp_path)
    again, recorder = Bench(1), Recorder()
    train(again.model, [again.track(0)], CONFIG, tmp_path, monitor=recorder)
    assert recorder.steps == []
    assert equal(again.values(0), first.values(0))


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    bench = Bench(1)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_another_configuration_does_not_resume(tmp_path: Path) -> None:
    bench = Bench(1)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    other = TrainConfig(epochs=3, learning_rate=5e-3, batch_s=2.0, precision="fp32", save_every=2)
    with pytest.raises(TrainingError, match=r"learning_rate = 0\.01, this one 0\.005"):
        train(bench.model, [bench.track(0)], other, tmp_path)


def test_another_backbone_does_not_resume(tmp_path: Path) -> None:
    bench = Bench(1)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    other = Bench(1)
    other.model.decoder.token_embedding.weight *= 2
    with pytest.raises(TrainingError, match=r"backbone = sha256:.*, this one sha256:"):
        train(other.model, [other.track(0)], CONFIG, tmp_path)
    deeper = Whisper(replace(DIMS, n_text_layer=2)).initialise(0)
    whole = Whisper(DIMS).initialise(0)
    train(whole, [full(whole, rows(0), None)], CONFIG, tmp_path / "full")
    with pytest.raises(TrainingError, match="choose another output folder"):
        train(deeper, [full(deeper, rows(0), None)], CONFIG, tmp_path / "full")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    bench = Bench(1)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    (checkpoint / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="damaged checkpoint"):
        train(bench.model, [bench.track(0)], CONFIG, tmp_path)


def test_the_best_epoch_is_kept_and_patience_stops(tmp_path: Path) -> None:
    bench = Bench(1)
    scores = iter([0.5, 0.2, 0.4, 0.3, 0.1])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(track: Track) -> dict[str, float]:
        seen.append(bench.values(0))
        return {"score": next(scores)}

    config = TrainConfig(epochs=5, learning_rate=1e-2, batch_s=2.0, patience=2)
    (state,) = train(bench.model, [bench.track(0)], config, tmp_path, validate=validate)
    assert state.stopped_early and len(state.epochs) == 4
    assert equal(bench.values(0), seen[1])


def stopping(name: str) -> Validate:
    """Scores of which those of one track get worse and worse."""
    calls: Counter[str] = Counter()

    def validate(track: Track) -> dict[str, float]:
        calls[track.name] += 1
        return {"score": float(calls[track.name]) * (1 if track.name == name else -1)}

    return validate


def test_one_track_may_stop_before_the_others(tmp_path: Path) -> None:
    bench = Bench(2)
    config = TrainConfig(epochs=4, learning_rate=1e-3, batch_s=2.0, patience=1)
    tracks = [bench.track(0), bench.track(1)]
    states = train(bench.model, tracks, config, tmp_path, validate=stopping("l0"))
    assert [len(state.epochs) for state in states] == [2, 4]


def test_reading_ahead_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read for a track that has stopped by then is not used."""
    config = replace(CONFIG, epochs=4, patience=1, spec_augment=True)
    results = []
    for ahead in (False, True):
        monkeypatch.setattr(trainer, "reads_ahead", lambda _, ahead=ahead: ahead)
        bench, recorder = Bench(2), Recorder()
        tracks = [bench.track(0), bench.track(1)]
        train(bench.model, tracks, config, tmp_path / str(ahead), validate=stopping("l0"), monitor=recorder)
        results.append((recorder.steps, bench.values(0), bench.values(1)))
    (reports, *values), (reports_ahead, *values_ahead) = results
    assert reports[-1].losses.keys() == {"l1"}
    assert reports_ahead == reports
    assert all(equal(one, other) for one, other in zip(values, values_ahead, strict=True))


def test_without_development_rows_the_last_epoch_counts(tmp_path: Path) -> None:
    bench = Bench(1)
    (state,) = train(bench.model, [bench.track(0, dev=False)], CONFIG, tmp_path)
    assert [report.scores for report in state.epochs] == [{}, {}, {}]
    assert equal(bench.values(0), state.best) and state.best_score == -3


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    bench = Bench(1)
    next(iter(bench.parameters[0].values())).data.fill_(math.nan)
    with pytest.raises(TrainingError, match="l0: the loss is nan at step 1"):
        train(bench.model, [bench.track(0)], CONFIG, tmp_path)


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    bench = Bench(1)
    with pytest.raises(TrainingError, match="no training utterance can be used"):
        train(bench.model, [Track("pl", bench.parameters[0], FixedRows([]))], CONFIG, tmp_path)


def test_full_fine_tuning_is_a_track_of_all_weights(tmp_path: Path) -> None:
    model = Whisper(DIMS).initialise(0)
    positions = model.encoder.positional_embedding.clone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, [full(model, rows(0), rows(1))], CONFIG, tmp_path)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert set(changed) == set(before) - {"encoder.positional_embedding"}
    assert torch.equal(model.encoder.positional_embedding, positions)


def test_learning_rate_rises_and_falls() -> None:
    config = TrainConfig(learning_rate=1.0, warmup=0.2)
    rates = [config.learning_rate_at(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = TrainConfig(learning_rate=1.0, warmup=0, schedule="cosine")
    assert cosine.learning_rate_at(5, 10) == pytest.approx(0.5)
    assert TrainConfig(schedule="constant", warmup=0).learning_rate_at(9, 10) == 1e-4


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"warmup": 1.0}, {"batch_s": 0}, {"learning_rate": -1}])
def test_contradictions_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TrainConfig(**wrong)  # type: ignore[arg-type]


def test_batches_of_similar_length_share_a_forward_pass() -> None:
    groups = list(group_by_length({"a": 100, "b": 300, "c": 280, "d": 90, "e": 10}))
    assert groups == [{"b", "c"}, {"a", "d"}, {"e"}]


def test_the_checkpoint_explains_the_run(tmp_path: Path) -> None:
    bench = Bench(1)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    saved = json.loads((checkpoint / "state.json").read_text())
    assert saved["config"]["learning_rate"] == 1e-2
    assert len(saved["tracks"]["l0"]["epochs"]) == 3


def test_the_thread_that_makes_rows_leaves_the_cores_to_the_training() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as reader:
            trainer._on_one_core(reader)
            assert reader.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
