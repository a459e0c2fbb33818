import pytest

from lora_whisper.errors import UsageError
from lora_whisper.studies.clusters import average_linkage

NEAR = {
    "da": {"da": 1.0, "sv": 0.9, "it": 0.1, "pt": 0.2},
    "sv": {"da": 0.9, "sv": 1.0, "it": 0.0, "pt": 0.1},
    "it": {"da": 0.1, "sv": 0.0, "it": 1.0, "pt": 0.8},
    "pt": {"da": 0.2, "sv": 0.1, "it": 0.8, "pt": 1.0},
}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (4, [("da",), ("it",), ("pt",), ("sv",)]),
        (3, [("da", "sv"), ("it",), ("pt",)]),
        (2, [("da", "sv"), ("it", "pt")]),
        (1, [("da", "it", "pt", "sv")]),
    ],
)
def test_the_nearest_come_together_first(count: int, expected: list[tuple[str, ...]]) -> None:
    assert average_linkage(NEAR, count) == expected


@pytest.mark.parametrize("count", [0, 5])
def test_more_clusters_than_languages_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="1 to 4"):
        average_linkage(NEAR, count)
