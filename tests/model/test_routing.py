"""Routing: which adapters each row uses."""

from dataclasses import replace

import pytest
import torch

from lora_whisper.model.routing import NO_ADAPTER, Company, Routing


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


def test_each_row_owns_the_columns_of_its_route() -> None:
    routing = Routing.of([((4, 1.0),), (), ((2, 1.0), (3, 0.5)), ((4, 1.0),)])
    assert routing is not None
    owned = routing.owned(((((2, 1.0), (3, 0.5)), 3), (((4, 1.0),), 2), (((9, 1.0),), 1)))
    assert owned.tolist() == [[0, 0, 0, 1, 1, 0], [0] * 6, [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]]


def test_routes_that_were_given_are_those_that_are_read() -> None:
    routes = [((4, 1.0),), (), ((2, 0.7), (3, 0.3))]
    routing = Routing.of(routes)
    assert routing is not None
    assert routing.routes == Routing(routing.adapter_ids, routing.gates).routes
    assert routing.slots == (2, 3, 4)


def test_no_adapter_weighs_nothing() -> None:
    torch.testing.assert_close(mixture().weights, torch.tensor([[0.7, 0.3], [1, 0], [0.5, 0.5]]))


def test_runs_join_neighbours_with_the_same_route() -> None:
    routing = Routing.one_per_row([2, 2, NO_ADAPTER, 1, 2])
    assert [(run.start, run.stop, run.route) for run in routing.runs] == [
        (0, 2, ((2, 1.0),)), (2, 3, ()), (3, 4, ((1, 1.0),)), (4, 5, ((2, 1.0),))
    ]  # fmt: skip
    assert Routing.one_per_row([]).runs == ()


def test_runs_differ_by_weight_and_leave_out_what_weighs_nothing() -> None:
    ids = torch.tensor([[2, 3], [2, NO_ADAPTER], [2, NO_ADAPTER], [2, 3]])
    routing = Routing(ids, torch.tensor([[1.0, 0.5], [1.0, 9.0], [1.0, 0.0], [0.5, 0.5]]))
    assert [run.route for run in routing.runs] == [((2, 1.0), (3, 0.5)), ((2, 1.0),), ((2, 0.5), (3, 0.5))]


def test_groups_are_filled_up_and_say_what_is_real() -> None:
    routing = Routing.one_per_row([2, 1, 2, NO_ADAPTER])
    first, second = ((1, 1.0),), ((2, 1.0),)
    groups = routing.groups((first, second))
    assert groups is not None and groups.rows is not None
    assert groups.rows.tolist() == [[1, 0], [0, 2]] and groups.places.tolist() == [0, 2, 3]
    assert routing.groups((((9, 1.0),), first, second)) is not None
    many = Routing.one_per_row([1] * 9 + [2, 3])
    assert many.groups(tuple(((slot, 1.0),) for slot in (1, 2, 3))) is None  # 27 rows for 11


def test_a_batch_of_equal_groups_stands_as_it_is() -> None:
    order = (((1, 1.0),), ((2, 1.0),))
    whole, bare_first = Routing.one_per_row([1, 1, 2, 2]), Routing.one_per_row([NO_ADAPTER, 2])
    assert whole.groups(order) is not None and whole.groups(order).rows is None
    groups = bare_first.groups(order)  # the filler looks like a row that is there
    assert groups is not None and groups.rows is not None and groups.places.tolist() == [1]


def test_beams_repeat_each_row_in_succession() -> None:
    repeated = mixture().repeat_interleave(2)
    assert repeated.adapter_ids.tolist() == [row for row in mixture().adapter_ids.tolist() for _ in range(2)]
    torch.testing.assert_close(repeated.gates, mixture().gates.repeat_interleave(2, 0))


def test_rows_are_dropped_with_their_gates() -> None:
    selected = mixture().index_select(torch.tensor([2, 0]))
    assert selected.adapter_ids.tolist() == [[7, 3], [3, 1]]
    assert selected.gates.tolist() == [[0.5, 0.5], pytest.approx([0.7, 0.3])]
    assert selected.slots == (1, 3, 7)


def test_positions_of_rows_become_rows() -> None:
    routing = Routing.one_per_row([3, 3, NO_ADAPTER, 1])
    positions = routing.by_position([2, 3, 1, 2])
    assert positions.adapter_ids.flatten().tolist() == [3] * 5 + [NO_ADAPTER] + [1] * 2
    assert positions.runs == Routing(positions.adapter_ids, positions.gates).runs
    assert positions.memory is routing.memory
    assert positions.groups((((3, 1.0),), ((1, 1.0),))) is None


def test_what_layers_keep_is_kept_for_the_same_company_and_no_other() -> None:
    company = Company()
    first, second, third = (
        Routing.one_per_row(range(start, stop)) for start, stop in ((0, 8), (4, 16), (14, 18))
    )
    leases = (object(), object())
    first = company.joined_by(replace(first, leases=leases))
    first.memory["layer"] = "factors"
    assert company.joined_by(second).memory is first.memory
    assert leases in first.memory.values()
    assert company.joined_by(third).memory == {("leases", frozenset(range(14, 18))): ()}
    joined = first.joined(company.joined_by(first))
    assert joined.memory == {} and first.joined(first).memory is first.memory
