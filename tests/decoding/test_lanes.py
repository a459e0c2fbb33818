"""Lanes: hypotheses keep their own past and their own audio, wherever they live."""

import pytest
import torch
from torch import Tensor

from lora_whisper.decoding.lanes import Lanes
from lora_whisper.model.cache import Heard, KVCache
from lora_whisper.model.routing import Routing


def lanes(n_audio: int, n_groups: int = 1) -> Lanes:
    """Keys that say which row of audio they are of, in groups; ten tokens fit."""
    groups = [torch.arange(n_audio)[first::n_groups].flip(0) for first in range(n_groups)]
    keys = [rows.float().view(-1, 1, 1, 1) for rows in groups]
    if n_groups == 1:
        heard = [Heard([(keys[0].flip(0), keys[0].flip(0))])]
    else:
        heard = [Heard([(key, key)], None, rows) for key, rows in zip(keys, groups, strict=True)]
    routing = Routing.one_per_row(list(range(n_audio)))
    return Lanes(KVCache(heard, capacity=10), routing, torch.device("cpu"))


def step(one: Lanes, going: tuple[Tensor, Tensor | None]) -> None:
    """What the decoder does to the cache: the keys are the tokens."""
    tokens, sources = going
    if sources is not None:
        one.cache.reorder(sources)
    key = tokens.float().view(-1, 1, 1, 1)
    one.cache.extend(0, key, key)
    one.cache.length += 1


def past(one: Lanes) -> list[list[int]]:
    """The audio of each living hypothesis, and its tokens."""
    cache = one.cache
    keys, _ = cache.buffers[0]
    audio = torch.empty(cache.n_audio)
    for part in cache.heard:
        audio[slice(None) if part.rows is None else part.rows] = part.keys_values[0][0].flatten()
    audio = audio.repeat_interleave(cache.width).unsqueeze(1)
    everything = torch.cat([audio, keys[:, : cache.length, 0, 0]], 1)
    return one.live(everything).long().tolist()


def test_greedy_rows_leave_without_a_copy_until_a_quarter_is_done() -> None:
    one = lanes(8)
    step(one, one.advance(None, torch.arange(10, 18)))
    before = one.cache.buffers[0][0].data_ptr()
    step(one, one.advance(torch.tensor([0, 1, 2, 3, 4, 5, 7]), torch.arange(20, 27)))
    assert one.cache.n_audio == 8 and one.cache.buffers[0][0].data_ptr() == before
    assert past(one)[5:] == [[5, 15, 25], [7, 17, 26]]
    step(one, one.advance(torch.tensor([0, 2, 4, 6]), torch.arange(30, 34)))
    assert one.cache.n_audio == 4
    assert one.routing is not None and one.routing.adapter_ids.flatten().tolist() == [0, 2, 4, 7]
    assert past(one) == [[0, 10, 20, 30], [2, 12, 22, 31], [4, 14, 24, 32], [7, 17, 26, 33]]


def test_hypotheses_multiply_cross_and_die() -> None:
    one = lanes(2)
    step(one, one.advance(None, torch.tensor([10, 11])))
    step(one, one.advance(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([20, 21, 22, 23, 24])))
    assert one.cache.width == 3
    assert past(one) == [[0, 10, 20], [0, 10, 21], [0, 10, 22], [1, 11, 23], [1, 11, 24]]
    step(one, one.advance(torch.tensor([2, 0, 0, 4, 4, 3]), torch.arange(30, 36)))
    assert past(one) == [
        [0, 10, 22, 30], [0, 10, 20, 31], [0, 10, 20, 32], [1, 11, 24, 33], [1, 11, 24, 34], [1, 11, 23, 35]
    ]  # fmt: skip
    step(one, one.advance(torch.tensor([4]), torch.tensor([40])))
    assert past(one) == [[1, 11, 24, 34, 40]]
    assert (one.cache.n_audio, one.cache.width) == (1, 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_groups", [1, 3])
def test_any_course_of_a_search_is_followed(seed: int, n_groups: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, n_audio = lanes(9, n_groups), 9
    expected = [[audio] for audio in range(n_audio)]
    for number in range(9):
        keep = torch.rand(len(expected), generator=generator) < 0.8
        multiples = torch.randint(1, 4, (len(expected),), generator=generator) * keep
        rows = torch.arange(len(expected)).repeat_interleave(multiples)
        if not len(rows):
            return
        tokens = torch.arange(len(rows)) + 100 * number
        step(one, one.advance(rows, tokens))
        expected = [
            [*expected[row], token] for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)
        ]
        assert past(one) == expected


def test_a_row_that_came_first_and_is_done_does_not_keep_the_others_from_going_on() -> None:
    """A model that loops filled the cache so: less than a quarter was done, the oldest row in it."""
    one = lanes(1)
    for token in range(6):
        step(one, one.advance(None, torch.tensor([token])))
    younger = lanes(4)
    step(younger, younger.advance(None, torch.arange(20, 24)))
    one.admit(younger.cache, younger.routing)
    step(one, one.advance(torch.arange(1, 5), torch.arange(30, 34)))
    while one.cache.length < one.cache.capacity:
        step(one, one.advance(None, torch.arange(40, 44)))
    assert one.cache.n_audio == 5
    one.make_room()
    assert one.cache.length == 5 and one.cache.n_audio == 4
    step(one, one.advance(None, torch.arange(50, 54)))
    assert past(one) == [[row, 20 + row, 30 + row, *[40 + row] * 3, 50 + row] for row in range(4)]
