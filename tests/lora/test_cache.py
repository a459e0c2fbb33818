"""Adapters on demand: read when they are used, evicted by use, never from under a batch."""

import json
import logging
import shutil
import threading
from pathlib import Path

import pytest
import torch
from toy_adapters import INFO, RANKS, TENSORS, adapters_folder, eager, heard, mixture_folder, opened
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.errors import AdapterError, UnknownLanguage
from lora_whisper.lora import cache as cache_module
from lora_whisper.lora import storage
from lora_whisper.lora.adapter import Expert, Gating
from lora_whisper.model.routing import Routing


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapters_folder(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "adapters"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Languages whose tensors are read, in order."""
    found: list[str] = []

    def noted(described, *arguments):
        found.append(described.folder.name)
        return storage.read_adapter(described, *arguments)

    monkeypatch.setattr(cache_module, "read_adapter", noted)
    return found


def size(root: Path) -> int:
    """Bytes of one adapter in memory."""
    bank = opened(root)
    bank.route(["pl"])
    return bank.cache.n_bytes


# --- opening and loading ----------------------------------------------------------------------------------


def test_a_batch_reads_what_it_uses_once(root: Path, reads: list[str]) -> None:
    bank = opened(root)
    for _ in range(2):
        bank.route(["pl", None, "it-CH", "pl"])
    assert reads == ["pl", "it"]
    assert bank.cache.tags == ("pl", "it")


def test_results_are_those_of_loading_at_once(tmp_path: Path, root: Path) -> None:
    folder = mixture_folder(root, tmp_path / "with")
    bank, loaded = opened(folder, memory_bytes=0), eager(folder)
    for languages in (["pl", "it", None, "zh", "cy"], ["da", "pl", "da", None, "cy"], ["pl"] * 5):
        found = heard(bank, bank.route(languages), 5)
        assert torch.equal(found, heard(loaded, loaded.route(languages), 5))
    assert {a.tag: a.fingerprint for a in bank} == {a.tag: a.fingerprint for a in loaded}
    assert {a.tag: a.info for a in bank} == {a.tag: a.info for a in loaded}
    assert {a.tag: a.config for a in bank} == {a.tag: a.config for a in loaded}


def test_read_in_inference_it_can_still_be_trained(root: Path) -> None:
    bank = opened(root)
    with torch.inference_mode():
        bank.route(["pl"])
    parameter = bank["pl"].parameters()[0]
    (parameter * 2).sum().backward()
    assert parameter.grad is not None


# --- eviction ---------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first(root: Path, reads: list[str]) -> None:
    bank = opened(root, memory_bytes=2 * size(root))
    reads.clear()
    for tag in ("pl", "it", "pl", "cy"):
        bank.route([tag])
    assert bank.cache.tags == ("pl", "cy")
    bank.route(["it"])
    assert bank.cache.tags == ("cy", "it")
    assert reads == ["pl", "it", "cy", "it"]
    assert bank.cache.n_bytes == 2 * size(root)


def test_slots_outlive_eviction(root: Path) -> None:
    bank = opened(root, memory_bytes=0)
    before = bank.route(["pl"])
    expected = heard(bank, before, 1)
    slots = before.slots
    del before
    bank.route(["it"])
    assert "pl" not in bank.cache.tags
    again = bank.route(["pl"])
    assert again.slots == slots
    assert torch.equal(heard(bank, again, 1), expected)


def test_a_batch_in_flight_keeps_its_adapters(root: Path) -> None:
    bank, plenty = opened(root, memory_bytes=size(root)), opened(root)
    routing = bank.route(["pl", "it"])
    bank.route(["cy"])
    bank.route(["zh"])
    assert {"pl", "it"} <= set(bank.cache.tags)
    expected = heard(plenty, plenty.route(["pl", "it"]), 2)
    assert torch.equal(heard(bank, routing, 2), expected)
    fewer = routing.repeat_interleave(2).index_select(torch.tensor([3]))
    del routing
    bank.route(["cy"])  # beams and rows that are left keep the batch in flight
    assert {"pl", "it"} <= set(bank.cache.tags)
    del fewer
    bank.route(["cy"])
    assert bank.cache.tags == ("cy",)


def test_languages_of_one_batch_do_not_evict_each_other(root: Path) -> None:
    bank = opened(root, memory_bytes=2 * size(root))
    bank.route(["pl", "it"])
    routing = bank.route(["pl", "cy", "zh"])  # Polish is there, and stays
    assert set(bank.cache.tags) == {"pl", "cy", "zh"}
    assert heard(bank, routing, 3).isfinite().all()


@pytest.mark.parametrize("gating", ["fixed", "layer", "token"])
@pytest.mark.parametrize("own", [True, False])
def test_borrowed_adapters_stay_with_the_mixture(
    tmp_path: Path, root: Path, gating: Gating, own: bool, reads: list[str]
) -> None:
    folder = mixture_folder(root, tmp_path / "with", gating, own)
    bank, loaded = opened(folder, memory_bytes=0), eager(folder)
    routing = bank.route(["da", "cy"])
    assert set(reads) == {"da", "pl", "it", "cy"}
    bank.route(["zh"])
    assert {"da", "pl", "it"} <= set(bank.cache.tags)
    assert torch.equal(heard(bank, routing, 2), heard(loaded, loaded.route(["da", "cy"]), 2))
    del routing
    bank.route(["zh"])
    assert bank.cache.tags == ("zh",)
    assert not any(layer.gates for layer in bank.layers.values())


def test_a_batch_over_the_budget_is_a_warning_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    bank = opened(root, memory_bytes=1000)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bank.route(["pl", "it"])
    (record,) = caplog.records
    assert "--adapter-memory" in record.getMessage() and "\n" not in record.getMessage()


def test_a_routing_without_its_lease_fails_instead_of_ignoring_the_adapter(root: Path) -> None:
    bank = opened(root, memory_bytes=0)
    routing = bank.route(["pl"])
    bare = Routing(routing.adapter_ids, routing.gates)
    del routing
    bank.route(["it"])
    with pytest.raises(AdapterError, match="pl was evicted while a routing still names it"):
        heard(bank, bare, 1)
    bank.route(["pl"])
    assert heard(bank, bank.route(["pl"]), 1).isfinite().all()


# --- what may be changed stays ----------------------------------------------------------------------------


def test_what_somebody_has_the_parameters_of_is_never_evicted(root: Path) -> None:
    bank = opened(root, memory_bytes=0)
    adapter = bank["pl"]
    adapter.parameters()[0].data.add_(1)
    changed, recorded = adapter.fingerprint, bank["it"].fingerprint
    bank.route(["it", "cy"])
    bank.route(["zh"])
    assert "pl" in bank.cache.tags
    assert bank["pl"] is adapter and adapter.fingerprint == changed
    assert torch.equal(adapter.parameters()[0], next(iter(adapter.parts.values())).a)
    assert bank["it"].fingerprint == recorded and "it" not in bank.cache.tags


def test_a_route_by_hand_keeps_the_adapters_that_it_names(tmp_path: Path, root: Path) -> None:
    bank = opened(mixture_folder(root, tmp_path / "with"), memory_bytes=0)
    expected = heard(bank, bank.route(["da"]), 1)
    by_hand = Routing.of([bank["da"].route])
    bank.route(["zh"])
    assert {"da", "pl", "it"} <= set(bank.cache.tags)
    assert torch.equal(heard(bank, by_hand, 1), expected)


def test_added_adapters_stay_and_lean_on_opened_ones(root: Path, tmp_path: Path) -> None:
    bank = opened(root, memory_bytes=0)
    copy = bank.add("sk", start="pl")
    experts = [Expert("it", bank["it"].fingerprint, 1.0)]
    bank.add_mixture("da", experts, token_language="en")
    assert copy.fingerprint == bank["pl"].fingerprint
    routing = bank.route(["sk", "da"])
    bank.route(["cy"])
    assert "it" in bank.cache.tags
    assert torch.equal(heard(bank, routing, 2)[1:], heard(bank, bank.route(["cy", "it"]), 2)[1:])
    assert (bank.save("sk", tmp_path / "sk") / TENSORS).exists()


def test_removed_adapters_leave_when_no_batch_uses_them(root: Path) -> None:
    bank = opened(root)
    routing = bank.route(["pl", "it"])
    expected = heard(bank, routing, 2)
    adapter = bank["pl"]
    bank.remove("pl")
    assert "pl" not in bank
    with pytest.raises(UnknownLanguage, match="'pl'"):
        bank.route(["pl"])
    assert torch.equal(heard(bank, Routing(routing.adapter_ids, routing.gates), 2), expected)
    n_bytes = bank.cache.n_bytes
    del routing
    bank.route(["it"])
    assert bank.cache.n_bytes == n_bytes // 2
    assert all(len(bank.layers[path].adapters) == 1 for path in bank["it"].parts)
    bank.put_back(adapter)
    assert torch.equal(heard(bank, bank.route(["pl", "it"]), 2), expected)
    adapter.parameters()[0].data.add_(1)
    bank.remove("pl")
    bank.put_back(adapter)
    assert bank["pl"].fingerprint == adapter.fingerprint != adapter.described.fingerprint


def test_an_adapter_that_comes_back_while_a_batch_uses_it_stays(root: Path) -> None:
    bank = opened(root)
    routing = bank.route(["pl"])
    expected, adapter = heard(bank, routing, 1), bank["pl"]
    bank.remove("pl")
    bank.put_back(adapter)
    again = bank.route(["pl"])
    del routing
    bank.route(["it"])
    assert torch.equal(heard(bank, again, 1), expected)


# --- faults -----------------------------------------------------------------------------------------------


def test_a_damaged_adapter_is_an_error_when_it_is_used(copied: Path) -> None:
    content = bytearray((copied / "pl" / TENSORS).read_bytes())
    content[-5] ^= 4
    (copied / "pl" / TENSORS).write_bytes(content)
    (copied / "it" / TENSORS).unlink()
    bank = opened(copied)
    assert bank.route(["cy"]) is not None
    with pytest.raises(AdapterError, match=r"pl: tensors or configuration are not those .* restore it"):
        bank.route(["cy", "pl"])
    with pytest.raises(AdapterError, match=r"it/adapter_model\.safetensors: missing"):
        bank["it"].parameters()
    assert bank.cache.tags == ("cy",)
    shutil.rmtree(copied / "zh")
    with pytest.raises(AdapterError, match=r"zh/adapter_config\.json: missing"):
        bank.route(["zh"])


def test_a_folder_that_changed_is_an_error(copied: Path) -> None:
    bank = opened(copied, memory_bytes=0)
    expected = heard(bank, bank.route(["pl"]), 1)
    other = toy_bank(toy_backbone(), {"it": 4, "pl": 4})
    routing = bank.route(["pl"])
    other.save("pl", copied / "pl")
    assert torch.equal(heard(bank, routing, 1), expected)  # in memory, and in use
    del routing
    bank.route(["it"])
    with pytest.raises(
        AdapterError, match=r"pl: has changed since it was opened .*; open the adapters again"
    ):
        bank.route(["pl"])
    bank.remove("pl")
    bank.open(copied / "pl")
    assert not torch.equal(heard(bank, bank.route(["pl"]), 1), expected)


def test_an_overwritten_file_does_not_change_what_is_in_memory(copied: Path) -> None:
    bank = opened(copied)
    expected = heard(bank, bank.route(["pl"]), 1)
    path = copied / "pl" / TENSORS
    with path.open("r+b") as file:
        file.seek(-4000, 2)
        file.write(bytes(4000))
        file.truncate(100)
    assert torch.equal(heard(bank, bank.route(["pl"]), 1), expected)


def test_an_adapter_of_an_older_version_is_hashed_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = json.loads((copied / "pl" / INFO).read_text())
    del info["checksum"]
    (copied / "pl" / INFO).write_text(json.dumps(info))
    hashed = []
    compute = storage.tensors_fingerprint
    monkeypatch.setattr(storage, "tensors_fingerprint", lambda *some: (hashed.append(1), compute(*some))[1])
    bank = opened(copied, memory_bytes=0)
    for tag in ("pl", "it", "pl", "it"):
        bank.route([tag])
    assert len(hashed) == 1


# --- threads and numbers ----------------------------------------------------------------------------------


def test_threads_route_while_others_evict(root: Path) -> None:
    bank = opened(root, memory_bytes=size(root))
    loaded = eager(root)
    expected = {tag: heard(loaded, loaded.route([tag]), 1) for tag in RANKS}
    faults: list[str] = []

    def work(start: int) -> None:
        for turn in range(12):
            tag = list(RANKS)[(start + turn) % 4]
            if not torch.equal(heard(bank, bank.route([tag]), 1), expected[tag]):
                faults.append(tag)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    bank.route(["pl"])
    assert bank.cache.tags == ("pl",)
