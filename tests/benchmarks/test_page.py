"""docs/benchmarks.md from the JSON of a run."""

from dataclasses import asdict

import pytest

from benchmarks.measure import Row
from benchmarks.page import figure, page

MACHINE = {
    "processor": "Some CPU",
    "cores": 2,
    "threads": 2,
    "memory_gib": 23.0,
    "device": "cpu",
    "precision": {"training": "bf16", "decoding": "float32"},
    "python": "3.11.7",
    "versions": {"torch": "2.13.0", "peft": "0.21.2"},
}
ROWS = [
    (
        "training",
        Row("training, tiny", 8.4, 8.0, 9.1, 8.0, figures={"ours_audio_s_per_s": 123.4}, notes=("rank 32",)),
    ),
    ("decoding", Row("decoding, tiny", 4.2, 4.0, 4.5, 6.0, figures={"theirs_peak_mib": 1234.5})),
    ("decoding", Row("decoding, without a goal", 2.0, 1.9, 2.1, None)),
    ("startup", Row("--help", None, 0.29, 0.34, 0.4, seconds=0.31)),
    ("agreement", Row("losses", None, None, None, 1e-4, difference=2.5e-6)),
    ("floor", Row("encoding, tiny: share of the floor", 0.62, 0.6, 0.63, 0.5, figures={"floor_ms": 12.5})),
]


def result(**others):
    rows = [{"topic": topic, **asdict(row), "met": row.met} for topic, row in ROWS]
    return {
        "machine": MACHINE,
        "quick": False,
        "seconds": {"training": 60.0, **dict.fromkeys(("decoding", "startup", "agreement", "floor"), 7.5)},
        "skipped": {},
        "rows": rows,
    } | others


def test_page_has_the_machine_and_every_row():
    text = page([result()])
    assert "## On 2 cores" in text
    assert "Some CPU, 2 cores, 2 threads, 23 GiB; Python 3.11.7, torch 2.13.0, peft 0.21.2" in text
    assert "| training, tiny | 8.40× (8.00× to 9.10×) | ≥ 8.00× | yes |" in text
    assert "| decoding, tiny | 4.20× (4.00× to 4.50×) | ≥ 6.00× | **no** |" in text
    assert "| --help | 310 ms (290 ms to 340 ms) | ≤ 400 ms | yes |" in text
    assert "| losses | 2.5e-06 | ≤ 0.0001 | yes |" in text
    assert "| encoding, tiny: share of the floor | 62 % (60 % to 63 %) | ≥ 50 % | yes |" in text
    assert "ours 123 s of audio/s" in text
    assert "theirs peak 1,234 MiB" in text
    assert "* rank 32" in text
    assert "The run took 2 minutes." in text


def test_a_run_that_was_stopped_says_so():
    text = page([result(seconds={})])
    assert "The run was stopped before its end." in text and "The run took" not in text


def test_rows_without_a_goal_are_not_in_the_table_of_goals():
    goals, rest = page([result()]).split("### ", 1)
    assert "without a goal" not in goals
    assert "without a goal" in rest


def test_a_page_tells_what_was_left_out():
    text = page([result(quick=True, skipped={"faster": "faster_whisper not installed"})])
    assert "* Not measured: faster (faster_whisper not installed)" in text
    assert "(--quick)" in text


def test_two_machines_have_a_section_each():
    gpu = MACHINE | {"device": "Some GPU", "cores": 16}
    text = page([result(), result(machine=gpu)])
    assert text.index("## On 2 cores") < text.index("## On Some GPU")


@pytest.mark.parametrize("row", [row for _, row in ROWS])
def test_every_row_says_something(row: Row):
    assert figure(asdict(row)) != "–"
