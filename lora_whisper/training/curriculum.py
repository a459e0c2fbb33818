"""What a backbone hears in a stage of its pre-training: rows of synthetic speech, by a recipe of shares."""

import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lora_whisper.audio import N_SAMPLES, SAMPLE_RATE
from lora_whisper.data import espeak, kokoro, recorded
from lora_whisper.data.batching import Row, RowEncoder, Segment
from lora_whisper.data.conditions import ROBUST, Condition, Effects, coloured_noise
from lora_whisper.data.domains import find_domain
from lora_whisper.data.kokoro import Kokoro
from lora_whisper.data.texts import TextSource, stable_hash
from lora_whisper.data.voices import draw_timbre, draw_voice
from lora_whisper.data.words import listing, mingled, naming, roll, sentence
from lora_whisper.errors import UsageError
from lora_whisper.languages import language

CHUNK = 250
"""Rows that a worker makes at a time."""

Samples = NDArray[np.float32]

_MOST_JOINED = 6
_MOST_BEFORE = 16  # texts before a window
_WINDOW_TOKENS = 400  # of a window that is spoken fast; the rest is its prompt's
_CONTINUED = 0.7  # of the windows, those that follow another
_LAST = 0.5  # of the windows, those with which the recording ends
_PAUSE_S = (0.1, 1.2)
_LEAD_S = 1.5
_LEAST_CUT_S = 0.2  # less of an utterance at the end of a window is not noticed
_AUDIBLE = 0.02  # of the peak


@dataclass(frozen=True)
class Curriculum:
    """How many rows a stage has, and which share of them has which property.

    Attributes:
        utterances: training rows of each language.
        joined: several utterances in a row, with pauses between.
        windows: the next 30 s of a recording, or what is left of it; most of them after the text before.
        words: random words instead of CLDR's entries, in the languages of `word_languages`.
        listed: of these, those written as lists of names instead of sentences.
        n_words: of how many most frequent words of a language they are.
        proper: of the lists, those of proper names of spelling dictionaries.
        mingled: of the sentences, those with such names between frequent words.
        named: names of ISO standards instead of CLDR's entries, in the same languages, where not `words`.
        timbres: spoken by a random timbre instead of a voice variant of the training split.
        recorded: spoken by a voice made from recordings instead, in the languages that have one.
        neural: spoken by mixtures of Kokoro's voices instead, in the languages that it learned.
        perturbed: in the conditions `ROBUST`.
        timestamped: with the times of their utterances.
        prompted: with another text as what was said before.
        extended: with silence before or behind, so that short speech stands in long contexts too.
        silent: noise or nothing; beside the rows of speech.
        speeds_wpm: slowest and fastest speech, drawn evenly; None for those of `draw_voice`.
        word_languages: which languages have texts of random words and of names.
        written: of some languages, how many rows are learned with their text; beyond them it is the language
            alone, so that it is told apart although it stays thinly covered.
    """

    utterances: Mapping[str, int]
    joined: float = 0.1
    windows: float = 0.0
    words: float = 0.0
    listed: float = 0.0
    n_words: int = 20_000
    proper: float = 0.0
    mingled: float = 0.0
    named: float = 0.0
    timbres: float = 0.0
    recorded: float = 0.0
    neural: float = 0.0
    perturbed: float = 0.0
    timestamped: float = 0.0
    prompted: float = 0.0
    extended: float = 0.0
    silent: float = 0.0
    speeds_wpm: tuple[int, int] | None = None
    word_languages: tuple[str, ...] = field(default=())
    written: Mapping[str, int] = field(default_factory=dict)


def row_makers(n: int | None = None) -> Executor:
    """So many processes that make rows, one for each core by default: they remember the words they know."""
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


@dataclass(frozen=True)
class RowFactory:
    """Makes the rows of a curriculum: row number i of a language is a pure function of the arguments.

    But for the breath in neural voices, which differs from call to call.

    Attributes:
        curriculum: what they are like.
        split: "train" or "dev"; the texts and voices of "test" are not used for training.
        seed: another seed, other rows.
        encoder: of the backbone.
        kokoro: folder of the neural voices, if there are rows by them.
    """

    curriculum: Curriculum
    split: str
    seed: int
    encoder: RowEncoder
    kokoro: Path | None = None

    def rows(self, counts: Mapping[str, int], makers: Executor) -> list[Row]:
        """So many rows of each language and the silent ones beside them, made by `row_makers`."""
        n_silent = int(self.curriculum.silent * sum(counts.values()))
        jobs = [
            (self, tag, range(start, min(start + CHUNK, count)))
            for tag, count in {**counts, "": n_silent}.items()
            for start in range(0, count, CHUNK)
        ]
        return [
            Row(torch.from_numpy(mel), tokens, n_prompt)
            for chunk in makers.map(_make, jobs)
            for mel, tokens, n_prompt in chunk
        ]

    def rehearse(self) -> None:
        """Let all natural voices speak: raises what is missing before hours are spent.

        Raises:
            UsageError: no folder of Kokoro, or flite is not installed.
            CheckpointError: the folder is none of Kokoro's.
            MissingExtra: the `voices` extra is not installed.
        """
        recipe = self.curriculum
        for tag in recipe.utterances:
            if recipe.recorded and recorded.speaks(tag):
                recorded.rehearse(tag)
            if recipe.neural and kokoro.speaks(tag):
                self._neural_voices()

    def row(self, tag: str, index: int) -> Row:
        """Row `index` of a language, or of silence if the tag is empty.

        It is made by one thread: how matrix products are rounded depends on their number on some processors.
        """
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._row(tag, index)
        finally:
            torch.set_num_threads(n_threads)

    def first_text(self, tag: str, index: int) -> str:
        """What row `index` of a language says first: all of it, unless it has several utterances."""
        rng = self._generator(tag, index)
        _ = self._place(rng) if self._is_window(rng) else self._count(rng)
        return self._text(tag, rng)

    def _generator(self, tag: str, index: int) -> np.random.Generator:
        return np.random.default_rng(stable_hash(f"{tag}|{self.split}|{self.seed}|{index}"))

    def _count(self, rng: np.random.Generator) -> int:
        """How many utterances a row has."""
        return int(rng.integers(2, _MOST_JOINED + 1)) if rng.random() < self.curriculum.joined else 1

    def _is_window(self, rng: np.random.Generator) -> bool:
        return self.curriculum.windows > 0 and rng.random() < self.curriculum.windows

    def _place(self, rng: np.random.Generator) -> tuple[Effects, float, Samples]:
        """Of a window: its conditions, least number of samples before them, and the silence at its start."""
        effects = self._effects(rng)
        share = 0.9 * rng.random() if rng.random() < _LAST else effects.speed
        return effects, share * N_SAMPLES, _silence(rng.uniform(0, _LEAD_S) * rng.integers(2))

    def _row(self, tag: str, index: int) -> Row:
        rng = self._generator(tag, index)
        if not tag:
            return self._silent(rng)
        row = self._window(tag, rng) if self._is_window(rng) else self._clip(tag, rng)
        if index >= self.curriculum.written.get(tag, sys.maxsize):
            return replace(row, tokens=row.tokens[: row.n_prompt + 1])
        return row

    def _clip(self, tag: str, rng: np.random.Generator) -> Row:
        """A row that holds all that is said in a file."""
        recipe = self.curriculum
        utterances = [self._utterance(tag, rng) for _ in range(self._count(rng))]
        audio, segments = joined(utterances, rng, extend=rng.random() < recipe.extended)
        effects = self._effects(rng)
        audio, segments = effects.apply(audio)[:N_SAMPLES], faster(segments, effects.speed)
        return self.encoder.row(
            audio,
            language(tag).space.join(text for _, _, text in segments),
            tag,
            segments if rng.random() < recipe.timestamped else (),
            self._text(tag, rng) if rng.random() < recipe.prompted else "",
        )

    def _window(self, tag: str, rng: np.random.Generator) -> Row:
        """A row of at most 30 s that may end within an utterance.

        With times, of that only its start is said; without, the audio ends before it. So the real Whisper
        learned it (Radford et al. 2022, section 3.1).
        """
        (effects, n_samples, lead), space = self._place(rng), language(tag).space
        audio, segments = self._recording(tag, rng, n_samples, lead)
        audio, segments = effects.apply(audio)[:N_SAMPLES], faster(segments, effects.speed)
        length_s = len(audio) / SAMPLE_RATE
        whole = [one for one in segments if one[1] <= length_s]
        begun = [start_s for start_s, _, _ in segments[len(whole) :] if start_s < length_s - _LEAST_CUT_S]
        timestamped = rng.random() < self.curriculum.timestamped
        if begun and not timestamped:
            audio = audio[: int(begun[0] * SAMPLE_RATE)]
        n_before = int(rng.integers(1, _MOST_BEFORE + 1)) if rng.random() < _CONTINUED else 0
        return self.encoder.row(
            audio,
            space.join(text for _, _, text in whole),
            tag,
            whole if timestamped else (),
            space.join(self._text(tag, rng) for _ in range(n_before)),
            begun[0] if begun and timestamped else None,
        )

    def _recording(
        self, tag: str, rng: np.random.Generator, n_samples: float, lead: Samples
    ) -> tuple[Samples, list[Segment]]:
        """So many samples or more of utterances with pauses between, but no more than can be written."""
        parts = [lead]
        segments: list[Segment] = []
        position, n_tokens = len(lead), 0
        while position < n_samples:
            audio, text = self._utterance(tag, rng)
            n_tokens += len(self.encoder.tokenizer.encode(language(tag).space + text)) + 2
            if n_tokens > _WINDOW_TOKENS:
                break
            segments.append(_placed(audio, text, position))
            parts += [audio, _silence(rng.uniform(*_PAUSE_S))]
            position += len(audio) + len(parts[-1])
        return np.concatenate(parts), segments

    def _effects(self, rng: np.random.Generator) -> Effects:
        return (ROBUST if rng.random() < self.curriculum.perturbed else Condition()).draw(rng)

    def _text(self, tag: str, rng: np.random.Generator) -> str:
        recipe = self.curriculum
        if tag in recipe.word_languages and rng.random() < recipe.words:
            return self._words(tag, rng)
        if recipe.named and tag in recipe.word_languages and rng.random() < recipe.named:
            return naming(tag, rng)
        return TextSource(tag, self.split, find_domain("general").kinds).text(rng).written

    def _words(self, tag: str, rng: np.random.Generator) -> str:
        recipe = self.curriculum
        if not recipe.listed or rng.random() >= recipe.listed:
            if recipe.mingled and rng.random() < recipe.mingled:
                return mingled(tag, rng, recipe.n_words)
            return sentence(tag, rng, recipe.n_words)
        if recipe.proper and rng.random() < recipe.proper:
            return roll(tag, rng)
        return listing(tag, rng, recipe.n_words)

    def _utterance(self, tag: str, rng: np.random.Generator) -> tuple[Samples, str]:
        text = self._text(tag, rng)
        if speak := self._natural_speaker(tag, rng):
            return speak(text, tag, rng), text
        voice, _ = draw_voice(find_domain("general").variants_of(self.split), rng)
        if rng.random() < self.curriculum.timbres:
            voice = replace(voice, variant="", timbre=draw_timbre(rng))
        if self.curriculum.speeds_wpm:
            voice = replace(voice, speed_wpm=int(rng.integers(*self.curriculum.speeds_wpm, endpoint=True)))
        return espeak.synthesise(text, tag, voice), text

    def _natural_speaker(self, tag: str, rng: np.random.Generator) -> recorded.Speaker | None:
        """Who speaks the next utterance, unless it is espeak-ng."""
        recipe = self.curriculum
        if recipe.recorded and recorded.speaks(tag) and rng.random() < recipe.recorded:
            return recorded.speak
        if recipe.neural and kokoro.speaks(tag) and rng.random() < recipe.neural:
            return partial(recorded.as_somebody_else, self._neural_voices().speak)
        return None

    def _neural_voices(self) -> Kokoro:
        if not self.kokoro:
            raise UsageError("rows in neural voices, and no folder of Kokoro to speak them")
        return _load_kokoro(self.kokoro)

    def _silent(self, rng: np.random.Generator) -> Row:
        """Noise of any colour and loudness or digital silence, 0.5 to 20 s."""
        n_samples = int(SAMPLE_RATE * 0.5 * 40 ** rng.random())
        noise = coloured_noise(n_samples, rng.uniform(0, 2.5), rng) * 10 ** rng.uniform(-4, -0.8)
        audio = (
            noise.clip(-1, 1).astype(np.float32) if rng.random() < 0.8 else np.zeros(n_samples, np.float32)
        )
        tags = list(self.curriculum.utterances)
        return self.encoder.silent_row(
            audio, tags[int(rng.integers(len(tags)))] if rng.random() < 0.5 else ""
        )


def joined(
    utterances: list[tuple[Samples, str]], rng: np.random.Generator, extend: bool = False
) -> tuple[Samples, list[Segment]]:
    """The utterances in a row with pauses between, as many as fit into 27 s, and when each is audible.

    Args:
        utterances: samples and texts.
        rng: of the pauses.
        extend: with silence before and behind.
    """
    parts = [_silence(rng.uniform(0, _LEAD_S))] if extend else []
    segments: list[Segment] = []
    position = sum(map(len, parts))
    for audio, text in utterances:
        pause = _silence(rng.uniform(*_PAUSE_S) if segments else 0)
        if segments and position + len(pause) + len(audio) > 0.9 * N_SAMPLES:
            break
        position += len(pause)
        segments.append(_placed(audio, text, position))
        position += len(audio)
        parts += [pause, audio]
    if extend:
        parts.append(_silence(rng.uniform(0, 0.9 * N_SAMPLES - position) / SAMPLE_RATE * rng.random() ** 3))
    return np.concatenate(parts)[: int(0.9 * N_SAMPLES)], segments


def faster(segments: Sequence[Segment], speed: float) -> list[Segment]:
    """When each is audible if all is spoken so much faster."""
    return [(start_s / speed, end_s / speed, text) for start_s, end_s, text in segments]


def _placed(audio: Samples, text: str, position: int) -> Segment:
    """When the speech in audio that begins at this sample is audible."""
    first, last = audible(audio)
    return (position + first) / SAMPLE_RATE, (position + last) / SAMPLE_RATE, text


def audible(audio: Samples) -> tuple[int, int]:
    """Where the speech in the audio (n_samples,) begins and ends."""
    loud = np.flatnonzero(np.abs(audio) > _AUDIBLE * np.abs(audio).max(initial=0.0))
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(audio))


def _silence(duration_s: float) -> Samples:
    return np.zeros(max(int(duration_s * SAMPLE_RATE), 0), np.float32)


@cache
def _load_kokoro(folder: Path) -> Kokoro:
    return Kokoro(folder, n_threads=1)  # other processes make rows beside


def _make(job: tuple[RowFactory, str, range]) -> list[tuple[NDArray[np.float16], tuple[int, ...], int]]:
    """Rows of one job, as arrays: they travel between processes without shared memory."""
    factory, tag, indices = job
    rows = (factory.row(tag, index) for index in indices)
    return [(row.mel.numpy(), row.tokens, row.n_prompt) for row in rows]
