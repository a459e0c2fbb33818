"""Domains of synthetic speech: what is said, by whom, and how it sounds on arrival."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from lora_whisper.data import espeak
from lora_whisper.data.conditions import Condition
from lora_whisper.data.texts import stable_hash
from lora_whisper.errors import UsageError

_FIELD_VARIANTS = frozenset(  # those of the Klatt synthesisers, and a few others
    str.split(
        "adam benjamin david edward edward2 klatt klatt2 klatt3 klatt4 klatt5 klatt6 mike2 "
        "Denis Diogo Henrique Hugo michel miguel shelby"
    )
)
_STRANGE_VARIANTS = frozenset(  # whispers, robots and monsters
    str.split(
        "whisper whisperf Demonic croak Storm Tweaky UniRobot anikaRobot fast announcer RicishayMax "
        "RicishayMax2 RicishayMax3 robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 "
        "robosoft7 robosoft8"
    )
)


@dataclass(frozen=True)
class Domain:
    """A kind of speech: what is said, by whom, and how it sounds.

    Args:
        kinds: kinds of entries with their weights.
        variants: voice variants of espeak-ng.
        condition: the channel.
    """

    kinds: Mapping[str, float]
    variants: frozenset[str]
    condition: Condition = field(default_factory=Condition)

    def variants_of(self, split: str) -> tuple[str, ...]:
        """The voice variants of one split, disjoint from those of the others."""
        ranked = sorted(self.variants, key=stable_hash)
        dev, test = len(ranked) // 6, len(ranked) // 3  # a sixth each for dev and test
        return tuple({"dev": ranked[:dev], "test": ranked[dev:test], "train": ranked[test:]}[split])


@cache
def find_domain(name: str) -> Domain:
    """The domain of that name: "general" to pre-train on, "field" to adapt to.

    Raises:
        UsageError: there is no such domain.
    """
    if name == "general":
        kinds = {"territory": 2, "language": 2, "script": 0.5, "city": 2, "zone": 1}
        everyday = {"calendar": 0.5, "number": 3, "date": 3}
        return Domain(kinds | everyday, frozenset(espeak.variants()) - _FIELD_VARIANTS - _STRANGE_VARIANTS)
    if name == "field":
        return Domain(
            {"measure": 3, "price": 3, "relative": 2, "currency": 2},
            _FIELD_VARIANTS,
            Condition(bands_hz=((300.0, 3400.0),), snr_db=(20.0, 30.0)),
        )
    raise UsageError(f"{name!r} is no domain of synthetic speech; choose general or field")
