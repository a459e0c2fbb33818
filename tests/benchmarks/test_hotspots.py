import pytest

from benchmarks.hotspots import self_seconds


def event(
    name: str, start: float, length: float, thread: int = 1, category: str = "cpu_op"
) -> dict[str, object]:
    return {"name": name, "cat": category, "pid": 1, "tid": thread, "ts": start, "dur": length}


def test_time_counts_once_for_the_innermost_operation_of_its_thread():
    events = [
        event("linear", 0, 10e6),
        event("addmm", 1e6, 6e6),
        event("copy_", 2e6, 1e6),
        event("t", 7e6, 1e6),
        event("gelu", 10e6, 2e6),
        event("backward", 0, 5e6, thread=2),
        event("kernel", 0, 9e6, category="kernel"),
        {"name": "a mark", "ph": "i"},
    ]
    assert dict(self_seconds(events, ("cpu_op",))) == pytest.approx(
        {"linear": 3, "addmm": 5, "copy_": 1, "t": 1, "gelu": 2, "backward": 5}
    )
    assert dict(self_seconds(events, ("kernel",))) == {"kernel": 9}
