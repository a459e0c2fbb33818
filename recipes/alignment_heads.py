"""Which attention heads of a backbone follow the speech: `python recipes/alignment_heads.py`.

Synthesises speech whose words are timed by espeak-ng (dev split: unseen voices and texts), measures for each
head how far its word starts are off, and adds heads to the best one while that helps. `--write` puts them
into the generation_config.json of `--backbone FOLDER`, where every Whisper keeps its own. The test split then
says how far off the words are. Works for any Whisper; languages that it has no token for are left out.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_whisper.audio import features
from lora_whisper.data import espeak
from lora_whisper.data.domains import find_domain
from lora_whisper.data.texts import TextSource, stable_hash
from lora_whisper.data.voices import draw_voice
from lora_whisper.decoding.clips import pad
from lora_whisper.decoding.word_times import (
    Head,
    Matrix,
    attention_maps,
    sharpened,
    split_words,
    token_starts,
)
from lora_whisper.files import write_json
from lora_whisper.model.checkpoint import Backbone, load_backbone

LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pl", "pt")
MOST_HEADS = 10


@dataclass(frozen=True)
class Timed:
    """An utterance and when each of its words begins."""

    language: str
    text: str
    samples: NDArray[np.float32]
    starts_s: tuple[float, ...]


def utterances(language: str, split: str, count: int, seed: int) -> list[Timed]:
    """Utterances of two words or more in which espeak-ng speaks the words that are written."""
    domain = find_domain("general")
    source, rng = (
        TextSource(language, split, domain.kinds),
        np.random.default_rng(stable_hash(f"{language}{seed}")),
    )
    found: list[Timed] = []
    while len(found) < count:
        text = source.text(rng).written
        voice, _ = draw_voice(domain.variants_of(split), rng)
        samples, words = espeak.synthesise_words(text, language, voice)
        if 2 <= len(words) == len(text.split()):
            found.append(Timed(language, text, samples, tuple(start_s for *_, start_s in words)))
    return found


@dataclass(frozen=True)
class Measured:
    """What the heads of a backbone make of an utterance: a sharpened map each; and its true word starts."""

    maps: dict[Head, Matrix]
    words: list[tuple[int, ...]]
    starts_s: tuple[float, ...]

    def errors_s(self, heads: Sequence[Head]) -> list[float]:
        """How far each word's start is off."""
        starts = token_starts(np.mean([self.maps[head] for head in heads], axis=0))
        firsts = np.cumsum([0, *map(len, self.words[:-1])])
        return [abs(starts[first] - true) for first, true in zip(firsts, self.starts_s, strict=True)]


def measure(backbone: Backbone, rows: Sequence[Timed], batch: int = 16) -> list[Measured]:
    """The heads' maps of utterances whose tokens make as many words as espeak-ng spoke."""
    found = []
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        mels = [features(one.samples, backbone.model.dims.n_mels, backbone.audio_context) for one in part]
        mel, n_positions = pad(mels)
        texts = [backbone.tokenizer.encode(f" {one.text}") for one in part]
        maps, _ = attention_maps(backbone, mel, [one.language for one in part], texts, n_positions)
        for one, text, by_head in zip(part, texts, maps, strict=True):
            words = split_words(backbone, text)
            if len(words) == len(one.starts_s):
                found.append(Measured({h: sharpened(m) for h, m in by_head.items()}, words, one.starts_s))
    return found


def mean_error_s(rows: Sequence[Measured], heads: Sequence[Head]) -> float:
    """Mean over all words of how far their starts are off."""
    return float(np.mean([error for row in rows for error in row.errors_s(heads)]))


def best_heads(rows: Sequence[Measured]) -> tuple[Head, ...]:
    """Heads, the best first, each added because the mean error falls."""
    chosen: list[Head] = []
    left, lowest = list(rows[0].maps), float("inf")
    while left and len(chosen) < MOST_HEADS:
        errors = {head: mean_error_s(rows, [*chosen, head]) for head in left}
        best = min(errors, key=lambda head: errors[head])
        if errors[best] >= lowest:
            break
        chosen, lowest = [*chosen, best], errors[best]
        left.remove(best)
    return tuple(chosen)


def main() -> None:
    """Find the heads on development speech, write them if asked, and measure them on test speech."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--utterances", type=int, default=25, help="of each language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    path = Path(options.backbone) / "generation_config.json"
    if options.write and not path.exists():
        parser.error(f"--write changes {path}, which does not exist; name its folder: --backbone FOLDER")
    backbone = load_backbone(options.backbone)
    tags = [tag for tag in LANGUAGES if tag in backbone.tokenizer.languages]
    dev, test = (
        measure(
            backbone,
            [one for tag in tags for one in utterances(tag, split, options.utterances, options.seed)],
        )
        for split in ("dev", "test")
    )
    heads = best_heads(dev)
    if options.write:
        config = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, config | {"alignment_heads": [list(head) for head in heads]})
        load_backbone(options.backbone)  # it must still load
    errors = np.array([error for row in test for error in row.errors_s(heads)])
    print(json.dumps({
        "alignment_heads": heads,
        "words": len(errors),
        "median_s": round(float(np.median(errors)), 3),
        "mean_s": round(float(errors.mean()), 3),
        "within_0.2_s": round(float((errors <= 0.2).mean()), 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
