"""Whole jobs, from utterances to trained adapters: what the commands, the demo and the studies share."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from lora_whisper.audio import AudioContext
from lora_whisper.data.batching import RowEncoder, RowSource, UtteranceRows, collate, plan_batches
from lora_whisper.data.conditions import OTHER_PEOPLE, ROBUST, Condition
from lora_whisper.data.manifest import Utterance
from lora_whisper.decoding.search import decode
from lora_whisper.errors import LoraWhisperError, TrainingError, UnknownLanguage
from lora_whisper.evaluation.metrics import ErrorCounts, error_counts, units
from lora_whisper.evaluation.normalizers import DEFAULT_NORMALIZER, normalize
from lora_whisper.languages import normalize_tag
from lora_whisper.lora.adapter import Adapter
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.expansion import embedding_similarity, language_similarity
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.routing import Route, Routing
from lora_whisper.training.methods import Track, language_lora
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import TrackState
from lora_whisper.training.trainer import TrainConfig, train

VALIDATION_UTTERANCES = 100
"""Development utterances of a language that are decoded after each epoch."""

Report = Callable[[Utterance, LoraWhisperError], None]


@dataclass(frozen=True)
class Corpus:
    """Utterances to learn from, and others to choose the best epoch by."""

    train: Sequence[Utterance]
    dev: Sequence[Utterance]

    @property
    def languages(self) -> list[str]:
        """Tags of the training utterances, in order of appearance."""
        return list(dict.fromkeys(utterance.language for utterance in self.train))

    def of(self, tag: str) -> "Corpus":
        """The utterances of one language.

        Raises:
            UnknownLanguage: there are none to train on.
        """
        tag = normalize_tag(tag)
        part = Corpus(
            [u for u in self.train if u.language == tag], [u for u in self.dev if u.language == tag]
        )
        if not part.train:
            raise UnknownLanguage(
                f"no training utterances in {tag}; there are some in {', '.join(self.languages)}"
            )
        return part

    def beside(self, others: Sequence[Utterance]) -> "Corpus":
        """The same with others to learn from, too, but for those whose texts only `dev` has."""
        learned = {(one.language, one.text) for one in self.train}
        kept_back = {(one.language, one.text) for one in self.dev} - learned
        return Corpus(
            [*self.train, *(one for one in others if (one.language, one.text) not in kept_back)], self.dev
        )


def hold_out(utterances: Sequence[Utterance], share: float = 0.05) -> Corpus:
    """The utterances split in two: every n-th of each language is for development; the same at each call."""
    every = round(1 / share)
    seen: dict[str, int] = {}
    train_part: list[Utterance] = []
    dev_part: list[Utterance] = []
    for utterance in utterances:
        index = seen[utterance.language] = seen.get(utterance.language, -1) + 1
        (dev_part if index % every == every - 1 else train_part).append(utterance)
    return Corpus(train_part, dev_part)


def train_adapters(
    bank: AdapterBank,
    adapters: Sequence[Adapter],
    corpus: Corpus,
    config: TrainConfig,
    folder: Path,
    *,
    monitor: Monitor | None = None,
    report: Report | None = None,
) -> dict[str, TrackState]:
    """Train these adapters of the bank, each on its own language, together; how each run went, by tag.

    Args:
        bank: holds the adapters; the best epoch's values are in them afterwards.
        adapters: which to train.
        corpus: utterances of their languages.
        config: how to train.
        folder: for checkpoints; an unfinished run there is resumed.
        monitor: hears of steps and epochs.
        report: hears of utterances that cannot be used.

    Raises:
        UnknownLanguage: a language has no training utterances.
        TrainingError: none of a language's utterances can be used.
    """
    dev_rows: dict[str, UtteranceRows] = {}
    tracks = []
    for adapter in adapters:
        part = corpus.of(adapter.tag)
        condition = OTHER_PEOPLE if config.paces else ROBUST if config.perturb else None
        rows = adapter_rows(
            bank, adapter, part.train, report, condition, config.seed, timestamped=config.timestamped
        )
        dev = dev_rows[adapter.tag] = adapter_rows(bank, adapter, part.dev, report)
        tracks.append(language_lora(adapter, rows, dev))

    def validate(track: Track) -> dict[str, float]:
        rates = dev_error_rates(bank.backbone, dev_rows[track.name], track.route, config.batch_s)
        return rates | {"score": rates["cer"]}

    states = train(
        bank.backbone.model, tracks, config, folder / "checkpoints", validate=validate, monitor=monitor
    )
    for adapter, state in zip(adapters, states, strict=True):
        best = min((report.scores for report in state.epochs), key=lambda s: s.get("score", 0.0))
        scores = {f"dev_{name}": value for name, value in best.items() if name != "score"}
        adapter.info = replace(
            adapter.info,
            scores=scores,
            normalizer=DEFAULT_NORMALIZER,
            seed=config.seed,
            backbone_bits=bank.backbone.bits,
            data_fingerprint=data_fingerprint(corpus.of(adapter.tag).train),
        )
    return {state.track.name: state for state in states}


def data_fingerprint(utterances: Sequence[Utterance]) -> str:
    """SHA-256 of what the utterances are and say; not of where they lie, nor of their samples."""
    digest = hashlib.sha256()
    for one in utterances:
        digest.update(f"{one.id}\t{one.language}\t{one.start_s}\t{one.duration_s}\t{one.text}\n".encode())
    return digest.hexdigest()


def adapter_rows(
    bank: AdapterBank,
    adapter: Adapter,
    utterances: Sequence[Utterance],
    report: Report | None = None,
    condition: Condition | None = None,
    seed: int = 0,
    *,
    timestamped: float = 0.0,
) -> UtteranceRows:
    """Rows of utterances as an adapter is trained on them, under these recording conditions if any."""
    encoder = row_encoder(bank.backbone, cast("AudioContext", adapter.info.audio_context))
    token = adapter.info.token_language
    return UtteranceRows(
        utterances,
        encoder,
        token,
        report or _raise,
        condition=condition,
        seed=seed,
        timestamped=timestamped,
    )


def row_encoder(backbone: Backbone, context: AudioContext | None = None) -> RowEncoder:
    """What turns utterances into rows for a backbone, in its own audio context unless another is given."""
    dims = backbone.model.dims
    return RowEncoder(backbone.tokenizer, dims.n_mels, context or backbone.audio_context, dims.n_text_ctx)


def _raise(utterance: Utterance, error: LoraWhisperError) -> None:
    raise TrainingError(f"{utterance.audio}: {error}")


def dev_error_rates(
    backbone: Backbone, rows: UtteranceRows, route: Route, batch_s: float
) -> dict[str, float]:
    """Word and character error rate on the first development rows, by these adapters, or bare without any."""
    shown = rows.utterances[:VALIDATION_UTTERANCES]
    totals = {"wer": ErrorCounts(0, 0, 0, 0), "cer": ErrorCounts(0, 0, 0, 0)}
    for indices in plan_batches(rows.durations_s[: len(shown)], batch_s, seed=0, epoch=0):
        batch = collate([rows.row(i) for i in indices]).to(backbone.model.device)
        decoded = decode(
            backbone,
            batch.mel,
            [rows.token_language] * len(indices),
            n_positions=batch.n_positions,
            routing=Routing.of([route] * len(indices), backbone.model.device),
        )
        for index, one in zip(indices, decoded, strict=True):
            texts = [normalize(text, shown[index].language) for text in (shown[index].text, one.text)]
            totals["wer"] += error_counts(*(units(text, "word") for text in texts))
            totals["cer"] += error_counts(*(units(text, "character") for text in texts))
    return {name: counts.rate for name, counts in totals.items()}


def similarity(
    backbone: Backbone,
    candidates: Mapping[str, str],
    utterances: Sequence[Utterance],
    report: Report | None = None,
) -> dict[str, float]:
    """Similarity of the utterances' language to each candidate (tag → Whisper code), most similar first."""
    return language_similarity(backbone, candidates, _mels(_unlabelled(backbone, utterances, report)))


def sound_similarity(
    backbone: Backbone, utterances: Sequence[Utterance], report: Report | None = None
) -> dict[str, dict[str, float]]:
    """How alike the languages of the utterances sound to the encoder: see `embedding_similarity`."""
    by_language: dict[str, list[Utterance]] = {}
    for one in utterances:
        by_language.setdefault(one.language, []).append(one)
    batches = {tag: _mels(_unlabelled(backbone, ones, report)) for tag, ones in by_language.items()}
    return embedding_similarity(backbone, batches)


def _unlabelled(backbone: Backbone, utterances: Sequence[Utterance], report: Report | None) -> UtteranceRows:
    """Rows of which the audio alone counts."""
    any_token = backbone.tokenizer.languages[0]
    silent = [replace(one, text="") for one in utterances]
    return UtteranceRows(silent, row_encoder(backbone), any_token, report or _raise)


def _mels(rows: RowSource, batch_s: float = 120.0) -> Iterator[tuple[Tensor, Tensor | None]]:
    for indices in plan_batches(rows.durations_s, batch_s, seed=0, epoch=0):
        batch = collate([rows.row(i) for i in indices])
        yield batch.mel, batch.n_positions
