"""The speech that a study runs on, and the size of its runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.errors import UsageError
from lora_whisper.jobs import Corpus
from lora_whisper.training.trainer import TrainConfig

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Bench:
    """Languages, how much speech of each, and how it is learned.

    Attributes:
        base: base language → training utterances; 0 takes all of a manifest's.
        new: the same of the languages that are added.
        dev: development utterances of each language, to choose the best epoch by.
        test: test utterances of each language.
        seeds: of the runs; each repeats everything but the speech.
        backbone: name or folder.
        manifests: folders with train.jsonl, dev.jsonl and test.jsonl of recordings of some languages; none
            for synthetic speech.
        speech_seed: of the synthetic speech.
        rank: of the adapters.
        training: of adapters.
        full_learning_rate: where all weights are trained.
    """

    base: Mapping[str, int]
    new: Mapping[str, int] = field(default_factory=dict)
    dev: int = 40
    test: int = 200
    seeds: tuple[int, ...] = (0, 1, 2)
    backbone: str = "mini"
    manifests: tuple[Path, ...] = ()
    speech_seed: int = 2406
    rank: int = 32
    training: TrainConfig = field(default_factory=TrainConfig)
    full_learning_rate: float = 1e-4

    @property
    def languages(self) -> tuple[str, ...]:
        """Base languages and the new ones."""
        return (*self.base, *self.new)

    def config(self, seed: int, full: bool) -> TrainConfig:
        """How a run trains."""
        rate = self.full_learning_rate if full else self.training.learning_rate
        return replace(self.training, learning_rate=rate, seed=seed)


@dataclass(frozen=True)
class Speech:
    """What a bench learns from and is tested on; read once."""

    bench: Bench
    folder: Path

    @cached_property
    def corpus(self) -> Corpus:
        """Training and development utterances, cut to the sizes of the bench."""
        counts = {**self.bench.base, **self.bench.new}
        return Corpus(
            self._read("train", lambda tag: counts[tag]), self._read("dev", lambda _: self.bench.dev)
        )

    @cached_property
    def test(self) -> list[Utterance]:
        """Test utterances of all languages."""
        return self._read("test", lambda _: self.bench.test)

    def _read(self, split: str, count: Callable[[str], int]) -> list[Utterance]:
        """The first utterances of each language, in the order of the bench.

        Raises:
            UsageError: a language has none.
        """
        paths = [folder / f"{split}.jsonl" for folder in self.bench.manifests or (self.folder,)]
        utterances = [one for path in paths for one in read_manifest(path)]
        found = []
        for tag in self.bench.languages:
            own = [one for one in utterances if one.language == tag]
            if not own:
                where = ", ".join(map(str, paths))
                raise UsageError(f"{where}: nothing in {tag}; give all of {', '.join(self.bench.languages)}")
            found += own[: count(tag) or None]
        return found


def prepare_speech(bench: Bench, folder: Path, say: Callable[[str], None]) -> Speech:
    """The speech of a bench; synthesised in `folder` unless it is there or the bench names manifests.

    The "field" domain has voices, texts and a channel that `mini` has never met.
    """
    if not bench.manifests and not (folder / "test.jsonl").exists():
        say(f"synthesising speech in {', '.join(bench.languages)} (field domain, seed {bench.speech_seed})")
        most = max((*bench.base.values(), *bench.new.values()))
        counts = {"train": most, "dev": bench.dev, "test": bench.test}
        for split in SPLITS:  # "test" last: it says that all are there
            prepare_synthetic(bench.languages, split, counts[split], bench.speech_seed, folder, "field")
    return Speech(bench, folder)
