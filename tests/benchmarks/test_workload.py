"""What is measured on, and the arithmetic of its floor; every module of the benchmarks can be imported."""

import subprocess
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.__main__ import ASKED_FOR, TOPICS
from benchmarks.bare import Language, stand_in
from benchmarks.floor import Floor, Product, decoder_products, encoder_products
from benchmarks.training import budget_s
from benchmarks.workload import GEOMETRIES, TINY, TURBO, durations_s, tokenizer, utterances
from lora_whisper.data.batching import plan_batches
from lora_whisper.languages import WHISPER_LANGUAGES
from lora_whisper.model.whisper import ModelDimensions

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("topic", TOPICS + ASKED_FOR)
def test_every_topic_can_be_measured(topic: str):
    assert callable(import_module(f"benchmarks.{topic}").measure)


def test_utterances_are_as_long_as_those_of_fleurs():
    lengths = durations_s(64)
    assert lengths[0] >= 3
    assert lengths[-1] <= 25
    assert sum(lengths) / len(lengths) == pytest.approx(12, abs=0.3)
    assert all(a <= b for a, b in pairwise(lengths))


def test_utterances_are_the_same_each_time_and_take_turns_in_languages():
    first, second = utterances(4, ["pl", "it"], seed=3), utterances(4, ["pl", "it"], seed=3)
    assert [one.language for one in first] == ["pl", "it", "pl", "it"]
    assert all(
        (a.samples == b.samples).all() and a.words == b.words for a, b in zip(first, second, strict=True)
    )
    assert {one.duration_s for one in utterances(2, ["pl"], length_s=2.0)} == {2.0}


def test_special_tokens_have_whispers_ids():
    v2 = tokenizer(99)
    assert (v2.eot, v2.sot, v2.no_timestamps, v2.n_vocab) == (50257, 50258, 50363, 51865)
    assert v2.languages == tuple(WHISPER_LANGUAGES)[:99]
    assert v2.n_vocab == GEOMETRIES[TINY].dims.n_vocab
    assert GEOMETRIES[TURBO].dims.n_vocab == 51866
    assert max(utterances(1, ["pl"])[0].text(v2)) < v2.eot


def test_ours_takes_as_many_steps_as_theirs():
    lengths = durations_s(32)
    assert len(plan_batches(lengths, budget_s(lengths, 8), seed=0, epoch=0)) == 4


def test_operations_and_bytes_of_a_product():
    product = Product("MLP", (2, 3, 4, 5), 7)
    assert product.operations == 2 * 2 * 3 * 4 * 5 * 7
    assert product.n_bytes(2) == 2 * (12 + 20 + 15) * 2 * 7
    assert Product("attention", (2, 3, 4, 5), 7, moved=10).n_bytes(4) == 280


def test_the_way_back_costs_what_it_must():
    dims = ModelDimensions(8, 1500, 32, 4, 2, 100, 448, 32, 4, 2)
    there, back = (_by_part(encoder_products(dims, 1, 10, training)) for training in (False, True))
    assert back["convolutions"] == there["convolutions"]  # nothing before them learns
    assert back["MLP"] == 2 * there["MLP"]  # the gradient of the input, not of the frozen weights
    assert back["attention"] == 3 * there["attention"]
    assert there["projections"] == 2 * 10 * 32 * 32 * 8
    assert back["projections"] == 2 * there["projections"] - 3 * 2 * 10 * 32 * 32
    assert "vocabulary" in _by_part(decoder_products(dims, 1, 10, 4, 4))


def _by_part(products: list[Product]) -> dict[str, int]:
    found: dict[str, int] = {}
    for product in products:
        found[product.part] = found.get(product.part, 0) + product.operations
    return found


def test_a_floor_is_the_longer_of_computing_and_moving():
    slow_shapes = {"MLP": 4.0, "attention": 1.0}
    assert Floor(slow_shapes, memory_s=2.5, operations=30, rate=10.0).seconds == 3.0
    assert Floor(slow_shapes, memory_s=2.5, operations=20, rate=10.0).seconds == 2.5


def test_stand_ins_are_for_bare_machines_only():
    assert stand_in() == []
    assert Language.get("PL").to_tag() == "pl"
    assert not Language.get("pt-BR").is_valid()


def test_the_script_for_a_gpu_is_sound():
    subprocess.run(["bash", "-n", ROOT / "benchmarks" / "gpu.sh"], check=True)
