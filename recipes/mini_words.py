"""How `mini` spells words by how often its training had them: `python recipes/mini_words.py` (minutes).

Texts of the rows of recipes/mini.py are drawn anew, without speech, and their words counted; of joined
rows and of windows the first utterance counts. Then letters of test speech with new words are compared one
by one.
"""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

from mini import STAGES, WELL_COVERED
from rapidfuzz.distance import Levenshtein

from lora_whisper.data.batching import RowEncoder
from lora_whisper.data.manifest import read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.evaluation.evaluate import evaluate
from lora_whisper.training.curriculum import RowFactory

BOUNDS = (0, 1, 10, 100, 1000)
"""Fewest hearings of a class of words."""
CHUNK = 2000


def words(text: str) -> Iterable["re.Match[str]"]:
    """Where the words of the text are."""
    return re.finditer(r"\w+", text)


def hearings(tag: str, encoder: RowEncoder) -> Counter[str]:
    """How often training had each word of a language, in lower case."""
    found: Counter[str] = Counter()
    jobs = [
        (RowFactory(stage.curriculum, "train", number, encoder), stage.config.epochs, tag, chunk)
        for number, stage in enumerate(STAGES)
        for chunk in _chunks(stage.curriculum.utterances[tag])
    ]
    with ProcessPoolExecutor() as pool:
        for counted in pool.map(_count, jobs):
            found.update(counted)
    return found


def _chunks(n_rows: int) -> Iterable[range]:
    return (range(start, min(start + CHUNK, n_rows)) for start in range(0, n_rows, CHUNK))


def _count(job: tuple[RowFactory, int, str, range]) -> Counter[str]:
    factory, epochs, tag, indices = job
    texts = (factory.first_text(tag, index).casefold() for index in indices)
    once = Counter(word[0] for text in texts for word in words(text))
    return Counter({word: count * epochs for word, count in once.items()})


def wrong_letters(
    pairs: Sequence[tuple[str, str]], heard: Counter[str]
) -> tuple[Counter[int], Counter[int], dict[int, set[str]]]:
    """Wrong letters, all letters and different words of each class of words, by its lower bound.

    Args:
        pairs: what was said and what was written, in lower case.
        heard: how often training had each word.
    """
    wrong, letters = Counter[int](), Counter[int]()
    different: dict[int, set[str]] = {bound: set() for bound in BOUNDS}
    for said, written in pairs:
        classes: dict[int, int] = {}
        for word in words(said):
            bound = max(b for b in BOUNDS if b <= heard[word[0]])
            letters[bound] += len(word[0])
            different[bound].add(word[0])
            classes |= dict.fromkeys(range(*word.span()), bound)
        for edit in Levenshtein.editops(said, written):
            place = classes.get(edit.src_pos, classes.get(edit.src_pos - 1))
            if place is not None:
                wrong[place] += 1
    return wrong, letters, different


def main() -> None:
    """Print a table of the well covered languages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--seed", type=int, default=12345)
    options = parser.parse_args()
    asr = LoraWhisper(options.backbone)
    encoder = RowEncoder(asr.backbone.tokenizer, asr.backbone.model.dims.n_mels, asr.backbone.audio_context)
    classes = ("never heard", *(f"{low} to {high - 1} times" for low, high in pairwise(BOUNDS[1:])), "more")
    print(f"| language | {' | '.join(classes)} |")
    print("|---" * (1 + len(BOUNDS)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        manifest = prepare_synthetic(
            WELL_COVERED, options.split, options.utterances, options.seed, Path(folder)
        )
        results = evaluate(asr, read_manifest(manifest)).utterances
    for tag in WELL_COVERED:
        pairs = [
            (one.reference.casefold(), one.hypothesis.casefold()) for one in results if one.language == tag
        ]
        wrong, letters, different = wrong_letters(pairs, hearings(tag, encoder))
        cells = (
            f"{100 * wrong[b] / letters[b]:.1f} % of {letters[b]} ({len(different[b])} words)"
            if letters[b]
            else "–"
            for b in BOUNDS
        )
        print(f"| {tag} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
