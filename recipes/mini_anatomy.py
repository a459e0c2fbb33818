"""Where the errors of `mini` come from: `python recipes/mini_anatomy.py` (a minute on two cores).

Character error rates in percent for voices and for texts of training and of the test, in all four
combinations, by language and by voice.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lora_whisper.data import espeak
from lora_whisper.data.batching import Row, RowEncoder, collate, plan_batches
from lora_whisper.data.domains import find_domain
from lora_whisper.data.texts import TextSource
from lora_whisper.data.voices import draw_voice
from lora_whisper.decoding.search import decode
from lora_whisper.evaluation.metrics import ErrorCounts, error_counts, units
from lora_whisper.evaluation.normalizers import normalize
from lora_whisper.model.checkpoint import Backbone, load_backbone

LANGUAGES = ("es", "de", "it", "cy", "pl", "en", "zh", "pt")
"""Of the mean, since the first version."""

FURTHER = ("fr", "nl", "da", "el")
SPLITS = ("train", "train"), ("train", "test"), ("test", "train"), ("test", "test")
"""Of voices and texts."""
UTTERANCES, SEED = 60, 77
NONE = ErrorCounts(0, 0, 0, 0)


def speech(tag: str, texts: str, voices: str, encoder: RowEncoder) -> tuple[list[Row], list[str], list[str]]:
    """Rows, texts and voice variants of one language, from the two splits."""
    domain = find_domain("general")
    source = TextSource(tag, texts, domain.kinds)
    rows, written, variants = [], [], []
    for index in range(UTTERANCES):
        generator = np.random.default_rng([index, SEED])
        text = source.text(generator).written
        voice, name = draw_voice(domain.variants_of(voices), generator)
        audio = domain.condition.apply(espeak.synthesise(text, tag, voice), generator)
        rows.append(encoder.row(audio, text, tag))
        written.append(text)
        variants.append(name.split("-")[0])
    return rows, written, variants


def errors(backbone: Backbone, tag: str, rows: Sequence[Row], texts: Sequence[str]) -> list[ErrorCounts]:
    """Character errors of each row."""
    counts = [NONE] * len(rows)
    for indices in plan_batches([row.mel.shape[1] / 100 for row in rows], 120, 0, 0):
        batch = collate([rows[i] for i in indices])
        heard = decode(backbone, batch.mel, [tag] * len(indices), n_positions=batch.n_positions)
        for index, one in zip(indices, heard, strict=True):
            both = (units(normalize(text, tag), "character") for text in (texts[index], one.text))
            counts[index] = error_counts(*both)
    return counts


def main() -> None:
    """Print the table and the voices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mini")
    backbone = load_backbone(parser.parse_args().backbone)
    encoder = RowEncoder(backbone.tokenizer, backbone.model.dims.n_mels, backbone.audio_context)
    by_voice: dict[str, ErrorCounts] = defaultdict(lambda: NONE)
    header = [*LANGUAGES, *FURTHER]
    print(f"| voices | texts | mean of {len(LANGUAGES)} | {' | '.join(header)} |")
    print("|---" * (3 + len(header)) + "|")
    for voices, texts in SPLITS:
        rates = []
        for tag in header:
            rows, written, variants = speech(tag, texts, voices, encoder)
            counts = errors(backbone, tag, rows, written)
            rates.append(100 * sum(counts, NONE).rate)
            for variant, one in zip(variants, counts, strict=True):
                by_voice[f"{voices} {variant}"] += one
        cells = " | ".join(f"{rate:.1f}" for rate in (np.mean(rates[: len(LANGUAGES)]), *rates))
        print(f"| {voices} | {texts} | {cells} |")
    for name, counts_of in sorted(by_voice.items(), key=lambda item: item[1].rate):
        print(f"{name}: {100 * counts_of.rate:.0f} %")


if __name__ == "__main__":
    main()
