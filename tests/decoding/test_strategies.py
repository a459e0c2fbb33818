"""Strategies on hand-made probabilities."""

import math
from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from lora_whisper.decoding.strategies import Beam, Greedy, Hypothesis, Sampling, Search, ranking

CPU = torch.device("cpu")
EOT = 3


def chain(seed: int) -> Tensor:
    """Log-probability of each token after each, (4, 4); row 3 is the start."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(4, 4, generator=generator)).log_softmax(1)


def run(search: Search, chains: list[Tensor]) -> list[Hypothesis]:
    """The loop of `decode`, for a language of four tokens in which each depends on the one before."""
    owner, last = list(range(len(chains))), [EOT] * len(chains)
    search.admit(len(chains), torch.arange(len(chains)))
    while len(search):
        scores = torch.stack([chains[row][token] for row, token in zip(owner, last, strict=True)])
        rows, tokens = search.step(scores)
        owner = owner if rows is None else [owner[row] for row in rows.tolist()]
        last = tokens.tolist()
    return [found for _, found in sorted(search.take(), key=lambda one: one[0])]


def most_probable(chain: Tensor, n_steps: int, length_penalty: float | None) -> Hypothesis:
    """By trying everything that ends within so many steps."""
    found = []
    for length in range(n_steps):
        for tokens in product(range(3), repeat=length):
            path = [EOT, *tokens, EOT]
            logprob = sum(float(chain[a, b]) for a, b in pairwise(path))
            found.append(Hypothesis(tokens, logprob))
    return max(found, key=lambda one: ranking(one, length_penalty))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_and_patient_beam_finds_the_most_probable_of_all(seed: int, length_penalty: float) -> None:
    chains = [chain(seed), chain(seed + 100)]
    search = Beam(100, 5, EOT, patience=10, length_penalty=length_penalty)
    for found, one in zip(run(search, chains), chains, strict=True):
        best = most_probable(one, 5, length_penalty)
        assert found.tokens == best.tokens and found.logprob == pytest.approx(best.logprob, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy(seed: int) -> None:
    chains = [chain(seed + 10 * row) for row in range(3)]
    beam = run(Beam(1, 6, EOT), chains)
    for found, greedy in zip(beam, run(Greedy(6, EOT, CPU), chains), strict=True):
        if len(greedy.tokens) < 6:
            assert found.tokens == greedy.tokens
            assert found.logprob == pytest.approx(greedy.logprob, abs=1e-5)


def test_what_never_ends_is_returned_all_the_same() -> None:
    endless = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]] * 4)
    for search in (
        Beam(2, 4, EOT),
        Greedy(4, EOT, CPU),
        Greedy(4, EOT, CPU, late=True),
        Sampling(0, 2, 1.0, 4, EOT, None),
    ):
        assert run(search, [endless])[0] == Hypothesis((0, 0, 0, 0), 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_to_hear_late_of_an_end_changes_nothing(seed: int) -> None:
    chains = [chain(seed + 10 * row) for row in range(8)]
    found, late = (run(Greedy(5, EOT, CPU, late), chains) for late in (False, True))
    assert found == late and len({len(one.tokens) for one in found}) > 1


def test_greedy_follows_rows_as_they_leave() -> None:
    search = Greedy(max_tokens=4, eot=9, device=torch.device("cpu"))
    search.admit(3, torch.arange(3))

    def scores(*tokens: int) -> Tensor:
        rest = torch.full((len(tokens), 10), (1 - math.exp(-1)) / 9).log()
        return rest.scatter(1, torch.tensor(tokens).unsqueeze(1), -1.0)

    rows, tokens = search.step(scores(1, 2, 3))
    assert rows is None
    assert tokens.tolist() == [1, 2, 3]
    rows, tokens = search.step(scores(1, 9, 3))
    assert rows is not None
    assert (rows.tolist(), tokens.tolist()) == ([0, 2], [1, 3])
    rows, tokens = search.step(scores(9, 4))
    assert rows is not None
    assert (rows.tolist(), tokens.tolist()) == ([1], [4])
    search.step(scores(5))
    results = search.take()
    assert [(number, one.tokens) for number, one in results] == [(1, (2,)), (0, (1, 1)), (2, (3, 3, 4, 5))]
    assert [one.logprob for _, one in results] == pytest.approx([-2, -3, -4])
    assert not search.take()


def test_what_is_drawn_has_the_right_frequencies_and_depends_on_its_seed_alone() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    ending = torch.full((4, 4), -torch.inf)
    ending[:, EOT] = 0
    ending[EOT] = probabilities.log()
    n = 4000
    found = [run(Sampling(seed, 1, 1.0, 3, EOT, None), [ending])[0] for seed in range(n)]
    counts = torch.bincount(torch.tensor([one.tokens[0] for one in found]), minlength=3) / n
    torch.testing.assert_close(counts, probabilities[:3], atol=0.03, rtol=0)
    assert run(Sampling(7, 1, 1.0, 3, EOT, None), [ending] * 2) == [found[7]] * 2


def test_the_best_of_several_draws_is_kept() -> None:
    one = chain(1)
    single, several = (run(Sampling(5, draws, 1.0, 6, EOT, None), [one])[0] for draws in (1, 20))
    assert ranking(several, None) >= ranking(single, None)


@pytest.mark.parametrize("make", [
    lambda: Greedy(6, EOT, CPU),
    lambda: Greedy(6, EOT, CPU, late=True),
    lambda: Beam(3, 6, EOT),
    lambda: Sampling(4, 3, 1.0, 6, EOT, None),
], ids=["greedy", "late", "beam", "drawn"])  # fmt: skip
def test_rows_that_come_later_are_as_if_alone(make: Callable[[], Search]) -> None:
    chains = [chain(seed) for seed in range(12)]
    alone = [run(make(), [one])[0] for one in chains]
    search, found = make(), dict[int, Hypothesis]()
    rows: list[int] = []  # what lives, in the order of the search
    owner: list[int] = []
    last: list[int] = []
    coming = [range(3), range(3, 7), range(7, 12)]
    for step in range(20):
        if step % 2 == 0 and coming:
            new = list(coming.pop(0))
            every, hypotheses = [*rows, *new], [*zip(owner, last, strict=True), *((row, EOT) for row in new)]
            order = torch.randperm(len(every), generator=torch.Generator().manual_seed(step))
            search.admit(len(new), order)
            rows = [every[place] for place in order.tolist()]
            pairs = [pair for row in rows for pair in hypotheses if pair[0] == row]
            owner, last = [row for row, _ in pairs], [token for _, token in pairs]
        if rows:
            going, tokens = search.step(
                torch.stack([chains[row][token] for row, token in zip(owner, last, strict=True)])
            )
            owner = owner if going is None else [owner[place] for place in going.tolist()]
            last = tokens.tolist()
            found |= dict(search.take())
            rows = [row for row in rows if row in owner]
    assert not len(search) and not coming
    for number, one in enumerate(alone):
        assert found[number].tokens == one.tokens
        assert found[number].logprob == pytest.approx(one.logprob, abs=1e-5)
