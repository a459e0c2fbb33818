"""What is recorded computes, from the batch in its memory, what would have been computed anew."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from toy_training import Bench, Losses, equal

from lora_whisper.model.replay import Work
from lora_whisper.model.whisper import Whisper
from lora_whisper.training import gradients
from lora_whisper.training.gradients import Gradients, Precision
from lora_whisper.training.trainer import TrainConfig, train

CONFIG = TrainConfig(epochs=8, learning_rate=1e-2, batch_s=4.0, precision="fp32")


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
