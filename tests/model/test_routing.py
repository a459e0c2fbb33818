"""Routing: which adapters each row uses."""

import pytest
import torch

from lora_whisper.model.routing import NO_ADAPTER, Routing


def mixture() -> Routing:
    return Routing(
        torch.tensor([[3, 1], [1, NO_ADAPTER], [7, 3]]), torch.tensor([[0.7, 0.3], [1, 1], [0.5, 0.5]])
    )


def test_one_per_row() -> None:
    routing = Routing.one_per_row([4, NO_ADAPTER, 2])
    assert routing.adapter_ids.tolist() == [[4], [NO_ADAPTER], [2]]
    assert routing.adapter_ids.dtype == torch.int64
    assert routing.gates.tolist() == [[1], [0], [1]]
    assert routing.slots == (2, 4)


def test_slots_are_distinct_and_ascending() -> None:
    assert mixture().slots == (1, 3, 7)
    assert Routing.one_per_row([NO_ADAPTER, NO_ADAPTER]).slots == ()


def test_positions_point_into_slots() -> None:
    routing = mixture()
    positions = routing.positions.tolist()
    for ids, row in zip(routing.adapter_ids.tolist(), positions, strict=True):
        for slot, position in zip(ids, row, strict=True):
            assert position == 0 if slot == NO_ADAPTER else routing.slots[position] == slot


def test_no_adapter_weighs_nothing() -> None:
    torch.testing.assert_close(mixture().weights, torch.tensor([[0.7, 0.3], [1, 0], [0.5, 0.5]]))


@pytest.mark.parametrize(
    ("slots", "expected"),
    [([2, 2, 2], 2), ([0], 0), ([2, 1], None), ([2, NO_ADAPTER], None), ([NO_ADAPTER], None)],
)
def test_only_slot_of_one_adapter_per_row(slots: list[int], expected: int | None) -> None:
    assert Routing.one_per_row(slots).only_slot == expected


def test_only_slot_needs_weight_one_and_a_single_adapter() -> None:
    ids = torch.tensor([[2], [2]])
    assert Routing(ids, torch.tensor([[1.0], [0.5]])).only_slot is None
    assert Routing(torch.tensor([[2, 2]]), torch.ones(1, 2)).only_slot is None


def test_only_slot_leaves_the_bare_rows_bare() -> None:
    """Even if someone gave them a gate."""
    assert Routing(torch.tensor([[2], [NO_ADAPTER]]), torch.ones(2, 1)).only_slot is None


def test_beams_repeat_each_row_in_succession() -> None:
    repeated = mixture().repeat_interleave(2)
    assert repeated.adapter_ids.tolist() == [row for row in mixture().adapter_ids.tolist() for _ in range(2)]
    torch.testing.assert_close(repeated.gates, mixture().gates.repeat_interleave(2, 0))


def test_rows_are_dropped_with_their_gates() -> None:
    selected = mixture().index_select(torch.tensor([2, 0]))
    assert selected.adapter_ids.tolist() == [[7, 3], [3, 1]]
    assert selected.gates.tolist() == [[0.5, 0.5], pytest.approx([0.7, 0.3])]
    assert selected.slots == (1, 3, 7)
