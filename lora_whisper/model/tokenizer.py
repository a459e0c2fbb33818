"""Text to tokens and back: Whisper's byte-level vocabulary, its special tokens looked up by name.

Ids of special tokens differ between Whisper sizes (by one from large-v3 on) and between vocabularies, so no
id is written down here. Text never becomes a special token: `<|en|>` inside a transcript stays text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from lora_whisper.errors import CheckpointError, UnknownLanguage, UsageError
from lora_whisper.files import write_json, write_text

N_TIMESTAMPS = 1501
TIMESTAMP_STEP_S = 0.02
TASKS = ("transcribe", "translate")
END_OF_TEXT = "<|endoftext|>"

_TIMESTAMPS = tuple(f"<|{i * TIMESTAMP_STEP_S:.2f}|>" for i in range(N_TIMESTAMPS))
_SPECIAL = re.compile(r"<\|[^|]+\|>")
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")  # every other special name is longer


class Tokenizer:
    """Whisper's tokenizer.

    Attributes:
        eot: end of the transcript (and padding).
        sot: start of the transcript; stands exactly once in a sequence.
        transcribe, translate: the tasks.
        sot_prev: what was said before follows (a prompt).
        no_speech: probability of silence is read off here.
        no_timestamps: text without times follows.
        timestamp_begin: 0.00 s; the other 1500 times follow.
        languages: codes of the language tokens, in the order of their ids.
        n_vocab: number of all tokens, special ones included.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.encode_special_tokens = True  # special tokens spelled out in a text stay text
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self._special = {added[i].content: i for i in sorted(added) if _SPECIAL.fullmatch(added[i].content)}
        self.eot = self._named(END_OF_TEXT)
        self.sot = self._named("<|startoftranscript|>")
        self.transcribe = self._named("<|transcribe|>")
        self.translate = self._named("<|translate|>")
        self.sot_prev = self._named("<|startofprev|>")
        self.no_speech = self._named("<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = self._named("<|notimestamps|>")
        self.timestamp_begin = self._named(_TIMESTAMPS[0])
        if self._named(_TIMESTAMPS[-1]) != self.timestamp_begin + N_TIMESTAMPS - 1:
            raise CheckpointError(
                "tokenizer: the ids of the 1501 timestamps are not consecutive; not a Whisper one"
            )
        matches = (_LANGUAGE.fullmatch(name) for name in self._special)
        self.languages = tuple(match[1] for match in matches if match)
        self.n_vocab: int = backend.get_vocab_size(with_added_tokens=True)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a Hugging Face Whisper folder.

        Raises:
            CheckpointError: its files are missing, damaged, or not a Whisper tokenizer's.
        """
        try:
            backend = _read_fast(folder) if (folder / "tokenizer.json").exists() else _read_slow(folder)
            if backend.token_to_id(_TIMESTAMPS[0]) is None:  # folders of 2022 leave the timestamps implicit
                backend.add_special_tokens([_special_token(name) for name in _TIMESTAMPS])
            return cls(backend)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder}: no tokenizer ({Path(error.filename).name} is missing); download the model again"
            ) from None
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from None
        except Exception as error:  # noqa: BLE001  (the library raises bare Exceptions for damaged files)
            raise CheckpointError(
                f"{folder}: damaged tokenizer files ({_first_line(error)}); download the model again"
            ) from None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; never a special one."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones and timestamps left out; broken UTF-8 becomes U+FFFD."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def language_token(self, code: str) -> int:
        """Token of a Whisper language code.

        Raises:
            UnknownLanguage: the vocabulary has no such language.
        """
        if code not in self.languages:
            raise UnknownLanguage(f"no language token {code!r}; this Whisper has {' '.join(self.languages)}")
        return self._special[f"<|{code}|>"]

    def start_sequence(self, language: str, task: str = "transcribe", timestamps: bool = False) -> list[int]:
        """Tokens with which the decoder starts: start, language, task, and whether times follow.

        Raises:
            UnknownLanguage: the vocabulary has no such language.
            UsageError: the task is none of `TASKS`.
        """
        if task not in TASKS:
            raise UsageError(f"task {task!r}: choose {' or '.join(TASKS)}")
        start = [self.sot, self.language_token(language), self._special[f"<|{task}|>"]]
        return start if timestamps else [*start, self.no_timestamps]

    def timestamp(self, time_s: float) -> int:
        """Token of the time nearest to `time_s`, counted from the start of the window.

        Raises:
            UsageError: the time does not lie in the 30 s window.
        """
        step = round(time_s / TIMESTAMP_STEP_S)
        if not 0 <= step < N_TIMESTAMPS:
            raise UsageError(f"a timestamp of {time_s} s: it must lie between 0 and 30 s of its window")
        return self.timestamp_begin + step

    def seconds(self, token: int) -> float:
        """Time that a timestamp token stands for."""
        return round((token - self.timestamp_begin) * TIMESTAMP_STEP_S, 2)

    def is_timestamp(self, token: int) -> bool:
        """Whether the token is a time."""
        return 0 <= token - self.timestamp_begin < N_TIMESTAMPS

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of all special tokens and timestamps by name, ascending."""
        return self._special

    def save(self, folder: Path) -> None:
        """Write all tokenizer files of a Hugging Face Whisper folder.

        Raises:
            OutputError: the folder cannot be written.
        """
        data = json.loads(self._backend.to_str())
        for token in data["added_tokens"]:  # transformers counts timestamps as ordinary added tokens
            token["special"] = token["special"] and token["content"] not in _TIMESTAMPS
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in data["model"]["merges"]]
        write_text(folder / "tokenizer.json", json.dumps(data, ensure_ascii=False))
        write_text(folder / "vocab.json", json.dumps(data["model"]["vocab"], ensure_ascii=False))
        write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
        write_json(folder / "added_tokens.json", {t["content"]: t["id"] for t in data["added_tokens"]})
        write_json(folder / "special_tokens_map.json", self._special_map())
        decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in data["added_tokens"]}
        write_json(
            folder / "tokenizer_config.json",
            self._special_map() | _CONFIG | {"added_tokens_decoder": decoder},
        )

    def _special_map(self) -> dict[str, Any]:
        roles = {f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "unk", "pad")}
        others = [name for name in self._special if name != END_OF_TEXT and name not in _TIMESTAMPS]
        return roles | {"additional_special_tokens": others}

    def _named(self, *names: str) -> int:
        for name in names:
            if name in self._special:
                return self._special[name]
        raise CheckpointError(f"the tokenizer has no {names[0]}; not a Whisper one")


_CONFIG = {
    "tokenizer_class": "WhisperTokenizer",
    "processor_class": "WhisperProcessor",
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "errors": "replace",
    "model_max_length": 1024,
    "return_attention_mask": False,
}


def train_tokenizer(texts: Iterable[str], vocab_size: int, languages: Sequence[str]) -> Tokenizer:
    """A new Whisper tokenizer: byte-level BPE learned from texts, then all of Whisper's special tokens.

    Args:
        texts: what to learn from; the same texts give the same tokenizer.
        vocab_size: text tokens, at least the 256 bytes; special tokens come on top.
        languages: codes of the language tokens. transformers finds them by their place in Whisper's list, so
            give the whole list (`languages.WHISPER_LANGUAGES`).
    """
    backend = _byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    names = [END_OF_TEXT, "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    names += ["<|notimestamps|>", *_TIMESTAMPS]
    backend.add_special_tokens([_special_token(name) for name in names])
    return Tokenizer(backend)


def _read_fast(folder: Path) -> tokenizers.Tokenizer:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in data["added_tokens"]:
        token["special"] = token["special"] or _SPECIAL.fullmatch(token["content"]) is not None
    return tokenizers.Tokenizer.from_str(json.dumps(data))


def _read_slow(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder that has only vocab.json, merges.txt and a list of added tokens."""
    vocab: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#version")]
    backend = _byte_level(models.BPE(vocab=vocab, merges=[(left, right) for left, right in pairs]))
    added = {name: i for name, i in vocab.items() if _SPECIAL.fullmatch(name)} | _added_tokens(folder)
    for name in sorted(added, key=lambda name: added[name]):
        special = _SPECIAL.fullmatch(name) is not None
        backend.add_tokens([AddedToken(name, normalized=False, special=special)])
        if backend.token_to_id(name) != added[name]:
            raise CheckpointError(f"the token {name} has id {added[name]}, but ids before it are missing")
    return backend


def _added_tokens(folder: Path) -> dict[str, int]:
    """Ids of the tokens beyond vocab.json, from whichever file names them."""
    path = folder / "added_tokens.json"
    if path.exists():
        ids: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        return ids
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {token["content"]: int(i) for i, token in config.get("added_tokens_decoder", {}).items()}


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """GPT-2's way from text to bytes to tokens, which Whisper shares."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _special_token(name: str) -> AddedToken:
    return AddedToken(name, normalized=False, special=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
