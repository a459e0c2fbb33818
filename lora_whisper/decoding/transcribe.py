"""From audio to transcripts: windows of at most 30 s, of all files and languages, in full batches.

clips → plan (similar lengths together) → load (one group ahead) → windows → language of each clip
      → decode, each row with the adapter of its language → transcripts
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_whisper.audio import HOP_LENGTH, N_SAMPLES, SAMPLE_RATE, AudioContext
from lora_whisper.audio_file import Samples
from lora_whisper.decoding.clip_job import Job, Target
from lora_whisper.decoding.clips import MAX_ROWS, Clip, n_frames, one_ahead, padded_features, plan, windows
from lora_whisper.decoding.running import Windows
from lora_whisper.decoding.search import GREEDY, Decoded, DecodingOptions, decodable_s, decode_each
from lora_whisper.decoding.transcript import Segment, Transcript
from lora_whisper.decoding.word_times import TimedText, word_times
from lora_whisper.errors import AdapterError, BackboneMismatch, LoraWhisperError, UnknownLanguage
from lora_whisper.languages import fallbacks, normalize_tag, whisper_code
from lora_whisper.languages import language as find_language
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.model.language_id import detect_language
from lora_whisper.model.routing import Company

BATCH_S = 240.0
"""Least seconds of audio, padding included, that are in work at once."""

LOADED = 4
"""Batches whose clips are read at once, so that those of the next take the places of those that are done."""

Probabilities = npt.NDArray[np.float64]

_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Outcome:
    """What became of the clip at `index`: a transcript, or the error that stood in its way."""

    index: int
    transcript: Transcript | None
    error: LoraWhisperError | None = None


@dataclass(frozen=True)
class TranscriptionInfo:
    """About the audio as a whole; `duration` is in seconds, as users of faster-whisper expect."""

    language: str
    language_probability: float
    duration: float


class LoraWhisper:
    """A backbone and its adapters: transcribes files in any mixture of languages.

    Attributes:
        backbone: the frozen Whisper.
        bank: its adapters; may be empty.
        batch_s: seconds of audio, padding included, that are decoded at once.
    """

    def __init__(
        self,
        backbone: str | Path | Backbone = "openai/whisper-small",
        adapters: str | Path | AdapterBank | None = None,
        device: str | torch.device = "cpu",
        batch_s: float | None = None,
        proxies: Mapping[str, str] | None = None,
        adapter_memory_bytes: int | None = None,
    ) -> None:
        """Load what is not loaded yet.

        Args:
            backbone: Hub name, folder, "mini", or a loaded one, which stays on its device.
            adapters: folder of adapter folders, each of which is read when it is used; or a bank of this
                backbone; None for the bare backbone.
            device: where to load a backbone to.
            batch_s: seconds of audio, padding included, that are decoded at once; None for what 1 GiB of keys
                and values allows.
            proxies: language tag → Whisper code whose token stands for it where it has no adapter.
            adapter_memory_bytes: what adapters from folders may take up, before those that were not used for
                longest are given up; None for no limit.

        Raises:
            CheckpointError: the backbone cannot be loaded.
            AdapterError: an adapter cannot be opened or belongs to another backbone.
            UnknownLanguage: a proxy is given for what is no language tag.
        """
        self.backbone = backbone if isinstance(backbone, Backbone) else load_backbone(backbone, device)
        self.bank = adapters if isinstance(adapters, AdapterBank) else AdapterBank(self.backbone)
        if isinstance(adapters, str | Path):
            self.bank.open_all(Path(adapters))
        if adapter_memory_bytes is not None:
            self.bank.cache.memory_bytes = adapter_memory_bytes
        if self.bank.backbone.model is not self.backbone.model:
            raise BackboneMismatch(
                f"adapters of {self.bank.backbone.name} beside {self.backbone.name}; give both one Backbone"
            )
        self.batch_s = batch_s or max(BATCH_S, decodable_s(self.backbone))
        self._proxies = {normalize_tag(tag): code for tag, code in (proxies or {}).items()}

    def transcribe(
        self,
        audio: str | Path | Samples,
        language: str | None = None,
        languages: Sequence[str] | None = None,
        options: DecodingOptions = GREEDY,
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """Segments of one file, decoded when the first one is asked for, and what is known before that.

        Args:
            audio: a file, or samples (n_samples,), mono, 16 kHz.
            language: tag; None to recognise it.
            languages: tags among which it is recognised; None for those with an adapter, without adapters
                for all that the backbone knows.
            options: limits of decoding.

        Raises:
            AudioError: the audio cannot be used.
            UnknownLanguage: a language has neither an adapter nor a token.
        """
        job = self._load(0, Clip(audio, language))
        if job.target is None:
            (job,) = self._recognise([job], self.candidates(languages))
        info = TranscriptionInfo(job.known.tag, job.probability, job.duration_s)

        def segments() -> Iterator[Segment]:
            for _, transcript in self._transcripts([job], options):
                yield from transcript.segments

        return segments(), info

    def transcribe_batch(
        self,
        clips: Sequence[Clip],
        languages: Sequence[str] | None = None,
        options: DecodingOptions = GREEDY,
    ) -> Iterator[Outcome]:
        """The outcome of each clip as it is ready, longest clips first; a bad clip does not stop the others.

        Args:
            clips: with or without their language.
            languages: tags among which languages are recognised; as for `transcribe`.
            options: limits of decoding.

        Raises:
            UnknownLanguage: one of `languages` has neither an adapter nor a token.
        """
        candidates = self.candidates(languages) if any(clip.language is None for clip in clips) else {}
        costs_s: dict[int, float] = {}
        for index, clip in enumerate(clips):
            try:
                costs_s[index] = self._cost_s(clip)
            except LoraWhisperError as error:
                yield Outcome(index, None, error)
        indices = list(costs_s)
        planned = plan(list(costs_s.values()), LOADED * self.batch_s, LOADED * MAX_ROWS)
        groups = [[indices[row] for row in rows] for rows in planned]
        for loaded in one_ahead(lambda group: self._load_group(group, clips), groups):
            yield from (one for one in loaded if isinstance(one, Outcome))
            jobs = [one for one in loaded if isinstance(one, Job)]
            unknown = self._recognise([job for job in jobs if job.target is None], candidates)
            jobs = [job for job in jobs if job.target is not None] + unknown
            broken = self.broken_adapters(job.known for job in jobs)
            yield from (Outcome(job.index, None, broken[job.known]) for job in jobs if job.known in broken)
            jobs = [job for job in jobs if job.known not in broken]
            for job, transcript in self._transcripts(jobs, options):
                yield Outcome(job.index, transcript)

    def target(self, tag: str) -> Target:
        """How this language is transcribed: by its adapter, its nearest parent's, or the bare backbone.

        Raises:
            UnknownLanguage: no such tag, or it has neither an adapter nor a token.
        """
        tag = normalize_tag(tag)
        adapter = next((self.bank[parent] for parent in fallbacks(tag) if parent in self.bank), None)
        if adapter is not None:
            context = cast("AudioContext", adapter.info.audio_context)
            return Target(tag, adapter.tag, adapter.info.token_language, context)
        proxies = (self._proxies[parent] for parent in fallbacks(tag) if parent in self._proxies)
        code = next(proxies, whisper_code(tag))
        if code is None or code not in self.backbone.tokenizer.languages:
            raise UnknownLanguage(
                f"{tag}: no adapter for it, and {self.backbone.name} has no token for it; train an adapter"
            )
        return Target(tag, None, code, self.backbone.audio_context)

    def _cost_s(self, clip: Clip) -> float:
        """Seconds that the clip takes up in a batch; also proves that its language can be transcribed."""
        context = self.backbone.audio_context if clip.language is None else self.target(clip.language).context
        length_s = clip.length_s()
        padded_s = n_frames(round(min(length_s * SAMPLE_RATE, N_SAMPLES)), context) * HOP_LENGTH / SAMPLE_RATE
        return max(length_s, padded_s)

    def _load(self, index: int, clip: Clip) -> Job:
        target = None if clip.language is None else self.target(clip.language)
        samples = clip.load()
        return Job(index, clip.name, samples, windows(samples), target)

    def _load_group(self, group: Iterable[int], clips: Sequence[Clip]) -> list[Job | Outcome]:
        loaded: list[Job | Outcome] = []
        for index in group:
            try:
                loaded.append(self._load(index, clips[index]))
            except LoraWhisperError as error:
                loaded.append(Outcome(index, None, error))
        return loaded

    def language_probabilities(self, pieces: Sequence[Clip], codes: Sequence[str]) -> Probabilities:
        """Probability of each Whisper code in each piece, float (n, len(codes)), by the bare backbone.

        Raises:
            AudioError: a piece cannot be read.
        """

        def rows(mel: Tensor, n_positions: Tensor | None, _: Sequence[int]) -> list[list[float]]:
            found = detect_language(self.backbone, mel, n_positions, list(codes))
            return [[row[code] for code in codes] for row in found]

        windows = [(piece, self.backbone.audio_context) for piece in pieces]
        found = self._in_batches(windows, rows, min(self.batch_s, BATCH_S))
        return np.array(found).reshape(len(pieces), len(codes))

    def hear(
        self,
        pieces: Sequence[Clip],
        targets: Sequence[Target],
        options: DecodingOptions = GREEDY,
        prompts: Sequence[Sequence[int]] = (),
    ) -> list[Decoded]:
        """What is heard in each piece, none over 30 s, in mixed batches.

        Args:
            pieces: read when their batch comes.
            targets: how each is transcribed.
            options: of the search.
            prompts: tokens of what was said before each; empty for nothing at all.

        Raises:
            AudioError: a piece cannot be read.
        """
        found = dict(self.hear_each(pieces, targets, options, prompts))
        return [found[number] for number in range(len(pieces))]

    def hear_each(
        self,
        pieces: Sequence[Clip],
        targets: Sequence[Target],
        options: DecodingOptions = GREEDY,
        prompts: Sequence[Sequence[int]] = (),
    ) -> Iterator[tuple[int, Decoded]]:
        """The number of each piece and what is heard in it, as soon as it is known; arguments as for `hear`.

        Raises:
            AudioError: a piece cannot be read.
        """
        parts = [(piece, target.context) for piece, target in zip(pieces, targets, strict=True)]

        company = Company()

        def windows(rows: Sequence[int], starts: Tensor) -> Windows:
            mel, n_positions = self._padded([parts[row] for row in rows])
            routing = self.bank.route([targets[row].adapter for row in rows])
            if routing is not None and mel.device.type != "cpu":  # a GPU would wait for what is made anew
                routing = company.joined_by(routing)
            return Windows(rows, mel, starts, n_positions, routing)

        return decode_each(
            self.backbone,
            [_padded_s(*part) for part in parts],
            [target.token_language for target in targets],
            [target.adapter or "" for target in targets],
            windows,
            options,
            prompts,
            self.batch_s,
        )

    def words(
        self, pieces: Sequence[Clip], targets: Sequence[Target], texts: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[list[TimedText]]]:
        """The words of each piece's segments with their times, in mixed batches.

        Args:
            pieces: what was heard.
            targets: how it was transcribed.
            texts: tokens of the segments that were heard in each, without timestamps; no text empty.

        Raises:
            AudioError: a piece cannot be read.
        """

        def timed(
            mel: Tensor, n_positions: Tensor | None, rows: Sequence[int]
        ) -> list[list[list[TimedText]]]:
            batch = [targets[row] for row in rows]
            return word_times(
                self.backbone,
                mel,
                [target.token_language for target in batch],
                [texts[row] for row in rows],
                n_positions=n_positions,
                routing=self.bank.route([target.adapter for target in batch]),
                spaced=[find_language(target.tag).unit == "word" for target in batch],
            )

        contexts = [target.context for target in targets]
        return self._in_batches(list(zip(pieces, contexts, strict=True)), timed, min(self.batch_s, BATCH_S))

    def broken_adapters(self, targets: Iterable[Target]) -> dict[Target, AdapterError]:
        """Those whose adapter cannot be read, with what is wrong; the others are in memory then."""
        broken: dict[Target, AdapterError] = {}
        for target in dict.fromkeys(targets):
            try:
                self.bank.route([target.adapter])
            except AdapterError as error:
                broken[target] = error
        return broken

    def candidates(self, languages: Sequence[str] | None) -> dict[str, str]:
        """Tag for each Whisper code among which languages are recognised.

        Where a language borrows the token of another one that is also a candidate, the token means its owner.

        Args:
            languages: tags; None for those with an adapter, without adapters for all that the backbone knows.

        Raises:
            UnknownLanguage: one has neither an adapter nor a token.
        """
        tags = (
            languages or self.bank.tags or [normalize_tag(code) for code in self.backbone.tokenizer.languages]
        )
        targets = [self.target(tag) for tag in tags]
        borrowers_last = sorted(targets, key=lambda one: whisper_code(one.tag) != one.token_language)
        return {one.token_language: one.tag for one in reversed(borrowers_last)}

    def _recognise(self, jobs: Sequence[Job], candidates: Mapping[str, str]) -> list[Job]:
        """The jobs with the language that is most probable over all their windows, by the bare backbone."""
        codes = list(candidates)
        pieces = [Clip(window) for job in jobs for window in job.windows]
        rows = iter(self.language_probabilities(pieces, codes))
        known = []
        for job in jobs:
            lengths = [len(window) for window in job.windows]
            mean = np.average([next(rows) for _ in lengths], axis=0, weights=lengths)
            best = int(mean.argmax())
            target = self.target(candidates[codes[best]])
            known.append(replace(job, target=target, probability=float(mean[best])))
        return known

    def _transcripts(self, jobs: Sequence[Job], options: DecodingOptions) -> Iterator[tuple[Job, Transcript]]:
        """The transcript of each job, whose language is known, as it is ready; one segment per window."""
        owners = [job for job in jobs for _ in job.cuts]
        pieces = [Clip(window) for job in jobs for window in job.windows]
        heard: dict[int, dict[int, Decoded]] = {job.index: {} for job in jobs}
        for number, decoded in self.hear_each(pieces, [job.known for job in owners], options):
            job = owners[number]
            heard[job.index][number] = decoded
            if len(heard[job.index]) == len(job.cuts):
                yield job, job.transcript([one for _, one in sorted(heard.pop(job.index).items())])

    def _in_batches(
        self,
        pieces: Sequence[tuple[Clip, AudioContext]],
        function: Callable[[Tensor, Tensor | None, Sequence[int]], list[_Out]],
        batch_s: float,
    ) -> list[_Out]:
        """What `function` makes of each piece, given batches (mel, n_positions, rows), in order."""
        results = dict[int, _Out]()
        for rows in plan([_padded_s(*piece) for piece in pieces], batch_s):
            mel, n_positions = self._padded([pieces[row] for row in rows])
            results.update(zip(rows, function(mel, n_positions, rows), strict=True))
        return [results[row] for row in range(len(pieces))]

    def _padded(self, pieces: Sequence[tuple[Clip, AudioContext]]) -> tuple[Tensor, Tensor | None]:
        """Log-mel frames (B, M, T) of pieces, and the real encoder positions of each, (B,)."""
        model = self.backbone.model
        return padded_features(pieces, model.dims.n_mels, model.device)


def _padded_s(clip: Clip, context: AudioContext) -> float:
    """Seconds that a piece, none over 30 s, takes up in a batch."""
    return n_frames(round(clip.length_s() * SAMPLE_RATE), context) * HOP_LENGTH / SAMPLE_RATE
