"""Promise 1: our logits are transformers' logits; the cache and padding change nothing."""

import pytest
import torch
from reference_whisper import V3_VOCABULARY, ours, reference
from torch.nn.functional import scaled_dot_product_attention
from transformers import WhisperForConditionalGeneration

from lora_whisper.model.whisper import (
    ModelDimensions,
    Whisper,
    attention,
    causality,
    position_mask,
    sinusoids,
)

V3 = {"num_mel_bins": 128, "vocab_size": V3_VOCABULARY}
SMALL = ModelDimensions(80, 1500, 768, 12, 12, 51_865, 448, 768, 12, 12)


def mel_frames(rows: int, n_mels: int, n_frames: int) -> torch.Tensor:
    return torch.randn(rows, n_mels, n_frames, generator=torch.Generator().manual_seed(1)) * 0.5


def token_ids(rows: int, length: int, n_vocab: int) -> torch.Tensor:
    return torch.randint(n_vocab, (rows, length), generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def assert_same_logits(theirs: WhisperForConditionalGeneration, rows: int, n_tokens: int) -> None:
    config = theirs.config
    mel = mel_frames(rows, config.num_mel_bins, 2 * config.max_source_positions)
    tokens = token_ids(rows, n_tokens, config.vocab_size)
    expected = theirs(mel, decoder_input_ids=tokens).logits
    logits = ours(theirs)(mel, tokens)
    assert 0.3 < expected.std() < 3  # neither vanishing nor saturated: the comparison means something
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def tiny() -> WhisperForConditionalGeneration:
    return reference(384, 6, (4, 4))


def test_tiny_equals_transformers(tiny: WhisperForConditionalGeneration) -> None:
    assert_same_logits(tiny, rows=2, n_tokens=20)


def test_base_equals_transformers() -> None:
    assert_same_logits(reference(512, 8, (6, 6)), rows=1, n_tokens=9)


@pytest.mark.slow
def test_small_equals_transformers() -> None:
    assert_same_logits(reference(768, 12, (12, 12)), rows=1, n_tokens=7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "heads", "layers", "others"),
    [
        pytest.param(1024, 16, (2, 2), {}, id="medium"),
        pytest.param(1280, 20, (2, 2), V3, id="large-v3"),
        pytest.param(1280, 20, (1, 4), V3, id="turbo"),
    ],
)
def test_wide_geometries_equal_transformers(
    width: int, heads: int, layers: tuple[int, int], others: dict[str, int]
) -> None:
    """Real width, heads, mel bins and vocabulary; fewer layers than the released models, to save time."""
    assert_same_logits(reference(width, heads, layers, **others), rows=1, n_tokens=5)


@torch.inference_mode()
def test_short_audio_equals_transformers_with_fewer_positions(tiny: WhisperForConditionalGeneration) -> None:
    positions = 150
    short = reference(384, 6, (4, 4), max_source_positions=positions)
    state = tiny.state_dict()
    key = "model.encoder.embed_positions.weight"
    short.load_state_dict(state | {key: state[key][:positions]})
    mel, tokens = mel_frames(2, 80, 2 * positions), token_ids(2, 8, tiny.config.vocab_size)
    expected = short(mel, decoder_input_ids=tokens).logits
    torch.testing.assert_close(ours(tiny)(mel, tokens), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_longest_text_equals_transformers() -> None:
    theirs = reference(64, 2, (1, 2), max_source_positions=20, vocab_size=300)
    assert_same_logits(theirs, rows=2, n_tokens=448)


@pytest.fixture(scope="module")
def midget() -> Whisper:
    return ours(reference(64, 4, (2, 3), max_source_positions=60, vocab_size=500, num_mel_bins=16))


@pytest.mark.parametrize("pieces", [[1] * 12, [4, *[1] * 8], [3, 5, 1, 3], [12]])
@torch.inference_mode()
def test_cached_steps_equal_one_pass(midget: Whisper, pieces: list[int]) -> None:
    mel, tokens = mel_frames(3, 16, 80), token_ids(3, 12, 500)
    n_positions = torch.tensor([40, 23, 31])
    mel = masked(mel, n_positions)
    audio = midget.encode(mel, n_positions)
    cache = midget.new_cache(audio, n_positions, capacity=12)
    steps = [midget.logits(midget.decode(piece, cache)) for piece in tokens.split(pieces, dim=1)]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(steps, 1), midget(mel, tokens, n_positions), atol=1e-5, rtol=1e-5)


SELECTED = {
    "drop and reorder": [([2, 0], 1)],
    "reorder": [([2, 0, 1], 1)],
    "beams": [([0, 0, 1, 1, 2, 2], 2)],
    "beams of fewer": [([2, 2, 0, 0], 2)],
    "beams that cross and leave": [([0, 0, 1, 1, 2, 2], 2), ([1, 0, 5, 4], 2), ([3], 1)],
}


@pytest.mark.parametrize("moves", SELECTED.values(), ids=SELECTED.keys())
@torch.inference_mode()
def test_cache_follows_selected_rows(midget: Whisper, moves: list[tuple[list[int], int]]) -> None:
    n_positions = torch.tensor([40, 23, 31])
    mel, tokens = masked(mel_frames(3, 16, 80), n_positions), token_ids(3, 9, 500)
    cache = midget.new_cache(midget.encode(mel, n_positions), n_positions, capacity=9)
    midget.decode(tokens[:, :5], cache)
    rows = torch.arange(3)
    for chosen, width in moves:
        rows = rows[torch.tensor(chosen)]
        cache.index_select(torch.tensor(chosen), width)
    logits = midget.logits(midget.decode(tokens[rows, 5:], cache))
    expected = midget(mel, tokens, n_positions)[rows, 5:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_padded_rows_equal_each_row_alone(midget: Whisper) -> None:
    lengths = [60, 7, 1, 33]
    n_positions = torch.tensor(lengths)
    mel, tokens = masked(mel_frames(4, 16, 120), n_positions), token_ids(4, 6, 500)
    together = midget(mel, tokens, n_positions)
    for row, length in enumerate(lengths):
        alone = midget(mel[row : row + 1, :, : 2 * length], tokens[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("precise", [True, False])
def test_positions_are_filled_up_where_shapes_are_compiled(midget: Whisper, precise: bool) -> None:
    """Found by profiling: the total of each batch was a shape of its own."""
    sizes: list[int] = []
    hook = midget.encoder.blocks[0].register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    try:
        for lengths in ([50, 31], [49, 31]):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
                audio = midget.encode(torch.randn(2, 16, 100), torch.tensor(lengths))
            assert audio.shape[:2] == (2, 50)
            assert not audio[1, lengths[1] :].any()
    finally:
        hook.remove()
    assert sizes == ([81, 80] if precise else [88, 80])


def test_positions_are_needed_to_ignore_padding(midget: Whisper) -> None:
    mel, tokens = masked(mel_frames(1, 16, 120), torch.tensor([33])), token_ids(1, 6, 500)
    with_mask = midget(mel, tokens, torch.tensor([33]))
    assert not torch.allclose(with_mask, midget(mel, tokens), atol=1e-3)


def test_tokens_do_not_see_the_future(midget: Whisper) -> None:
    mel, tokens = mel_frames(1, 16, 40), token_ids(1, 8, 500)
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 500
    before, after = midget(mel, tokens), midget(mel, changed)
    torch.testing.assert_close(before[:, :5], after[:, :5], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


@pytest.mark.parametrize("kind", ["open", "causal", "masked"])
def test_attention_written_out_for_training_equals_the_fused_kernel(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 9, 8, generator=generator).bfloat16() for _ in range(3))
    mask = position_mask(torch.tensor([9, 4]), 9) if kind == "masked" else None
    written = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    fused = [tensor.float().requires_grad_() for tensor in (query, key, value)]
    out = attention(*written, mask, kind == "causal")
    expected = scaled_dot_product_attention(*fused, attn_mask=mask, is_causal=kind == "causal")
    torch.testing.assert_close(out.float(), expected, atol=0.03, rtol=0.03)
    out.float().square().sum().backward()
    expected.square().sum().backward()
    for ours_, theirs in zip(written, fused, strict=True):
        torch.testing.assert_close(ours_.grad.float(), theirs.grad, atol=0.1, rtol=0.1)


def test_causality_of_a_piece_in_the_middle() -> None:
    mask, causal = causality(2, torch.empty(1, 1, 5, 4))
    assert not causal
    assert mask is not None
    assert mask.tolist() == [[True, True, True, True, False], [True] * 5]


def test_sinusoids_equal_transformers() -> None:
    from transformers.models.whisper.modeling_whisper import sinusoids as theirs

    torch.testing.assert_close(sinusoids(1500, 384), theirs(1500, 384), atol=1e-6, rtol=0)


def test_initialise_is_reproducible_and_leaves_positions_alone() -> None:
    dims = ModelDimensions(16, 30, 64, 4, 1, 100, 20, 64, 4, 1)
    one, same, other = (Whisper(dims).initialise(seed) for seed in (7, 7, 8))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, same.get_parameter(name)), name
        assert torch.isfinite(parameter).all(), name
    assert torch.equal(one.encoder.positional_embedding, sinusoids(30, 64))
    assert not torch.equal(one.decoder.positional_embedding, other.decoder.positional_embedding)


def test_small_has_the_size_of_whisper_small() -> None:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Whisper(SMALL).parameters())
    assert parameters == 241_734_912


def masked(mel: torch.Tensor, n_positions: torch.Tensor) -> torch.Tensor:
    """Frames beyond each row's end set to zero, as batches are padded."""
    inside = torch.arange(mel.shape[2]) < 2 * n_positions[:, None]
    return mel * inside[:, None, :]
