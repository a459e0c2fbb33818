"""Greedy decoding: a batch is its rows, whatever languages, lengths and adapters stand side by side."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_whisper import MAX_TOKENS, toy_backbone, toy_bank

from lora_whisper.decoding.search import GREEDY, Decoded, DecodingOptions, Greedy, decode, suppressed
from lora_whisper.errors import UnknownLanguage, UsageError
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return toy_backbone()


@pytest.fixture(scope="module")
def bank() -> AdapterBank:
    return toy_bank(toy_backbone(), {"pl": 4, "it": 4, "cy": 2})


FRAMES = (120, 40, 72, 40, 96, 8)
TAGS: tuple[str | None, ...] = ("pl", "it", None, "cy", "pl", "it")
WORDS = ("pl", "it", "en", "cy", "pl", "it")


def speech(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mel = torch.randn(len(FRAMES), 8, max(FRAMES), generator=generator)
    for row, frames in enumerate(FRAMES):
        mel[row, :, frames:] = 0
    return mel, torch.tensor(FRAMES) // 2


def same(one: Decoded, other: Decoded) -> bool:
    numbers = (one.avg_logprob, one.no_speech_probability)
    return (one.tokens, one.text) == (other.tokens, other.text) and numbers == pytest.approx(
        (other.avg_logprob, other.no_speech_probability), abs=1e-4
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_mixed_batch_is_each_row_alone(bank: AdapterBank, seed: int) -> None:
    mel, n_positions = speech(seed)
    batch = decode(bank.backbone, mel, WORDS, n_positions=n_positions, routing=bank.route(TAGS))
    alone = [
        decode(bank.backbone, mel[[row], :, :frames], [WORDS[row]], routing=bank.route([TAGS[row]]))[0]
        for row, frames in enumerate(FRAMES)
    ]
    assert all(map(same, batch, alone))


def test_the_mixed_batch_is_a_real_test(bank: AdapterBank) -> None:
    """Rows end at different steps, and the adapters change what is heard."""
    lengths, changed = set(), 0
    for seed in range(8):
        mel, n_positions = speech(seed)
        batch = decode(bank.backbone, mel, WORDS, n_positions=n_positions, routing=bank.route(TAGS))
        bare = decode(bank.backbone, mel, WORDS, n_positions=n_positions)
        lengths |= {len(one.tokens) for one in batch}
        changed += sum(not same(one, other) for one, other in zip(batch, bare, strict=True))
        assert same(batch[2], bare[2])
    assert len(lengths) > 4
    assert changed > 20


def test_adapters_that_are_not_routed_change_nothing(backbone: Backbone, bank: AdapterBank) -> None:
    mel, n_positions = speech()
    assert decode(bank.backbone, mel, WORDS, n_positions=n_positions) == decode(
        backbone, mel, WORDS, n_positions=n_positions
    )


def step_by_step(backbone: Backbone, mel: Tensor, code: str) -> tuple[list[int], float]:
    """Greedy decoding as one would write it first: the whole sequence anew for each token."""
    start = backbone.tokenizer.start_sequence(code)
    tokens, logprob = list(start), 0.0
    for _ in range(MAX_TOKENS):
        scores = backbone.model(mel, torch.tensor([tokens]))[0, -1]
        scores[backbone.tokenizer.eot + 1 :] = -torch.inf
        scores[list(backbone.suppress_tokens)] = -torch.inf
        best = scores.log_softmax(0).max(0)
        tokens.append(int(best.indices))
        logprob += float(best.values)
        if tokens[-1] == backbone.tokenizer.eot:
            tokens.pop()
            break
    return tokens[len(start) :], logprob


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_the_most_probable_token_at_each_step(backbone: Backbone, seed: int) -> None:
    mel, _ = speech(seed)
    decoded = decode(backbone, mel[:1], ["pl"])[0]
    tokens, logprob = step_by_step(backbone, mel[:1], "pl")
    assert list(decoded.tokens) == tokens
    assert decoded.avg_logprob == pytest.approx(logprob / (len(tokens) + 1), abs=1e-4)
    assert decoded.text == backbone.tokenizer.decode(tokens).strip()


def test_the_language_is_in_the_start_sequence(backbone: Backbone) -> None:
    mel, n_positions = speech()
    polish, italian = (decode(backbone, mel, [code] * 6, n_positions=n_positions) for code in ("pl", "it"))
    assert polish != italian


def test_no_speech_is_read_off_at_the_start_of_transcript(backbone: Backbone) -> None:
    mel, _ = speech()
    scores = backbone.model(mel[:1], torch.tensor([[backbone.tokenizer.sot]]))[0, 0]
    expected = float(scores.softmax(0)[backbone.tokenizer.no_speech])
    assert decode(backbone, mel[:1], ["it"])[0].no_speech_probability == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("limit", "longest"), [(None, MAX_TOKENS), (1000, MAX_TOKENS), (5, 5), (1, 1)])
def test_what_never_ends_is_cut(backbone: Backbone, limit: int | None, longest: int) -> None:
    mel, n_positions = speech()
    options = DecodingOptions(max_tokens=limit, suppress_tokens=(backbone.tokenizer.eot,))
    decoded = decode(backbone, mel, WORDS, n_positions=n_positions, options=options)
    assert [len(one.tokens) for one in decoded] == [longest] * len(FRAMES)


def test_special_and_suppressed_tokens_are_never_chosen(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    first = replace(backbone, suppress_tokens=(70, tokenizer.sot), begin_suppress_tokens=(71, tokenizer.eot))
    mask = suppressed(first, DecodingOptions(suppress_tokens=(72,)))
    allowed = (~mask).nonzero().tolist()
    text = set(range(tokenizer.eot)) - {70, 72}
    assert {token for row, token in allowed if row == 0} == text - {71}
    assert {token for row, token in allowed if row == 1} == text | {tokenizer.eot}

    mel, n_positions = speech(3)
    heard = decode(backbone, mel, WORDS, n_positions=n_positions)
    unwanted = {one.tokens[0] for one in heard if one.tokens}
    assert unwanted
    without = replace(backbone, begin_suppress_tokens=(*unwanted, tokenizer.eot))
    again = decode(without, mel, WORDS, n_positions=n_positions)
    assert all(one.tokens and one.tokens[0] not in unwanted for one in again)
    never = DecodingOptions(suppress_tokens=tuple(unwanted))
    rows = decode(backbone, mel, WORDS, n_positions=n_positions, options=never)
    assert not unwanted & {token for one in rows for token in one.tokens}


def test_greedy_follows_rows_as_they_leave() -> None:
    search = Greedy(3, max_tokens=4, eot=9, device=torch.device("cpu"))

    def scores(*tokens: int) -> Tensor:
        return torch.full((len(tokens), 10), -5.0).scatter(1, torch.tensor(tokens).unsqueeze(1), -1.0)

    rows, tokens = search.step(scores(1, 2, 3))
    assert rows is None
    assert tokens.tolist() == [1, 2, 3]
    rows, tokens = search.step(scores(1, 9, 3))
    assert rows is not None
    assert (rows.tolist(), tokens.tolist()) == ([0, 2], [1, 3])
    rows, tokens = search.step(scores(9, 4))
    assert rows is not None
    assert (rows.tolist(), tokens.tolist()) == ([1], [4])
    search.step(scores(5))
    results = search.results()
    assert [one.tokens for one in results] == [(1, 1), (2,), (3, 3, 4, 5)]
    assert [one.logprob for one in results] == [-3, -2, -4]


def test_decoding_leaves_no_trace(bank: AdapterBank) -> None:
    """Nothing is recorded for gradients, and decoding twice is the same."""
    mel, n_positions = speech(1)
    once, twice = (
        decode(bank.backbone, mel, WORDS, n_positions=n_positions, routing=bank.route(TAGS)) for _ in range(2)
    )
    assert once == twice
    assert all(parameter.grad is None for adapter in bank for parameter in adapter.parameters())


def test_wrong_use_is_refused(backbone: Backbone) -> None:
    mel, _ = speech()
    with pytest.raises(UsageError, match="2 languages for 6 rows"):
        decode(backbone, mel, ["pl", "it"])
    with pytest.raises(UnknownLanguage, match="no language token 'xx'"):
        decode(backbone, mel[:1], ["xx"])
    with pytest.raises(UsageError, match="max_tokens is 0"):
        DecodingOptions(max_tokens=0)
    assert decode(backbone, mel[:0], [], options=GREEDY) == []
