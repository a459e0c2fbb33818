"""What only a GPU can show: steps that were recorded learn what others and a CPU learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import DIMS, Bench, Losses

from lora_whisper.data.batching import COARSE
from lora_whisper.training.gradients import Gradients
from lora_whisper.training.trainer import TrainConfig, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CONFIG = TrainConfig(epochs=8, learning_rate=1e-2, batch_s=4.0, precision="fp32")


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
