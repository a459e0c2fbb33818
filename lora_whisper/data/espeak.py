"""Speech from espeak-ng, in this process, as a pure function of text, language and voice.

espeak-ng carries state from one utterance into the next (flutter, gain control, the phase of its 64-sample
steps), and its API cannot reset it. So each utterance is spoken by a freshly loaded copy of the library with
a fixed seed of its own random numbers. That costs 0.7 ms, because a voice is named by its file: by its name
it would cost 2.3 ms more, for the library would list all voices first.
"""

import ctypes
import importlib
import itertools
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.extras import demo_module
from lora_whisper.errors import UnknownLanguage
from lora_whisper.languages import fallbacks

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_UTF8, _IPA = 1, 0x02
_CHARACTER_POSITION = 1
_END_OF_EVENTS, _WORD = 0, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_RETRIEVE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_UNREPEATABLE = {"Reed", "caleb"}  # their breath noise is drawn from libc's rand(), shared with everybody
_CRASHING = {"kl"}  # Greenlandic ends the process in espeak-ng 1.52
_RENAMED = {"cmn": "zh", "no": "nb", "tl": "fil"}
_DRAWN = "drawn"  # name of the file of a timbre
_lock = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """One speaker: a voice variant with its own speed and pitch.

    Args:
        variant: one of `variants()`, or "" for the language's own voice.
        timbre: instead of a variant, lines of a voice file of one's own ("pitch 90 140", "formant 1 95 …").
        speed_wpm: words a minute, 80 to 450.
        pitch: base pitch, 0 to 99.
        pitch_range: liveliness of the melody, 0 (flat) to 99.
    """

    variant: str = ""
    speed_wpm: int = 175
    pitch: int = 50
    pitch_range: int = 50
    timbre: str = ""


class _Event(ctypes.Structure):
    """espeak-ng's `espeak_EVENT`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # counted from 1, in characters
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # in milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


def synthesise(text: str, language: str, voice: Voice | None = None) -> npt.NDArray[np.float32]:
    """The text as speech: float32 samples (n_samples,) in [-1, 1], mono, 16 kHz.

    The same arguments give the same samples, whatever was spoken before.

    Raises:
        UnknownLanguage: espeak-ng has no voice for the language.
        MissingExtra: the `demo` extra is not installed.
    """
    return _spoken(text, language, voice or Voice(), None)


def synthesise_words(
    text: str, language: str, voice: Voice | None = None
) -> tuple[npt.NDArray[np.float32], list[tuple[int, int, float]]]:
    """As `synthesise`, and first character, number of characters and start in seconds of each spoken word."""
    words: list[tuple[int, int, float]] = []
    return _spoken(text, language, voice or Voice(), words), words


def _spoken(
    text: str, language: str, voice: Voice, words: list[tuple[int, int, float]] | None
) -> npt.NDArray[np.float32]:
    """The samples; a list for `words` is filled."""
    chunks: list[bytes] = []

    def retrieve(samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        if words is not None and events:
            words.extend(_words(events))
        return 0

    name = _voice_name(language, _DRAWN if voice.timbre else voice.variant)
    callback = _RETRIEVE(retrieve)  # must stay referenced while the library speaks
    with _library(name, voice.timbre) as (library, rate_hz):
        library.espeak_SetSynthCallback(callback)
        for parameter, value in (
            (_RATE, voice.speed_wpm),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _CHARACTER_POSITION, 0, _UTF8, None, None)
    samples = np.frombuffer(b"".join(chunks), np.int16).astype(np.float32) / 32768
    return np.clip(soxr.resample(samples, rate_hz, SAMPLE_RATE), -1, 1).astype(np.float32)


def _words(events: int) -> Iterator[tuple[int, int, float]]:
    """The words among the events at this address."""
    for place in itertools.count():
        event = _Event.from_address(events + place * ctypes.sizeof(_Event))
        if event.type == _END_OF_EVENTS:
            return
        if event.type == _WORD:
            yield event.text_position - 1, event.length, event.audio_position / 1000


def phonemes(texts: Sequence[str], language: str) -> list[str]:
    """How espeak-ng reads each text, in IPA; "(en)" marks a switch to another language's voice.

    Raises:
        UnknownLanguage: espeak-ng has no voice for the language.
        MissingExtra: the `demo` extra is not installed.
    """
    with _library(_voice_name(language, "")) as (library, _):
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        return [_text_phonemes(library, text) for text in texts]


def _text_phonemes(library: ctypes.CDLL, text: str) -> str:
    data = ctypes.create_string_buffer(text.encode())
    position = ctypes.c_void_p(ctypes.addressof(data))
    clauses: list[str] = []
    while position.value:  # each call reads one clause and moves the position to the next
        part = library.espeak_TextToPhonemes(ctypes.byref(position), _UTF8, _IPA)
        clauses.append((part or b"").decode("utf-8", "replace").strip())
    return " ".join(clauses)


@cache
def languages() -> dict[str, str]:
    """The voice file of each language tag that espeak-ng speaks, as "pl" → "zlw/pl", sorted by tag."""
    root = _data_folder() / "lang"
    ranked: dict[str, tuple[int, str]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        lines = [line.split() for line in path.read_text("utf-8", "replace").splitlines()]
        tags = [words[1:3] for words in lines if len(words) > 1 and words[0] == "language"]
        dictionary = next((words[1] for words in lines if words[:1] == ["dictionary"]), tags[0][0])
        has_words = (root.parent / f"{dictionary.split('-')[0]}_dict").exists()  # the wheel lacks some
        if not has_words or dictionary in _CRASHING:
            continue
        for tag, *priority in tags:
            rank = (int(priority[0]) if priority else 5, path.relative_to(root).as_posix())
            ranked[tag.lower()] = min(ranked.get(tag.lower(), rank), rank)
    return {tag: name for tag, (_, name) in sorted(ranked.items())}


@cache
def variants() -> tuple[str, ...]:
    """The names of the voice variants that speak repeatably, sorted."""
    folder = _data_folder() / "voices" / "!v"
    return tuple(sorted(path.name for path in folder.iterdir() if path.name not in _UNREPEATABLE))


def speaks(language: str) -> bool:
    """Whether espeak-ng has a voice for the language tag."""
    return _voice_file(language) is not None


def _voice_name(language: str, variant: str) -> str:
    file = _voice_file(language)
    if file is None:
        raise UnknownLanguage(
            f"{language}: espeak-ng has no voice for it; it speaks {', '.join(languages())}"
        )
    return f"{file}+{variant}" if variant else file


@cache
def _voice_file(language: str) -> str | None:
    tags = [tag.lower() for tag in fallbacks(language)]
    old_names = [old for old, new in _RENAMED.items() if new in tags]
    return next((languages()[tag] for tag in [*tags, *old_names] if tag in languages()), None)


@cache
def _data_folder() -> Path:
    return Path(demo_module("espeakng_loader").get_data_path())


@cache
def _writable_data_folder() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """A folder that shows the wheel's data and takes voice files of our own, as long as the process lives."""
    keeper = tempfile.TemporaryDirectory(prefix="lora-whisper-voices-")
    folder = Path(keeper.name)
    for path in _data_folder().iterdir():
        if path.name != "voices":
            (folder / path.name).symlink_to(path)
    (folder / "voices" / "!v").mkdir(parents=True)
    return folder, keeper


@contextmanager
def _library(voice_name: str, timbre: str = "") -> Iterator[tuple[ctypes.CDLL, int]]:
    """Yield a freshly loaded library with its voice set, and its sampling rate; unload it afterwards."""
    with _lock:
        data = _data_folder()
        if timbre:
            data, _ = _writable_data_folder()
            (data / "voices" / "!v" / _DRAWN).write_text(f"language variant\nname {_DRAWN}\n{timbre}\n")
        library = ctypes.CDLL(demo_module("espeakng_loader").get_library_path())
        try:
            rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _DO_NOT_EXIT)
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            library.espeak_SetVoiceByName(voice_name.encode())
            yield library, rate_hz
        finally:
            library.espeak_Terminate()
            _unload(library)


def _unload(library: ctypes.CDLL) -> None:
    module = importlib.import_module("_ctypes")
    unload = getattr(module, "dlclose", None) or module.FreeLibrary
    unload(library._handle)
