"""Decoding: a batch is its rows, whatever languages, lengths, prompts and adapters stand side by side."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_whisper import MAX_TOKENS, toy_backbone, toy_bank

from lora_whisper.decoding.lanes import Lanes
from lora_whisper.decoding.rules import NOT_YET, suppression
from lora_whisper.decoding.search import GREEDY, Decoded, DecodingOptions, decode
from lora_whisper.decoding.strategies import Greedy
from lora_whisper.errors import UnknownLanguage, UsageError
from lora_whisper.lora.bank import AdapterBank, Expert, Gating
from lora_whisper.lora.parts import LoRAConfig
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


@pytest.mark.parametrize("options", [GREEDY, DecodingOptions(beams=3)], ids=["greedy", "beams"])
def test_a_batch_that_is_encoded_in_pieces_is_each_row_alone(
    bank: AdapterBank, options: DecodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    mel, n_positions = speech(5)
    whole = decode(
        bank.backbone, mel, WORDS, n_positions=n_positions, routing=bank.route(TAGS), options=options
    )
    monkeypatch.setattr("lora_whisper.decoding.search.ENCODED_S", 1.6)
    pieces = decode(
        bank.backbone, mel, WORDS, n_positions=n_positions, routing=bank.route(TAGS), options=options
    )
    assert all(map(same, whole, pieces))


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


@pytest.mark.parametrize("seed", range(1, 5))  # with seed 0 two tokens are equally probable
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
    rule, text = suppression(first, (72,), timestamps=False), set(range(tokenizer.eot)) - {70, 72}
    scores = torch.zeros(2, tokenizer.n_vocab)
    rule(scores, torch.tensor([[NOT_YET], [5]]), torch.tensor([0]))  # the first row has said nothing yet
    allowed = [set(row.isfinite().nonzero().squeeze(1).tolist()) for row in scores]
    assert allowed == [text - {71}, text | {tokenizer.eot}]

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


BEAM, DRAWN = DecodingOptions(beams=4), DecodingOptions(temperature=0.7, draws=3)
TIMED = DecodingOptions(timestamps=True)
KINDS = {
    "beam": BEAM,
    "patient beam": DecodingOptions(beams=3, patience=2.0, length_penalty=0.6),
    "drawn": DRAWN,
    "timed": TIMED,
    "timed beam": DecodingOptions(beams=3, timestamps=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_mixed_batch_is_each_row_alone_in_every_kind_of_search(
    bank: AdapterBank, kind: str, seed: int
) -> None:
    mel, n_positions = speech(seed)
    prompts = [(), (40, 41), (), (50,), (42, 43), ()] if seed else []
    options = KINDS[kind]
    batch = decode(
        bank.backbone,
        mel,
        WORDS,
        n_positions=n_positions,
        routing=bank.route(TAGS),
        options=options,
        prompts=prompts,
    )
    alone = [
        decode(
            bank.backbone,
            mel[[row], :, :frames],
            [WORDS[row]],
            routing=bank.route([TAGS[row]]),
            options=options,
            prompts=[prompts[row]] if prompts else [],
        )[0]
        for row, frames in enumerate(FRAMES)
    ]
    assert all(map(same, batch, alone))


@pytest.mark.parametrize("kind", ["greedy", *KINDS])
@pytest.mark.parametrize("n_rows", [2, 3])
def test_rows_that_enter_a_running_batch_are_as_if_alone(
    bank: AdapterBank, kind: str, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three mixed batches, of which only so many rows are decoded side by side."""
    speeches = [speech(seed) for seed in range(3)]
    mel = torch.cat([mel for mel, _ in speeches])
    n_positions = torch.cat([positions for _, positions in speeches])
    words, tags = WORDS * 3, TAGS * 3
    options = {"greedy": GREEDY, **KINDS}[kind]
    entered: list[bool] = []
    admit = Lanes.admit

    def counted(lanes: Lanes, *coming: Any) -> tuple[Tensor, Tensor]:
        found = admit(lanes, *coming)
        entered.append(lanes.cache.starts is not None)
        return found

    monkeypatch.setattr(Lanes, "admit", counted)
    monkeypatch.setattr("lora_whisper.decoding.search.MAX_ROWS", n_rows)
    monkeypatch.setattr("lora_whisper.decoding.search.COMING_ROWS", 1)
    monkeypatch.setattr("lora_whisper.decoding.running.GAP", 2)
    batch = decode(
        bank.backbone, mel, words, n_positions=n_positions, routing=bank.route(tags), options=options
    )
    assert sum(entered) > 5
    for row, found in enumerate(batch):
        frames = 2 * int(n_positions[row])
        (alone,) = decode(
            bank.backbone,
            mel[[row], :, :frames],
            [words[row]],
            routing=bank.route([tags[row]]),
            options=options,
        )
        assert same(found, alone)


@pytest.mark.parametrize("options", [GREEDY, DecodingOptions(timestamps=True), DecodingOptions(max_tokens=3)])
def test_a_device_that_tells_late_hears_the_same(
    bank: AdapterBank, options: DecodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: rows get a token that does not count, at the end of the decoder's context, too."""
    mel, n_positions = speech(5)
    found = []
    for late in (False, True):
        monkeypatch.setattr("lora_whisper.decoding.search.Greedy", partial(Greedy, late=late))
        monkeypatch.setattr("lora_whisper.decoding.search.MAX_ROWS", 4)
        routing = bank.route(TAGS)
        found.append(
            decode(bank.backbone, mel, WORDS, n_positions=n_positions, routing=routing, options=options)
        )
    assert all(map(same, *found))


def test_each_kind_of_search_is_another(bank: AdapterBank) -> None:
    heard = {}
    for kind, options in {"greedy": GREEDY, **KINDS}.items():
        found = [
            decode(bank.backbone, speech(seed)[0], WORDS, n_positions=speech(seed)[1], options=options)
            for seed in range(4)
        ]
        heard[kind] = tuple(one.tokens for batch in found for one in batch)
    assert len(set(heard.values())) == len(heard)


def test_beams_find_what_greedy_search_misses(bank: AdapterBank) -> None:
    total = [0.0, 0.0]
    for seed in range(6):
        mel, n_positions = speech(seed)
        for place, options in enumerate((GREEDY, BEAM)):
            found = decode(bank.backbone, mel, WORDS, n_positions=n_positions, options=options)
            total[place] += sum(one.avg_logprob for one in found)
    assert total[1] > total[0]


def test_a_prompt_changes_what_is_heard_and_only_there(backbone: Backbone) -> None:
    mel, n_positions = speech()
    plain = decode(backbone, mel, WORDS, n_positions=n_positions)
    prompts = [(40, 41, 42)] + [()] * 5
    prompted = decode(backbone, mel, WORDS, n_positions=n_positions, prompts=prompts)
    assert all(map(same, prompted[1:], plain[1:])) and prompted[0].tokens != plain[0].tokens
    start = torch.tensor([[backbone.tokenizer.sot_prev, 40, 41, 42, backbone.tokenizer.sot]])
    audio = backbone.model.encode(mel[:1], n_positions[:1])
    cache = backbone.model.new_cache(audio, n_positions[:1])
    scores = backbone.model.logits(backbone.model.decode(start, cache))[0, -1]
    expected = float(scores.softmax(0)[backbone.tokenizer.no_speech])
    assert prompted[0].no_speech_probability == pytest.approx(expected, rel=1e-4)


def test_a_long_prompt_keeps_its_end(backbone: Backbone) -> None:
    mel, _ = speech()
    longest = backbone.model.dims.n_text_ctx // 2 - 1
    long, short = ((40, *range(41, 60), *range(41, 60)), (*range(41, 60), *range(41, 60)))
    heard = [decode(backbone, mel[:1], ["pl"], prompts=[prompt[-longest:]]) for prompt in (long, short)]
    assert decode(backbone, mel[:1], ["pl"], prompts=[long]) == heard[0] == heard[1]


def test_drawing_repeats_with_its_seed(backbone: Backbone) -> None:
    mel, n_positions = speech()
    one, again, other = (
        decode(backbone, mel, WORDS, n_positions=n_positions, options=replace(DRAWN, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == again and one != other
    assert all(each.temperature == 0.7 for each in one)


def test_text_that_repeats_itself_is_told_by_its_compression() -> None:
    said, stuck = (Decoded((), text, 0.0, 0.0) for text in ("we went home early", "no no " * 40))
    assert said.compression_ratio < 1.2 < 2.4 < stuck.compression_ratio


@pytest.mark.parametrize(
    "wrong",
    [{"beams": 0}, {"draws": 0}, {"patience": 0}, {"temperature": -1}, {"length_penalty": 2},
     {"latest_first_s": 31}, {"max_tokens": 0}],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DecodingOptions(**wrong)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("gating", ["fixed", "layer", "token"])
def test_everything_decodes_in_bf16(gating: Gating) -> None:
    bank = toy_bank(toy_backbone(), {"pl": 4, "it": 4})
    experts = [Expert(tag, bank[tag].fingerprint, 0.5) for tag in ("pl", "it")]
    bank.add_mixture("cy", experts, LoRAConfig(4), gating=gating)
    exact = scores_of(bank)
    bank.backbone.model.to(torch.bfloat16)
    assert torch.corrcoef(torch.stack([exact.flatten(), scores_of(bank).flatten()]))[0, 1] > 0.97


@torch.inference_mode()
def scores_of(bank: AdapterBank) -> Tensor:
    """The scores of the first token of each row, three languages side by side."""
    mel, n_positions = speech()
    routing = bank.route(["pl", "it", "cy", None, "cy", "pl"])
    start = torch.tensor([bank.backbone.tokenizer.start_sequence("pl")] * len(mel))
    return bank.backbone.model(mel, start, n_positions, routing)[:, -1].float()
