"""A clip on its way to its transcript, and how its language is transcribed."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_whisper.audio import SAMPLE_RATE, AudioContext
from lora_whisper.audio_file import Samples
from lora_whisper.decoding.search import Decoded
from lora_whisper.decoding.transcript import Transcript
from lora_whisper.errors import UnknownLanguage


@dataclass(frozen=True)
class Target:
    """How a language is transcribed.

    Attributes:
        tag: the language.
        adapter: tag of the adapter; None for the bare backbone.
        token_language: Whisper code whose token starts the decoder.
        context: audio context that the weights are used to.
    """

    tag: str
    adapter: str | None
    token_language: str
    context: AudioContext


@dataclass(frozen=True, eq=False)
class Job:
    """A loaded clip and where it is cut; `target` is None until its language is known."""

    index: int
    name: str
    samples: Samples
    cuts: Sequence[tuple[int, int]]
    target: Target | None
    probability: float = 1.0

    @property
    def duration_s(self) -> float:
        """Of the whole clip."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def windows(self) -> list[Samples]:
        """The pieces that are decoded."""
        return [self.samples[start:end] for start, end in self.cuts]

    @property
    def known(self) -> Target:
        """Its target.

        Raises:
            UnknownLanguage: it is not known yet.
        """
        if self.target is None:
            raise UnknownLanguage(f"{self.name}: its language is not recognised yet")
        return self.target

    def transcript(self, decoded: Sequence[Decoded]) -> Transcript:
        """What was heard in its windows, a segment each."""
        segments = tuple(
            one.segment(start / SAMPLE_RATE, end / SAMPLE_RATE, self.known.tag, self.probability)
            for (start, end), one in zip(self.cuts, decoded, strict=True)
        )
        return Transcript(self.name, self.duration_s, self.known.tag, segments)
