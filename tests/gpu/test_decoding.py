"""What only a GPU can show: recorded steps are replayed there and hear what a CPU hears."""

from collections.abc import Sequence

import pytest
import torch
from toy_whisper import toy_backbone, toy_bank, toy_speech

from lora_whisper.decoding.clips import Clip, padded_features
from lora_whisper.decoding.search import GREEDY, Decoded, DecodingOptions, decode
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.replay import Decoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

TAGS = ["pl", "it", None, "cy", "pl", "it"] * 2
FRAMES = torch.tensor([120, 40, 72, 40, 96, 8] * 2)


def on(device: str) -> AdapterBank:
    """The same backbone and adapters on a device."""
    bank = toy_bank(toy_backbone(), {"pl": 4, "it": 4, "cy": 2})
    if device == "cpu":
        return bank
    backbone = toy_backbone()
    backbone.model.to(device)
    there = AdapterBank(backbone)
    for tag in bank.tags:
        adapter = there.add(tag, bank[tag].config)
        for path, part in bank[tag].parts.items():
            adapter.parts[path].a.data.copy_(part.a.data)
            adapter.parts[path].b.data.copy_(part.b.data)
    return there


def heard(bank: AdapterBank, options: DecodingOptions, tags: Sequence[str | None] = TAGS) -> list[Decoded]:
    mel = torch.randn(len(FRAMES), 8, 120, generator=torch.Generator().manual_seed(1))
    mel = mel * (torch.arange(120) < FRAMES[:, None])[:, None]
    words = [tag or "en" for tag in tags]
    return decode(
        bank.backbone, mel, words, n_positions=FRAMES // 2, routing=bank.route(tags), options=options
    )


@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        DecodingOptions(beams=4),
        DecodingOptions(temperature=0.7, draws=3),
        DecodingOptions(timestamps=True),
        DecodingOptions(beams=3, timestamps=True),
    ],
    ids=["greedy", "beam", "drawn", "timed", "timed beam"],
)
@pytest.mark.parametrize("n_rows", [3, 64])
def test_graphs_hear_the_same(options: DecodingOptions, n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows end, leave and enter while steps are recorded and replayed; a warning would be an error."""
    monkeypatch.setattr("lora_whisper.decoding.search.MAX_ROWS", n_rows)
    monkeypatch.setattr("lora_whisper.decoding.search.COMING_ROWS", min(n_rows // 2, 6))
    monkeypatch.setattr("lora_whisper.decoding.running.GAP", 4)
    monkeypatch.setattr("lora_whisper.model.replay.COLUMNS", 12)
    bank = on("cuda")
    found = heard(bank, options)
    monkeypatch.setattr(Decoder, "fastest", Decoder)
    for one, other in zip(found, heard(bank, options), strict=True):
        assert one.tokens == other.tokens
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)


def test_a_gpu_transforms_what_a_cpu_transforms() -> None:
    pieces = [
        (Clip(toy_speech(duration_s, seed)), "dynamic") for seed, duration_s in enumerate((1.0, 0.4, 3.0))
    ]
    there, here = (padded_features(pieces, 80, torch.device(device)) for device in ("cuda", "cpu"))
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-4)


def test_a_gpu_hears_what_a_cpu_hears() -> None:
    for one, other in zip(heard(on("cuda"), GREEDY), heard(on("cpu"), GREEDY), strict=True):
        assert one.tokens == other.tokens
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("options", [GREEDY, DecodingOptions(beams=4)], ids=["greedy", "beam"])
def test_the_second_gpu_hears_the_same(options: DecodingOptions) -> None:
    first, second = (heard(on(device), options) for device in ("cuda:0", "cuda:1"))
    assert [one.tokens for one in first] == [one.tokens for one in second]


def test_clips_in_several_groups_are_what_a_cpu_transcribes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What layers keep for a call serves groups with other languages, too."""
    monkeypatch.setattr("lora_whisper.decoding.search.COMING_ROWS", 3)
    clips = [Clip(toy_speech(0.3 + 0.1 * i, i), tag or "en") for i, tag in enumerate(TAGS)]
    there, here = (
        {one.index: one.transcript for one in LoraWhisper(bank.backbone, bank).transcribe_batch(clips)}
        for bank in (on("cuda"), on("cpu"))
    )
    for index, expected in here.items():
        found = there[index]
        assert found is not None and expected is not None
        assert [one.tokens for one in found.segments] == [one.tokens for one in expected.segments]
