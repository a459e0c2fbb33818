"""Language identification: Whisper's own probabilities, restricted, never with adapters."""

import pytest
import torch
from reference_whisper import randomise

from lora_whisper.errors import UnknownLanguage, UsageError
from lora_whisper.languages import WHISPER_LANGUAGES
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.language_id import allowed_codes, detect_language, from_audio
from lora_whisper.model.tokenizer import train_tokenizer
from lora_whisper.model.whisper import ModelDimensions, Whisper


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    tokenizer = train_tokenizer(["abc"], 258, list(WHISPER_LANGUAGES)[:99])
    model = Whisper(ModelDimensions(16, 50, 32, 4, 2, tokenizer.n_vocab, 20, 32, 4, 2)).eval()
    randomise(model)
    return Backbone(model, tokenizer, "random")


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_the_softmax_over_all_languages(backbone: Backbone, mel: torch.Tensor) -> None:
    tokenizer = backbone.tokenizer
    with torch.inference_mode():
        scores = backbone.model(mel, torch.full((3, 1), tokenizer.sot))[:, 0]
    for row, found in enumerate(detect_language(backbone, mel)):
        assert set(found) == set(tokenizer.languages)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        ratio = found["pl"] / found["cy"]
        pl, cy = (scores[row, tokenizer.language_token(code)].item() for code in ("pl", "cy"))
        assert ratio == pytest.approx(torch.tensor(pl - cy).exp().item(), rel=1e-3)


def test_restriction_renormalises(backbone: Backbone, mel: torch.Tensor) -> None:
    everything = detect_language(backbone, mel)
    for row, some in enumerate(detect_language(backbone, mel, allowed=["it", "pl", "cy"])):
        assert set(some) == {"it", "pl", "cy"}
        whole = sum(everything[row][code] for code in some)
        for code, probability in some.items():
            assert probability == pytest.approx(everything[row][code] / whole, rel=1e-4)


def test_one_allowed_language_is_certain(backbone: Backbone, mel: torch.Tensor) -> None:
    assert detect_language(backbone, mel, allowed=["el"]) == [{"el": 1.0}] * 3


def test_tags_count_as_whispers_codes(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    assert allowed_codes(tokenizer, ["pt-BR", "pt", "jv", "nb", "cmn"]) == ["pt", "jw", "no", "zh"]
    assert allowed_codes(tokenizer, ["jw", "haw"]) == ["jw", "haw"]
    assert allowed_codes(tokenizer, None) == list(WHISPER_LANGUAGES)[:99]


@pytest.mark.parametrize("tag", ["yue", "csb", "xx-nonsense", ""])
def test_language_that_whisper_does_not_know(tag: str, backbone: Backbone, mel: torch.Tensor) -> None:
    with pytest.raises(UnknownLanguage) as raised:
        detect_language(backbone, mel, allowed=["pl", tag])
    assert "\n" not in str(raised.value)


def test_no_language_allowed(backbone: Backbone, mel: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="no language to choose from"):
        detect_language(backbone, mel, allowed=[])


def test_from_audio_equals_detect_language(backbone: Backbone, mel: torch.Tensor) -> None:
    with torch.inference_mode():
        audio = backbone.model.encode(mel)
    assert from_audio(backbone, audio, allowed=["pl", "it"]) == detect_language(
        backbone, mel, None, ["pl", "it"]
    )


def test_padded_rows_equal_each_row_alone(backbone: Backbone, mel: torch.Tensor) -> None:
    n_positions = torch.tensor([20, 9, 14])
    padded = mel * (torch.arange(40) < 2 * n_positions[:, None])[:, None]
    together = detect_language(backbone, padded, n_positions)
    for row, length in enumerate(n_positions.tolist()):
        (alone,) = detect_language(backbone, mel[row : row + 1, :, : 2 * length])
        assert together[row] == pytest.approx(alone, abs=1e-5)


def test_loaded_adapters_take_no_part(backbone: Backbone, mel: torch.Tensor) -> None:
    from lora_whisper.lora.layers import LoRALinear
    from lora_whisper.lora.parts import LoRAConfig, LowRank

    before = detect_language(backbone, mel)
    attention = backbone.model.encoder.blocks[0].attn
    plain = attention.query
    layer = LoRALinear.from_linear(plain)
    layer.adapters[0] = LowRank.fresh(
        plain.in_features, plain.out_features, LoRAConfig(rank=2), torch.Generator().manual_seed(0)
    )
    torch.nn.init.ones_(layer.adapters[0].b)
    attention.query = layer
    try:
        assert detect_language(backbone, mel) == before
    finally:
        attention.query = plain
