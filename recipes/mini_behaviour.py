"""What `mini` does besides reading: times, silence, prompts, contexts. `python recipes/mini_behaviour.py`.

On speech of the "dev" split (voices and texts unseen in training), with the true text given so far
("teacher forcing"): how far a predicted time lies from the true one, whether silence is recognised, and what
a prompt or silence around the speech costs.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from mini import LANGUAGES, WELL_COVERED

from lora_whisper.data.batching import IGNORED, Row, RowEncoder, collate
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.training.curriculum import Curriculum, RowFactory

ROWS, SEED = 40, 2024
PLAIN = Curriculum(dict.fromkeys(WELL_COVERED, ROWS), joined=0.0)


@torch.inference_mode()
def predictions(backbone: Backbone, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (L, V) of the tokens that are learned in a row, and these tokens, (L,)."""
    batch = collate([row])
    logits = backbone.model(batch.mel, batch.tokens, batch.n_positions)[0]
    learned = batch.labels[0] != IGNORED
    return logits[learned], batch.labels[0][learned]


def rows(curriculum: Curriculum, encoder: RowEncoder, tags: Sequence[str] = WELL_COVERED) -> list[Row]:
    """Development rows of each language."""
    factory = RowFactory(curriculum, "dev", SEED, encoder)
    return [factory.row(tag, index) for tag in tags for index in range(ROWS)]


def accuracy(backbone: Backbone, some: Sequence[Row]) -> float:
    """Share of text tokens that are predicted right."""
    right = total = 0
    for row in some:
        logits, labels = predictions(backbone, row)
        text = labels < backbone.tokenizer.eot
        right += int((logits.argmax(-1) == labels)[text].sum())
        total += int(text.sum())
    return right / total


def time_errors_s(backbone: Backbone, some: Sequence[Row]) -> np.ndarray:
    """Distance of each predicted time from the true one, in seconds."""
    tokenizer, errors = backbone.tokenizer, []
    for row in some:
        logits, labels = predictions(backbone, row)
        begin = tokenizer.timestamp_begin
        times = labels >= begin
        errors += (0.02 * (logits[times, begin:].argmax(-1) - (labels[times] - begin)).abs()).tolist()
    return np.array(errors)


def silence(backbone: Backbone, encoder: RowEncoder) -> tuple[float, float]:
    """Shares of silent clips called so, and left empty when a language is forced."""
    factory = RowFactory(replace(PLAIN, silent=1.0), "dev", SEED, encoder)
    called: list[bool] = []
    empty: list[bool] = []
    for index in range(200):
        row = factory.row("", index)
        logits, labels = predictions(backbone, row)
        (called if backbone.tokenizer.no_speech in row.tokens else empty).append(
            bool(logits[0].argmax() == labels[0])
        )
    return float(np.mean(called)), float(np.mean(empty))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mini")
    backbone = load_backbone(parser.parse_args().backbone)
    encoder = RowEncoder(backbone.tokenizer, 80, "dynamic", learn_prompt=True)
    single = time_errors_s(backbone, rows(replace(PLAIN, timestamped=1.0), encoder))
    several = time_errors_s(backbone, rows(replace(PLAIN, timestamped=1.0, joined=1.0), encoder))
    called, empty = silence(backbone, encoder)
    print("| what | measured |\n|---|---|")
    print(f"| median error of times, one utterance | {np.median(single):.2f} s |")
    print(f"| median error of times, 2 to 6 utterances up to 27 s | {np.median(several):.2f} s |")
    print(f"| silence and noise called `<|nospeech|>` | {100 * called:.0f} % |")
    print(f"| … left empty when a language is forced | {100 * empty:.0f} % |")
    for name, change in {
        "text tokens right, plain": {},
        "… with timestamps": {"timestamped": 1.0},
        "… after a prompt": {"prompted": 1.0},
        "… with silence around": {"extended": 1.0},
        "… in noise, echo, other channels": {"perturbed": 1.0},
        "… 2 to 6 utterances up to 27 s": {"joined": 1.0},
        "… windows of a recording, half of them full, most after the text before": {"windows": 1.0},
        "… with timestamps, as far as the window goes": {"windows": 1.0, "timestamped": 1.0},
    }.items():
        share = accuracy(backbone, rows(replace(PLAIN, **change), encoder))  # type: ignore[arg-type]
        print(f"| {name} | {100 * share:.1f} % |")
    print(f"\nlanguages: {', '.join(LANGUAGES)}; well covered: {', '.join(WELL_COVERED)}")


if __name__ == "__main__":
    main()
