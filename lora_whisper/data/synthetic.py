"""Synthetic speech without end: utterance number i is a pure function of language, split, seed and domain.

    entries (CLDR) → text → espeak-ng voice → condition → samples

Splits share neither entries nor voices, and the "field" domain shares neither with the "general" one.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data import espeak
from lora_whisper.data.conditions import ROBUST
from lora_whisper.data.domains import find_domain
from lora_whisper.data.manifest import Utterance, write_manifest
from lora_whisper.data.texts import TextSource, check_split, stable_hash
from lora_whisper.data.voices import draw_voice
from lora_whisper.errors import OutputError, UnknownLanguage, UsageError
from lora_whisper.files import prepare_folder
from lora_whisper.languages import normalize_tag

# Languages whose texts and readings were looked through, all with numbers, dates and measures. About fifty
# more can be asked for, with names only or with a reading of doubtful quality.
LANGUAGES = tuple(
    str.split(
        "pl pt it zh da el cy ja en de es fr nl sv nb fi hu ro cs sk sl tr az ru uk be id vi ko ca eo is"
    )
)


WORDS = ("new", "known")
"""Kinds of words that the texts of a split may be made of."""


class SyntheticSpeech:
    """All the speech of some languages in one split: ask for any utterance by its number.

    Args:
        languages: language tags.
        split: "train", "dev" or "test"; they share neither text nor voice.
        seed: another seed, other utterances.
        domain: "general" or "field".
        perturbed: in the random conditions `ROBUST` instead of those of the domain.
        words: "new" for names, numbers and dates that no other split has; "known" for those of the training
            split in new combinations, two at least, so that the texts are new and their words are not.

    Raises:
        UsageError: no languages, no such split, domain or kind of words.
        UnknownLanguage: some languages are not spoken here; all of them are named.
        MissingExtra: the `demo` extra is not installed.
    """

    def __init__(
        self,
        languages: Sequence[str],
        split: str,
        seed: int,
        domain: str = "general",
        perturbed: bool = False,
        words: str = "new",
    ):
        if words not in WORDS:
            raise UsageError(f"no {words!r} words; choose one of {', '.join(WORDS)}")
        self.words = words
        self.split, self.seed, self.domain = check_split(split), seed, domain
        self._domain = find_domain(domain)
        self._condition = ROBUST if perturbed else self._domain.condition
        self._variants = self._domain.variants_of(split)
        said = split if words == "new" else "train"
        self._sources = _text_sources(languages, said, self._domain.kinds)
        self.languages = tuple(self._sources)

    def utterance(self, language: str, index: int) -> tuple[npt.NDArray[np.float32], str, str]:
        """Utterance `index` (0, 1, 2, …) of a language: samples (n_samples,) at 16 kHz, text, speaker.

        Raises:
            UsageError: the language is not among those asked for.
        """
        if language not in self._sources:
            raise UsageError(f"{language!r} is not one of {', '.join(self.languages)}; name it at the start")
        place = f"{self.domain}|{language}|{self.split}|{self.seed}|{index}"
        rng = np.random.default_rng(stable_hash(place if self.words == "new" else f"{place}|{self.words}"))
        text = self._text(language, rng)
        voice, name = draw_voice(self._variants, rng)
        audio = espeak.synthesise(text, language, voice)
        return self._condition.apply(audio, rng), text, f"{language}-{name}"

    def _text(self, language: str, rng: np.random.Generator) -> str:
        while True:
            text = self._sources[language].text(rng)
            if self.words == "new" or len(text.entries) > 1:  # one alone may well have been trained on
                return text.written


def prepare_synthetic(
    languages: Sequence[str],
    split: str,
    utterances: int,
    seed: int,
    out: str | Path,
    domain: str = "general",
    progress: Callable[[int, int], None] | None = None,
    perturbed: bool = False,
    words: str = "new",
) -> Path:
    """The manifest `out/SPLIT.jsonl` of freshly made speech, beside `out/audio/SPLIT/LANGUAGE/*.flac`.

    Args:
        languages: language tags.
        split: "train", "dev" or "test".
        utterances: how many for each language.
        seed: another seed, other utterances; the same seed, the same bytes.
        out: folder to write to.
        domain: "general" or "field".
        progress: called with the number of utterances done and of all.
        perturbed: with random formants, noise, echo, channel, loudness and speed.
        words: "new" or "known"; see `SyntheticSpeech`.

    Raises:
        UsageError: no such split, domain or kind of words, or nothing to make.
        UnknownLanguage: some languages are not spoken here; all of them are named.
        OutputError: the folder cannot be written.
    """
    if utterances < 1:
        raise UsageError(f"{utterances} utterances for each language; ask for 1 or more")
    speech = SyntheticSpeech(languages, split, seed, domain, perturbed, words)
    out = prepare_folder(Path(out))
    manifest = out / f"{split}.jsonl"
    remove(manifest)  # an older manifest must not describe newer audio
    rows: list[Utterance] = []
    for language in speech.languages:
        folder = prepare_folder(out / "audio" / split / language)
        for index in range(utterances):
            rows.append(_write_utterance(speech, language, index, folder / f"{index:06d}.flac"))
            if progress:
                progress(len(rows), utterances * len(speech.languages))
    return write_manifest(manifest, rows)


def _text_sources(languages: Sequence[str], split: str, kinds: Mapping[str, float]) -> dict[str, TextSource]:
    """A source of texts for each language, by normalised tag; all languages without one in one error."""
    if not languages:
        raise UsageError("no languages; name at least one, such as pl")
    sources: dict[str, TextSource] = {}
    faults: list[str] = []
    for tag in languages:
        try:
            sources[normalize_tag(tag)] = TextSource(normalize_tag(tag), split, kinds)
        except UnknownLanguage as error:
            faults.append(str(error))
    if faults:
        raise UnknownLanguage("; ".join(faults))
    return sources


def _write_utterance(speech: SyntheticSpeech, language: str, index: int, path: Path) -> Utterance:
    audio, text, speaker = speech.utterance(language, index)
    name = f"{speech.domain}-{speech.split}-{language}-{index:06d}"
    return Utterance(path, text, language, duration_s=write_flac(path, audio), speaker=speaker, id=name)


def write_flac(path: Path, audio: npt.NDArray[np.float32]) -> float:
    """Write samples (n_samples,) at 16 kHz, and say how many seconds they are.

    Raises:
        OutputError: the file cannot be written.
    """
    data = io.BytesIO()
    soundfile.write(data, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    try:
        path.write_bytes(data.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    return round(len(audio) / SAMPLE_RATE, 4)


def remove(path: Path) -> None:
    """Remove a file that may not be there.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be replaced ({error.strerror or error})") from None
