import pytest
import torch
import torch.nn.functional as F

from lora_whisper.training.ctc import ctc_loss

BLANK = 6


def test_losses_and_gradients_are_those_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(6, 12, BLANK + 1, generator=generator)
    targets = torch.tensor([[1, 2, 3, 4], [1, 1, 2, 2], [5, 0, 0, 0], [0] * 4, [3] * 4, [2, 4, 2, 4]])
    n_positions, n_targets = torch.tensor([12, 9, 1, 7, 6, 4]), torch.tensor([4, 4, 1, 0, 4, 3])
    results = []
    for ours in (True, False):
        log_probs = scores.clone().requires_grad_(True)
        if ours:
            unused = torch.arange(4) >= n_targets[:, None]
            padded = targets.masked_fill(unused, 99)  # whatever stands behind the last
            losses = ctc_loss(log_probs.log_softmax(-1), padded, n_positions, n_targets, BLANK)
        else:
            losses = F.ctc_loss(
                log_probs.log_softmax(-1).transpose(0, 1),
                targets,
                n_positions,
                n_targets,
                BLANK,
                reduction="none",
                zero_infinity=True,
            )
        (losses * torch.arange(1, 7)).sum().backward()
        results.append((losses.detach(), log_probs.grad))
    (losses, grad), (expected_losses, expected_grad) = results
    assert expected_losses[4] == losses[4] == 0  # six positions, and seven are needed
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)


def test_unlikely_targets_are_still_learned() -> None:
    scores = torch.zeros(1, 80, BLANK + 1)
    scores[:, :, BLANK] = 40.0  # their probability underflows: e^-1200
    scores.requires_grad_(True)
    targets = torch.arange(30)[None] % BLANK
    loss = ctc_loss(scores.log_softmax(-1), targets, torch.tensor([80]), torch.tensor([30]), BLANK).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(30 * 40, rel=0.1)
    assert scores.grad is not None and float(scores.grad[0, :, :BLANK].sum()) == pytest.approx(-30, rel=1e-3)
