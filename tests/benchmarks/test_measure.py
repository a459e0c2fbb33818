"""How the benchmarks turn seconds into rows: order, warm-up, ratios, goals."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.measure import (
    MIB,
    MissingPeer,
    Peaks,
    Row,
    Setting,
    Variant,
    alternate,
    peaks,
    ratio_row,
    require,
)


def row(ratio=None, low=None, goal=None, **others) -> Row:
    return Row("what", ratio, low, None, goal, **others)


def test_variants_take_turns_after_a_warm_up():
    calls = []

    def does(name: str):
        return lambda: calls.append(name) or float(len(calls))

    times = alternate(
        [Variant("theirs", does("theirs"), does("theirs, short")), Variant("ours", does("ours"))], 2
    )
    assert calls == ["theirs, short", "ours", "theirs", "ours", "theirs", "ours"]
    assert times == {"theirs": [3.0, 5.0], "ours": [4.0, 6.0]}


def test_a_ratio_is_the_median_of_the_rounds():
    found = ratio_row("what", [10.0, 12.0, 9.0], [2.0, 4.0, 1.0], 4.0, {"x_mib": 7.0})
    assert (found.ratio, found.low, found.high) == (5.0, 3.0, 9.0)
    assert found.figures == {"theirs_s": 10.0, "ours_s": 2.0, "x_mib": 7.0}
    assert found.met


def test_rounds_must_pair_up():
    with pytest.raises(ValueError):
        ratio_row("what", [1.0, 2.0], [1.0], None)


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (row(ratio=3.4, goal=3.5), False),
        (row(ratio=3.5, goal=3.5), True),
        (row(ratio=3.5), None),
        (row(difference=2e-4, goal=1e-4), False),
        (row(difference=1e-5, goal=1e-4), True),
        (row(difference=0.01, low=-0.01, goal=0.0), True),  # not certainly above zero
        (row(difference=0.01, low=0.002, goal=0.0), False),
        (row(seconds=0.3, low=0.2, goal=0.4), True),
        (row(seconds=0.5, low=0.2, goal=0.4), False),
    ],
)
def test_goals(found: Row, met: bool | None):
    assert found.met is met


def test_peaks_of_two_sides():
    peaks = Peaks({"PEFT": 900.0, "ours": 300.0})
    assert peaks.of("PEFT", "ours") == {"theirs_working_mib": 900.0, "ours_working_mib": 300.0}
    assert peaks.of("another", "ours") == {"ours_working_mib": 300.0}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_what_counts_is_the_most_that_a_variant_holds_beyond_what_was_there(tmp_path: Path):
    there = bytearray(200 * MIB)
    setting = Setting(False, "cpu", tmp_path)
    calls = []

    def holds(mib: int):
        calls.append(mib)
        return float(len(bytearray(mib * MIB)))

    variants = [Variant("large", partial(holds, 150)), Variant("small", partial(holds, 30))]
    found = peaks(variants, setting)
    assert there and 145 < found.mib["large"] < 175 and 25 < found.mib["small"] < 55
    alternate(variants, 1)
    assert calls == [150, 30, 150, 30]  # no second warm-up
    assert not peaks(variants, replace(setting, quick=True)).mib


def test_a_quick_run_is_small(tmp_path):
    quick, full = (Setting(quick, "cpu", tmp_path) for quick in (True, False))
    assert (quick.rounds(5), full.rounds(5)) == (2, 5)
    assert quick.chosen(("tiny",), ("tiny", "small")) == ("tiny",)
    assert Setting(True, "cpu", tmp_path, ("turbo",)).chosen(("tiny",), ("small",)) == ("turbo",)


def test_a_missing_peer_is_one_line():
    with pytest.raises(MissingPeer, match=r"^no_such_peer not installed; pip install"):
        require("torch", "no_such_peer", remedy="pip install it")


def test_timed_work_counts_its_own_seconds():
    from benchmarks.measure import timed

    assert 0 < timed(lambda: torch.ones(8).sum())() < 5
