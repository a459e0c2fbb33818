import pytest
import torch
from toy_whisper import toy_backbone, toy_bank

from lora_whisper.errors import AdapterError
from lora_whisper.lora.expansion import (
    adapter_candidates,
    adapter_similarity,
    embedding_similarity,
    language_similarity,
)
from lora_whisper.lora.parts import LoRAConfig
from lora_whisper.model.language_id import detect_language


def batches(count: int) -> list[tuple[torch.Tensor, None]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(rows, 8, 60, generator=generator), None) for rows in range(1, count + 1)]


def test_similarity_is_the_mean_probability_over_utterances() -> None:
    backbone = toy_backbone()
    found = language_similarity(backbone, {"pl": "pl", "it": "it"}, batches(3))
    rows = [row for mel, _ in batches(3) for row in detect_language(backbone, mel, allowed=["pl", "it"])]
    for tag, value in found.items():
        assert value == pytest.approx(sum(row[tag] for row in rows) / len(rows))
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_adapters_do_not_take_part() -> None:
    backbone = toy_backbone()
    bare = language_similarity(backbone, {"pl": "pl", "it": "it"}, batches(2))
    toy_bank(backbone, {"pl": 4, "it": 2})
    assert language_similarity(backbone, {"pl": "pl", "it": "it"}, batches(2)) == bare


def test_adapters_that_share_a_token_are_one_candidate() -> None:
    bank = toy_bank(toy_backbone(), {"it": 2})
    bank.add("sc", LoRAConfig(2), token_language="it")
    bank.add("pl-PL", LoRAConfig(2))
    assert adapter_candidates(bank) == {"it": "it", "pl-PL": "pl"}
    bank.add("pl", LoRAConfig(2))
    assert adapter_candidates(bank) == {"it": "it", "pl": "pl"}


def test_nothing_to_compare_is_an_error() -> None:
    backbone = toy_backbone()
    with pytest.raises(AdapterError, match="no adapters"):
        language_similarity(backbone, {}, batches(1))
    with pytest.raises(AdapterError, match="no utterances"):
        language_similarity(backbone, {"pl": "pl"}, [])


def test_sound_is_most_alike_with_itself_and_symmetric() -> None:
    backbone = toy_backbone()
    found = embedding_similarity(backbone, {"pl": batches(2), "it": batches(3)[2:], "cy": batches(1)})
    assert set(found) == {"pl", "it", "cy"} and found["pl"]["it"] == pytest.approx(found["it"]["pl"])
    for tag, row in found.items():
        assert row[tag] == pytest.approx(1) and all(-1.001 <= value <= 1.001 for value in row.values())


def test_padding_does_not_change_the_sound() -> None:
    backbone = toy_backbone()
    mel = torch.randn(1, 8, 60, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(mel, (0, 40))
    other = {"it": batches(2)}
    plain = embedding_similarity(backbone, {"pl": [(mel, torch.tensor([30]))], **other})
    longer = embedding_similarity(backbone, {"pl": [(padded, torch.tensor([30]))], **other})
    assert longer["pl"]["it"] == pytest.approx(plain["pl"]["it"], abs=1e-4)


def test_adapters_are_compared_by_their_whole_updates() -> None:
    bank = toy_bank(toy_backbone(), {"pl": 4, "it": 2, "cy": 4})
    found = adapter_similarity(bank)
    whole = {
        tag: torch.cat([(p.scale * (p.b @ p.a)).detach().flatten() for p in bank[tag].parts.values()])
        for tag in bank.tags
    }
    for one in bank.tags:
        for other in bank.tags:
            expected = torch.cosine_similarity(whole[one], whole[other], dim=0)
            assert found[one][other] == pytest.approx(float(expected), abs=1e-5)


def test_one_alone_cannot_be_compared() -> None:
    with pytest.raises(AdapterError, match="two or more"):
        embedding_similarity(toy_backbone(), {"pl": batches(1)})
    with pytest.raises(AdapterError, match="two or more"):
        adapter_similarity(toy_bank(toy_backbone(), {"pl": 2}))
