import pytest

from lora_whisper.studies.distance import distances, word_distance

pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")


def test_neighbours_are_nearer_than_strangers() -> None:
    found = distances(["da", "pt"], ["sv", "es", "zh"])
    assert found["da"]["sv"] < found["da"]["es"] < found["da"]["zh"] + 0.1
    assert found["pt"]["es"] < 0.8 < found["pt"]["zh"]


def test_distance_is_symmetric_and_nought_with_itself() -> None:
    assert word_distance("it", "it") == 0
    assert word_distance("it", "pl") == pytest.approx(word_distance("pl", "it"))
