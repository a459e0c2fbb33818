"""A recorded step is the step, and nothing in it needs Python; a tape stands for the graphs of a GPU."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.decoding.search import GREEDY, Decoded, DecodingOptions, decode
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.updates import Adapted
from lora_whisper.model.replay import CUDARecorder, Decoder, Work
from lora_whisper.model.routing import Routing

NEEDS_PYTHON = {
    "aten._local_scalar_dense.default",  # a number is read
    "aten.nonzero.default",  # sizes depend on what is in memory
    "aten._unique2.default",
    "aten.lift_fresh.default",  # a number comes from Python
}
KINDS = {
    "greedy": GREEDY,
    "beam": DecodingOptions(beams=4),
    "patient beam": DecodingOptions(beams=3, patience=2.0, length_penalty=0.6),
    "drawn": DecodingOptions(temperature=0.7, draws=3),
    "timed": DecodingOptions(timestamps=True),
    "timed beam": DecodingOptions(beams=3, timestamps=True),
}


class Tape(TorchDispatchMode):
    """Records work as a graph does: the kernels, in order, and where in memory they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, Any, Any, Any]] = []
        self.n_recorded = self.n_replayed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert str(func) not in NEEDS_PYTHON, func
        out = func(*args, **(kwargs or {}))
        self.kernels.append((func, args, kwargs or {}, out))
        return out

    def __call__(self, work: Work) -> Work:
        self.kernels = []
        with self:
            output = work()
        kernels, self.n_recorded, first = self.kernels, self.n_recorded + 1, self.n_replayed

        def replay() -> Tensor:
            self.n_replayed += 1
            if self.n_replayed == first + 1:
                return output  # a GPU runs nothing while it records; a tape has just run it
            for func, args, kwargs, out in kernels:
                for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)
            return output

        return replay


@pytest.fixture(scope="module")
def bank() -> AdapterBank:
    return toy_bank(toy_backbone(), {"pl": 4, "it": 4, "cy": 2})


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """What records from now on; columns come in small blocks, so that there is more than one."""
    tape = Tape()
    monkeypatch.setattr(Decoder, "fastest", lambda model: Decoder(model, tape))
    monkeypatch.setattr("lora_whisper.model.replay.COLUMNS", 12)
    return tape


def heard(bank: AdapterBank, options: DecodingOptions, seed: int) -> list[Decoded]:
    """What is heard in rows of different lengths, languages and adapters."""
    frames, tags = torch.tensor([120, 40, 72, 40, 96, 8] * 2), ["pl", "it", None, "cy", "pl", "it"] * 2
    mel = torch.randn(len(frames), 8, 120, generator=torch.Generator().manual_seed(seed))
    mel = mel * (torch.arange(120) < frames[:, None])[:, None]
    words = [tag or "en" for tag in tags]
    return decode(
        bank.backbone, mel, words, n_positions=frames // 2, routing=bank.route(tags), options=options
    )


def check(found: list[Decoded], expected: list[Decoded]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [3, 64])
def test_replayed_steps_hear_the_same(
    bank: AdapterBank, kind: str, n_rows: int, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows end, leave and enter: where the batch changes, another recording is made."""
    monkeypatch.setattr("lora_whisper.decoding.search.MAX_ROWS", n_rows)
    monkeypatch.setattr("lora_whisper.decoding.search.COMING_ROWS", min(n_rows // 2, 6))
    monkeypatch.setattr("lora_whisper.decoding.running.GAP", 4)
    found = heard(bank, KINDS[kind], seed=1)
    assert tape.n_replayed > tape.n_recorded > 1
    monkeypatch.setattr(Decoder, "fastest", Decoder)
    check(found, heard(bank, KINDS[kind], seed=1))


def test_a_recording_of_another_batch_would_be_noticed(bank: AdapterBank, tape: Tape) -> None:
    """The tests above can fail: a step that goes on with an old recording hears something else."""
    expected = heard(bank, GREEDY, seed=1)

    class Stale(Decoder):
        def next(self, *batch: Any) -> Tensor:
            if self._step is not None:
                self._step.fits = lambda cache: True  # type: ignore[method-assign]
            return super().next(*batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "fastest", lambda model: Stale(model, tape))
        try:
            found = heard(bank, GREEDY, seed=1)
        except (RuntimeError, IndexError):
            return
    assert [one.tokens for one in found] != [one.tokens for one in expected]


@pytest.mark.parametrize("tags", [[None], ["pl"], ["pl", "it", "cy", None]], ids=["bare", "one", "mixed"])
def test_a_step_on_another_device_needs_no_python(
    tags: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All adapters at once, as on a GPU: the layers take another way there than on a CPU."""
    monkeypatch.setattr("torch.is_autocast_enabled", lambda kind: False)  # which "meta" does not know
    bank = toy_bank(toy_backbone(), {"pl": 4, "it": 4, "cy": 2})
    routing, model = bank.route(tags), bank.backbone.model.to("meta")
    for layer in model.modules():
        if isinstance(layer, Adapted):
            layer.adapters = {slot: part.to(model.device) for slot, part in layer.adapters.items()}
    if routing is not None:
        elsewhere = Routing(routing.adapter_ids.to("meta"), routing.gates.to("meta"))
        vars(elsewhere).update(slots=routing.slots, routes=routing.routes)  # nothing can be read there
        routing = elsewhere
    tape = Tape()
    decoder, n_rows = Decoder(model, tape), len(tags)
    with torch.inference_mode():
        cache = model.new_cache(torch.empty(n_rows, 50, 32, device="meta"), routing=routing, capacity=40)
        model.decode(torch.zeros(n_rows, 4, dtype=torch.int64, device="meta"), cache, routing)
        for _ in range(3):
            hidden = decoder.next(torch.zeros(n_rows, 1, dtype=torch.int64, device="meta"), cache, routing)
    assert hidden.shape == (n_rows, 32) and cache.length == 7
    assert tape.n_recorded == 1 and tape.n_replayed == 2


class PretendCUDA:
    """What `CUDARecorder` uses of torch.cuda; a graph notes what happens to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: "pool")
        monkeypatch.setattr("torch.cuda.Stream", lambda device: self)
        monkeypatch.setattr("torch.cuda.current_stream", lambda device: self)
        monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())
        monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: self)
        self.device = torch.device("cpu")

    def wait_stream(self, other: "PretendCUDA") -> None:
        self.told.append("wait")

    def capture_begin(self, pool: str, capture_error_mode: str) -> None:
        self.told.append(f"begin in {pool}")

    def capture_end(self) -> None:
        self.told.append("end")

    def replay(self) -> None:
        self.told.append("replay")


def test_a_graph_is_recorded_once_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, works = PretendCUDA(monkeypatch), []
    replay = CUDARecorder(torch.device("cuda", 1))(lambda: works.append("work") or torch.ones(1))
    assert replay() is replay() and works == ["work"]
    assert cuda.told == [
        "wait",
        *["begin in pool", "end"] * 2,
        "wait",
        "replay",
        "replay",
    ]  # the first keeps the pool


def test_what_cannot_be_recorded_is_run_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, calls = PretendCUDA(monkeypatch), []

    def work() -> Tensor:
        calls.append("work")
        if len(calls) == 1:
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.ones(1)

    with pytest.warns(UserWarning, match="without CUDA graphs, more slowly: operation not permitted"):
        replay = CUDARecorder(torch.device("cuda", 1))(work)
    assert "end" in cuda.told and replay() == torch.ones(1) and replay() == torch.ones(1)
    assert "replay" not in cuda.told and len(calls) == 3
