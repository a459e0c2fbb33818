"""What is recorded computes, from the batch in its memory, what would have been computed anew."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import DIMS, Bench, equal

from lora_whisper.data.batching import COARSE
from lora_whisper.model.replay import Work
from lora_whisper.model.whisper import Whisper
from lora_whisper.training import gradients
from lora_whisper.training.gradients import Gradients, Precision
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import StepReport
from lora_whisper.training.trainer import TrainConfig, train

CONFIG = TrainConfig(epochs=8, learning_rate=1e-2, batch_s=4.0, precision="fp32")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Losses(Monitor):
    def __init__(self) -> None:
        self.all: list[dict[str, float]] = []

    def step(self, report: StepReport) -> None:
        self.all.append(report.losses)


class Notes:
    """Stands for what records on a GPU: does the work again and notes what happened."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    def __call__(self, work: Work) -> Work:
        self.counts["recorded"] += 1

        def replay() -> torch.Tensor:
            self.counts["replayed"] += 1
            return work()

        return replay

    def gradients(self, model: Whisper, precision: Precision) -> Gradients:
        return Gradients(model, precision, self)


@pytest.mark.parametrize("slots", [[0], [0, 1, 2]])
def test_steps_of_one_shape_are_recorded_once(
    slots: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, notes = [], Notes()
    for name in ("anew", "recorded"):
        bench, losses = Bench(3), Losses()
        if name == "recorded":
            monkeypatch.setattr(Gradients, "fastest", notes.gradients)
        train(bench.model, [bench.track(s) for s in slots], CONFIG, tmp_path / name, monitor=losses)
        results.append((losses.all, [bench.values(slot) for slot in slots]))
    (losses_anew, anew), (losses_recorded, recorded) = results
    assert losses_recorded == losses_anew
    assert all(equal(*pair) for pair in zip(anew, recorded, strict=True))
    assert notes.counts["replayed"] > notes.counts["recorded"] > 0


def test_few_shapes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "MOST_RECORDED", 1)
    notes, bench = Notes(), Bench(1)
    monkeypatch.setattr(Gradients, "fastest", notes.gradients)
    train(bench.model, [bench.track(0)], CONFIG, tmp_path)
    assert notes.counts["recorded"] <= notes.counts["replayed"] < 8


@needs_gpu
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("slots", [[0], [0, 1, 2]])
def test_a_gpu_learns_the_same_from_graphs(
    slots: list[int], dropout: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name in ("graphs", "anew"):
        bench, losses = Bench(3, dropout, "cuda"), Losses()
        if name == "anew":
            monkeypatch.setattr(Gradients, "fastest", Gradients)
        train(bench.model, [bench.track(s) for s in slots], CONFIG, tmp_path / name, monitor=losses)
        results.append((losses.all, [bench.values(slot) for slot in slots]))
    (losses_graphs, graphs), (losses_anew, anew) = results
    assert len(losses_graphs) == len(losses_anew)
    for one, other in zip(losses_graphs, losses_anew, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    for one, other in zip(graphs, anew, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=1e-2)


@needs_gpu
def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    padding = replace(COARSE, most_tokens=DIMS.n_text_ctx, budget_s=CONFIG.batch_s)
    monkeypatch.setattr("lora_whisper.training.trainer.padding_of", lambda *_: padding)  # the same batches
    curves = []
    for device in ("cuda", "cpu"):
        bench, losses = Bench(2, 0.0, device), Losses()
        train(bench.model, [bench.track(0), bench.track(1)], CONFIG, tmp_path / device, monitor=losses)
        curves.append(losses.all)
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, rel=2e-2)
