import copy

import pytest
import torch
from torch import nn

from lora_whisper.training.optimizers import MuonAdamW, new_optimizer, orthogonal


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 4)])
        self.embedding = nn.Linear(8, 8)


def named(model: Toy) -> dict[str, nn.Parameter]:
    return {f"encoder.{name}": p for name, p in model.named_parameters()}


def test_matrices_of_blocks_go_to_muon_and_all_else_to_adamw() -> None:
    model = Toy()
    muon = new_optimizer("muon", named(model), 1e-3, 0.01)
    assert isinstance(muon, MuonAdamW)
    matrices, others = (group["params"] for group in muon.param_groups)
    assert {id(p) for p in matrices} == {id(model.blocks[0].weight), id(model.blocks[1].weight)}
    assert len(matrices) + len(others) == len(list(model.parameters()))


def test_muon_updates_are_orthogonal_and_obey_the_learning_rate() -> None:
    torch.manual_seed(0)
    model = Toy()
    optimizer = new_optimizer("muon", named(model), 1.0, 0.0)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    update = (model.state_dict()["blocks.0.weight"] - before["blocks.0.weight"]).detach()
    singular = torch.linalg.svdvals(update)
    assert singular.max() / singular.min() < 2.5  # five Newton-Schulz steps bring them near each other
    assert 0.1e-2 < float(update.square().mean().sqrt()) < 0.4e-2  # 0.2 of the learning rate, as AdamW's
    bias = (model.state_dict()["blocks.0.bias"] - before["blocks.0.bias"]).detach()
    torch.testing.assert_close(bias.abs(), torch.full_like(bias, 1e-2), rtol=1e-3, atol=0)


def test_state_of_both_parts_is_found_in_one_place() -> None:
    model = Toy()
    optimizer = new_optimizer("muon", named(model), 1e-3, 0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert set(optimizer.state[model.blocks[0].weight]) == {"momentum_buffer"}
    assert set(optimizer.state[model.blocks[0].bias]) == {"step", "exp_avg", "exp_avg_sq"}


def test_muon_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Toy(), Toy()
    theirs.load_state_dict(ours.state_dict())
    optimizer = new_optimizer("muon", named(ours), 1e-2, 0.1)
    matrices = [layer.weight for layer in theirs.blocks]
    reference = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for layer, matrix in zip(ours.blocks, matrices, strict=True):
        torch.testing.assert_close(layer.weight, matrix, rtol=0, atol=2e-3)  # sums of bf16 in another order


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bf16_is_not_emulated(monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr("lora_whisper.training.optimizers.native_bf16", lambda device: native)
    assert orthogonal(torch.randn(2, 8, 4)).dtype == dtype


def test_muon_leaves_matrices_without_a_gradient() -> None:
    model = Toy()
    optimizer = new_optimizer("muon", named(model), 1e-2, 0.1)
    before = model.blocks[1].weight.clone()
    model.blocks[0].weight.grad = torch.ones_like(model.blocks[0].weight)
    optimizer.step()
    torch.testing.assert_close(model.blocks[1].weight, before, rtol=0, atol=0)
