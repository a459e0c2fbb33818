"""Adding a language to those that have an adapter: similarity, start, training, and proof for the others.

    similarity → beginning (scratch, warm start, mixture of experts, or the best of them) → training → checks

Nothing that was there before is touched; that is checked by fingerprints, not believed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lora_whisper.data.manifest import Utterance
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.errors import AdapterError, TooFar, TrainingError
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.jobs import Corpus, Report, similarity, train_adapters
from lora_whisper.lora.adapter import Adapter, Gating
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.expansion import adapter_candidates
from lora_whisper.lora.mixture import chosen_experts
from lora_whisper.model.checkpoint import weights_fingerprint
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import TrackState
from lora_whisper.training.trainer import TrainConfig

Method = Literal["warm-start", "scratch", "moe"]
LARGE_SHARE = 0.25
"""Parameters of an adapter, as a share of the backbone's, from which a warning is given."""

METHODS: tuple[Method, ...] = ("warm-start", "scratch", "moe")


@dataclass(frozen=True)
class Beginning:
    """How the adapter of a new language begins.

    Attributes:
        method: "warm-start": a copy of the most similar adapter; "scratch": a fresh one; "moe": a fresh one
            beside the most similar adapters, which it borrows.
        source: language to start from, or the one expert to borrow; None for the most similar.
        rank: of a fresh adapter, which else has the shape of the most similar one; None for its rank, too.
        experts: how many adapters a mixture borrows at most.
        threshold: least similarity of what is copied or borrowed.
        gating: who weighs the experts.
        own: whether a mixture has a low-rank part of its own.
        token_language: Whisper code of the token for a language that has none; None for that of its source.
    """

    method: Method = "warm-start"
    source: str | None = None
    rank: int | None = None
    experts: int = 2
    threshold: float = 0.0
    gating: Gating = "fixed"
    own: bool = True
    token_language: str | None = None


@dataclass(frozen=True)
class Expansion:
    """How a language was added.

    Attributes:
        adapter: the new one, trained.
        similarity: to the languages that had an adapter before.
        state: how the training went.
        tried: development score of each method that was tried, lower is better.
    """

    adapter: Adapter
    similarity: Mapping[str, float]
    state: TrackState
    tried: Mapping[Method, float] = field(default_factory=dict)


def add_language(
    bank: AdapterBank,
    tag: str,
    corpus: Corpus,
    config: TrainConfig,
    folder: Path,
    *,
    beginning: Beginning | None = None,
    monitor: Monitor | None = None,
    report: Report | None = None,
) -> Expansion:
    """Train an adapter for a new language.

    Args:
        bank: gets the new adapter; the others in it do not change by one bit.
        tag: the new language.
        corpus: its utterances.
        config: how to train.
        folder: for checkpoints.
        beginning: how it starts; by default from the most similar adapter.
        monitor: hears of steps and epochs.
        report: hears of utterances that cannot be used.

    Raises:
        AdapterError: the language has an adapter already, or there is none to start from.
        UnknownLanguage: no utterances, or no such language to start from.
        TrainingError: another adapter or the backbone changed, which is a fault of this program.
    """
    beginning = beginning or Beginning()
    part = corpus.of(tag)
    found = similarity(bank.backbone, adapter_candidates(bank), part.train, report)
    before = fingerprints(bank)
    adapter = begin(bank, tag, found, beginning, config.seed)
    states = train_adapters(bank, [adapter], part, config, folder, monitor=monitor, report=report)
    check_unchanged(before, bank)
    state = states[adapter.tag]
    return Expansion(adapter, found, state, {beginning.method: state.best_score})


def add_language_the_best_way(
    bank: AdapterBank,
    tag: str,
    corpus: Corpus,
    config: TrainConfig,
    folder: Path,
    *,
    beginning: Beginning | None = None,
    monitor: Monitor | None = None,
    report: Report | None = None,
) -> Expansion:
    """As `add_language`, by each method in turn; the one with the best development score stays in the bank.

    Raises:
        AdapterError: there is no development data to choose by, or as for `add_language`.
    """
    if not corpus.of(tag).dev:
        raise AdapterError(
            f"{tag}: choosing a method needs development utterances; give --dev, or a --method"
        )
    beginning = beginning or Beginning()
    tried: dict[Method, float] = {}
    best: tuple[Expansion, Adapter] | None = None
    for method in METHODS:
        try:
            expansion = add_language(
                bank,
                tag,
                corpus,
                config,
                folder / method,
                beginning=replace(beginning, method=method),
                monitor=monitor,
                report=report,
            )
        except TooFar:  # nothing to copy or borrow: then the others compete without it
            continue
        tried[method] = expansion.state.best_score
        bank.remove(tag)
        if best is None or tried[method] < best[0].state.best_score:
            best = expansion, expansion.adapter
    if best is None:
        raise AdapterError("there is no method to choose from")
    return replace(best[0], adapter=bank.put_back(best[1]), tried=tried)


def begin(
    bank: AdapterBank, tag: str, found: Mapping[str, float], beginning: Beginning, seed: int
) -> Adapter:
    """The untrained adapter of a new language, in the bank.

    Args:
        bank: holds the adapters to copy or borrow.
        tag: the new language.
        found: its similarity to them.
        beginning: how it starts.
        seed: of a fresh part.

    Raises:
        TooFar: no adapter is similar enough.
        UnknownLanguage: no such language to start from.
    """
    nearest = next(iter(found))
    source = bank[beginning.source or nearest]
    rank = beginning.rank or source.config.rank
    shape = replace(source.config, rank=rank, alpha=source.config.scale * rank)
    token = beginning.token_language or (None if bank.has_token(tag) else source.info.token_language)
    if beginning.method == "scratch":
        return bank.add(tag, shape, seed=seed, token_language=token)
    if beginning.method == "warm-start":
        if beginning.source is None and found[nearest] < beginning.threshold:
            raise TooFar(
                f"{tag}: the most similar adapter, {nearest}, has {found[nearest]:.3f} of the probability, "
                f"less than the threshold {beginning.threshold}; lower it or name a --start"
            )
        return bank.add(tag, start=source.tag, seed=seed, token_language=token)
    weights = {source.tag: 1.0} if beginning.source else found
    adapters = {adapter.tag: adapter for adapter in bank}
    experts = chosen_experts(weights, adapters, beginning.experts, beginning.threshold)
    own = shape if beginning.own else None
    return bank.add_mixture(tag, experts, own, gating=beginning.gating, seed=seed, token_language=token)


def fingerprints(bank: AdapterBank) -> dict[str, str]:
    """Fingerprint of each adapter by its tag, and of the backbone's weights under ""."""
    return {"": weights_fingerprint(bank.backbone.model), **{one.tag: one.fingerprint for one in bank}}


def check_unchanged(before: Mapping[str, str], bank: AdapterBank) -> None:
    """Prove promise 5.

    Raises:
        TrainingError: an adapter that was there before, or the backbone, is another now.
    """
    after = fingerprints(bank)
    changed = [
        tag or "the backbone" for tag, print_before in before.items() if after.get(tag) != print_before
    ]
    if changed:
        raise TrainingError(f"adding a language changed {', '.join(changed)}; nothing was saved: report this")


def scores(
    bank: AdapterBank, utterances: Sequence[Utterance], token_language: str | None
) -> EvaluationResult | None:
    """What the bank hears in test utterances, each by the adapter of its language, or bare; None without any.

    Args:
        bank: the adapters.
        utterances: of old and new languages.
        token_language: proxy token for a language that has neither a token nor an adapter.
    """
    if not utterances:
        return None
    strangers = {
        one.language for one in utterances if one.language not in bank and not bank.has_token(one.language)
    }
    proxies = dict.fromkeys(strangers, token_language) if token_language else {}
    return evaluate(LoraWhisper(bank.backbone, bank, proxies=proxies), utterances)


@dataclass(frozen=True)
class Change:
    """What became of a language when another one was added.

    Attributes:
        language: its tag.
        unit: what its errors are counted in.
        before: error rate, None if it could not be decoded before.
        after: error rate.
        same_text: whether every transcript is the same, letter for letter.
    """

    language: str
    unit: str
    before: float | None
    after: float
    same_text: bool


def changes(before: EvaluationResult | None, after: EvaluationResult | None) -> list[Change]:
    """The forgetting table: every language of the test, before and after."""
    if before is None or after is None:
        return []
    old = before.scores()
    texts = {one.id: one.hypothesis for one in before.utterances}
    found = []
    for tag, score in after.scores().items():
        kind = "wer" if score.unit == "word" else "cer"
        same = all(texts.get(one.id) == one.hypothesis for one in after.utterances if one.language == tag)
        rate_before = getattr(old[tag], kind).rate if tag in old else None
        found.append(Change(tag, score.unit, rate_before, getattr(score, kind).rate, same))
    return found


def warnings(bank: AdapterBank, expansion: Expansion, changed: Sequence[Change]) -> list[str]:
    """The paper's signs of failure, where they show: forgetting, a poor new language, too many parameters."""
    tag = expansion.adapter.tag
    found = [
        f"{one.language} reads differently than before: forgetting, which must not happen; report this"
        for one in changed
        if one.language != tag and not one.same_text
    ]
    new = next((one for one in changed if one.language == tag), None)
    if new is not None and new.before is not None and new.after >= new.before:
        found.append(
            f"{tag} is no better than the bare backbone: check its data with lora-whisper doctor, or try "
            "another --method or --start, a higher --learning-rate, more --epochs"
        )
    share = expansion.adapter.n_parameters / sum(p.numel() for p in bank.backbone.model.parameters())
    if share > LARGE_SHARE:
        found.append(
            f"the adapter has {100 * share:.0f} % of the backbone's parameters; a smaller --rank may do"
        )
    return found
