"""OpenAI's own vocabulary as a Hugging Face Whisper folder, made offline from a file of openai-whisper."""

import base64
import importlib.util
import json
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from lora_whisper.languages import WHISPER_LANGUAGES


def tiktoken_file() -> Path:
    """Where openai-whisper keeps its multilingual vocabulary; the package itself is not imported."""
    spec = importlib.util.find_spec("whisper")
    return Path(spec.submodule_search_locations[0]) / "assets" / "multilingual.tiktoken"


def text_ranks() -> dict[bytes, int]:
    """All text tokens and their ids."""
    lines = (line.split() for line in tiktoken_file().read_text().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def special_names(n_languages: int) -> list[str]:
    """All special tokens in OpenAI's order; their ids follow the text tokens'."""
    names = ["<|endoftext|>", "<|startoftranscript|>"]
    names += [f"<|{code}|>" for code in list(WHISPER_LANGUAGES)[:n_languages]]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    return [*names, "<|notimestamps|>", *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt: bytes spelled as GPT-2 does, merges recovered from the ranks."""
    ranks = text_ranks()
    letters = _byte_letters()
    spell = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [_last_merge(token, ranks) for token in ranks if len(token) > 1]
    return {spell[token]: rank for token, rank in ranks.items()}, [(spell[a], spell[b]) for a, b in merges]


def write_folder(folder: Path, n_languages: int, *, fast: bool = True, timestamps: bool = True) -> Path:
    """Write the tokenizer files as OpenAI's folders on the Hub have them; `fast` adds tokenizer.json."""
    vocab, merges = vocabulary()
    names = special_names(n_languages)
    if not timestamps:
        names = names[:-1501]
    folder.mkdir(parents=True, exist_ok=True)
    if fast:
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_tokens(
            [AddedToken(n, normalized=False, special=n[2] not in "0123456789") for n in names]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    vocab["<|endoftext|>"] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    added = {name: len(vocab) + i for i, name in enumerate(names[1:])}
    (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    return folder


def _byte_letters() -> list[str]:
    """A printable letter for every byte, as in GPT-2."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that were merged into this one: apply all earlier merges to its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        rank = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
        i = min(range(len(rank)), key=rank.__getitem__)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
