"""What an arm trains: backbones, their adapters, and which parameters learn which languages."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_whisper.data.batching import JoinedRows, UtteranceRows
from lora_whisper.data.manifest import Utterance
from lora_whisper.errors import LoraWhisperError, TrainingError
from lora_whisper.jobs import adapter_rows, dev_error_rates, row_encoder, similarity
from lora_whisper.languages import whisper_code
from lora_whisper.lora.adapter import Adapter
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.expansion import adapter_candidates
from lora_whisper.lora.parts import LINEAR, MODULES, LoRAConfig
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.new_language import Beginning, begin
from lora_whisper.studies.arms import Arm
from lora_whisper.studies.bench import Bench, Speech
from lora_whisper.studies.clusters import clusters
from lora_whisper.training.methods import Learned, Track, full

LISTENED = 100
"""Utterances of a language by which its similarity to others is judged."""


@dataclass(frozen=True, eq=False)
class Learner:
    """A set of parameters and the languages that it learns.

    Attributes:
        track: for the trainer.
        dev: development rows of each language.
    """

    track: Track
    dev: Mapping[str, UtteranceRows]


@dataclass(frozen=True, eq=False)
class Model:
    """One backbone with what is trained in it.

    Attributes:
        bank: its adapters.
        learners: what is trained; empty if nothing is.
        serves: languages that it is scored on.
        tokens: language → Whisper code of its token.
        likeness: similarity of each new language to the base languages.
        beginnings: new language → the adapters that its own began from or borrows, with their weights.
    """

    bank: AdapterBank
    learners: Sequence[Learner]
    serves: tuple[str, ...]
    tokens: Mapping[str, str]
    likeness: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    beginnings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def validate(self, track: Track) -> dict[str, float]:
        """Error rates of a track on development speech: means over its languages; the CER selects."""
        learner = next(one for one in self.learners if one.track is track)
        rates = [
            dev_error_rates(self.bank.backbone, rows, track.route, batch_s=240.0)
            for rows in learner.dev.values()
        ]
        means = {name: sum(one[name] for one in rates) / len(rates) for name in ("wer", "cer")}
        return means | {"score": means["cer"]}


def models(arm: Arm, bench: Bench, speech: Speech, runs: Path, seed: int) -> Iterator[Model]:
    """The models of an arm, untrained, one after the other.

    Args:
        arm: what to train.
        bench: the sizes.
        speech: what to learn.
        runs: folder of the finished runs of this seed's other arms, by arm name.
        seed: of fresh adapters and of random choices.
    """
    tags = tuple(bench.base if arm.learns == "base" else bench.new)
    if arm.changes_backbone and arm.sharing == "each":
        for tag in tags:
            yield _of_weights(arm, bench, speech, runs, (tag,))
    elif arm.changes_backbone:
        yield _of_weights(arm, bench, speech, runs, tags)
    elif arm.trained == "nothing":
        bank = AdapterBank(load_backbone(bench.backbone))
        yield Model(bank, (), bench.languages if arm.learns == "new" else tags, tokens(bank.backbone, speech))
    elif arm.learns == "base" or arm.sharing == "all":
        yield _of_shared_adapters(arm, bench, speech, runs, seed)
    else:
        yield _of_new_adapters(arm, bench, speech, runs, seed)


def tokens(backbone: Backbone, speech: Speech) -> dict[str, str]:
    """Whisper code of the token of each language: its own, or that of what its speech is taken for."""
    known = backbone.tokenizer.languages
    found = {}
    for tag in speech.bench.languages:
        code = whisper_code(tag)
        if code is None or code not in known:
            heard = speech.corpus.of(tag).train[:LISTENED]
            code = next(iter(similarity(backbone, {one: one for one in known}, heard)))
        found[tag] = code
    return found


def _of_weights(arm: Arm, bench: Bench, speech: Speech, runs: Path, tags: tuple[str, ...]) -> Model:
    """A backbone of which all weights are trained, or those of the layers that LoRA adapts."""
    folder = runs / arm.after / "backbone"
    loaded = load_backbone(folder if arm.after else bench.backbone)
    backbone = replace(loaded, name=loaded.name if arm.after else bench.backbone)
    codes = tokens(backbone, speech)
    encoder = row_encoder(backbone)

    def rows(utterances: Sequence[Utterance], tag: str) -> UtteranceRows:
        return UtteranceRows(utterances, encoder, codes[tag], _refuse)

    heard = [rows(speech.corpus.of(tag).train, tag) for tag in tags]
    if arm.rehearsal:
        for tag in bench.base:
            part = speech.corpus.of(tag).train
            heard.append(rows(part[: max(1, round(arm.rehearsal * len(part)))], tag))
    dev = {tag: rows(speech.corpus.of(tag).dev, tag) for tag in tags}
    learned: Learned = "layers" if arm.trained == "layers" else "all"
    track = full(backbone.model, JoinedRows(heard), JoinedRows(list(dev.values())), learned=learned)
    serves = bench.languages if arm.learns == "new" and arm.sharing == "all" else tags
    return Model(AdapterBank(backbone), [Learner(track, dev)], serves, codes)


def _of_shared_adapters(arm: Arm, bench: Bench, speech: Speech, runs: Path, seed: int) -> Model:
    """Adapters of the base languages, one for each group of them; or the shared one, which goes on."""
    bank = AdapterBank(load_backbone(bench.backbone))
    codes = tokens(bank.backbone, speech)
    tags = tuple(bench.base if arm.learns == "base" else bench.new)
    if arm.after:
        first, *rest = bench.languages
        bank.load(runs / arm.after / "adapters" / first)
        for tag in rest:
            bank.add_shared(tag, first)
        learner = _learner(bank, tags, speech, "shared")
        return Model(bank, [learner], bench.languages, codes)
    rank = int(bench.rank * (arm.rank or len(tags)))
    shape = LoRAConfig(rank, float(rank), MODULES if arm.convolutions else LINEAR)
    learners = []
    for group in _groups(arm, bank, speech, tags):
        bank.add(group[0], shape, seed=seed, token_language=codes[group[0]])
        for tag in group[1:]:
            bank.add_shared(tag, group[0])
        learners.append(_learner(bank, group, speech, "+".join(group)))
    return Model(bank, learners, tags, codes)


def _groups(arm: Arm, bank: AdapterBank, speech: Speech, tags: tuple[str, ...]) -> list[tuple[str, ...]]:
    if arm.clusters:
        heard = {tag: speech.corpus.of(tag).train[:LISTENED] for tag in tags}
        return clusters(bank.backbone, heard, arm.clusters)
    return [tags] if arm.sharing == "all" else [(tag,) for tag in tags]


def _of_new_adapters(arm: Arm, bench: Bench, speech: Speech, runs: Path, seed: int) -> Model:
    """An adapter for each new language, beside those of the base languages."""
    bank = AdapterBank(load_backbone(bench.backbone))
    bank.load_all(runs / arm.after / "adapters")
    codes, candidates = tokens(bank.backbone, speech), adapter_candidates(bank)
    likeness, learners, beginnings = {}, [], {}
    for tag in bench.new:
        found = similarity(bank.backbone, candidates, speech.corpus.of(tag).train[:LISTENED])
        beginning = Beginning(
            arm.method,
            _source(arm, tag, list(found), seed),
            int(bench.rank * arm.rank),
            experts=arm.experts,
            gating=arm.gating,
            own=arm.own,
            token_language=codes[tag],
        )
        adapter = begin(bank, tag, found, beginning, seed)
        likeness[tag], beginnings[tag] = found, _beginning(adapter)
        learners.append(_learner(bank, (tag,), speech, tag))
    return Model(bank, learners, bench.languages, codes, likeness, beginnings)


def _source(arm: Arm, tag: str, ranked: Sequence[str], seed: int) -> str | None:
    """Language to start from, of those ranked by similarity; None leaves the choice to `begin`."""
    if arm.method != "warm-start":
        return None
    if arm.source == "random":
        return random.Random(f"{seed} {tag}").choice(list(ranked[1:-1]) or list(ranked))
    return {"closest": ranked[0], "farthest": ranked[-1]}.get(arm.source, arm.source)


def _beginning(adapter: Adapter) -> dict[str, float]:
    if adapter.info.start:
        return {adapter.info.start.language: 1.0}
    return {expert.language: expert.weight for expert in adapter.info.experts}


def _learner(bank: AdapterBank, tags: Sequence[str], speech: Speech, name: str) -> Learner:
    """What trains the adapter that these languages share."""
    parts = [speech.corpus.of(tag) for tag in tags]
    train = [adapter_rows(bank, bank[tag], part.train) for tag, part in zip(tags, parts, strict=True)]
    dev = {tag: adapter_rows(bank, bank[tag], part.dev) for tag, part in zip(tags, parts, strict=True)}
    shared = bank[tags[0]]
    rows = JoinedRows(train), JoinedRows(list(dev.values()))
    return Learner(Track(name, shared.named_parameters(), *rows, shared.route), dev)


def _refuse(utterance: Utterance, error: LoraWhisperError) -> None:
    raise TrainingError(f"{utterance.audio}: {error}")
