import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_whisper.training import token_loss as module
from lora_whisper.training.token_loss import token_loss

N_TOKENS, WIDTH, N_VOCAB = 70, 16, 300


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor, Tensor]:
    monkeypatch.setattr(module, "CHUNK_BYTES", 32 * 4 * N_VOCAB)  # chunks of 32, 32 and 6 tokens
    torch.manual_seed(0)
    hidden, embedding = torch.randn(N_TOKENS, WIDTH), torch.randn(N_VOCAB, WIDTH)
    return hidden.requires_grad_(), embedding.requires_grad_(), torch.randint(0, N_VOCAB, (N_TOKENS,))


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients_are_those_of_pytorch(parts: tuple[Tensor, ...], weighted: bool) -> None:
    hidden, embedding, labels = parts
    weights = torch.linspace(0.5, 2, N_VOCAB) if weighted else None
    expected = F.cross_entropy(hidden @ embedding.T, labels, weights)
    found = token_loss(hidden, embedding, labels, weights)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, (hidden, embedding)),
        torch.autograd.grad(3 * expected, (hidden, embedding)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_under_autocast_the_gradients_are_as_close_as_its_precision(parts: tuple[Tensor, ...]) -> None:
    hidden, embedding, labels = parts
    exact = torch.autograd.grad(F.cross_entropy(hidden @ embedding.T, labels), (hidden, embedding))
    with torch.autocast("cpu", torch.bfloat16):
        found = token_loss(hidden, embedding, labels)
    for ours, right in zip(torch.autograd.grad(found, (hidden, embedding)), exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - right).norm() < 0.02 * right.norm()


def test_a_sure_token_costs_nothing_and_a_hopeless_one_what_it_should(parts: tuple[Tensor, ...]) -> None:
    sure = torch.zeros(2, WIDTH)
    sure[:, 0] = 500.0
    embedding = torch.zeros(N_VOCAB, WIDTH)
    embedding[3, 0] = 1.0
    assert token_loss(sure, embedding, torch.tensor([3, 3])) == 0.0
    assert token_loss(sure, embedding, torch.tensor([4, 4])) == pytest.approx(500.0)


def test_without_gradients_only_the_loss_is_computed(parts: tuple[Tensor, ...]) -> None:
    hidden, embedding, labels = parts
    with torch.no_grad():
        found = token_loss(hidden, embedding, labels)
    assert not found.requires_grad
    torch.testing.assert_close(found, F.cross_entropy(hidden @ embedding.T, labels).detach())
