"""What the studies compare, as values: which weights learn which languages, and how they begin."""

from dataclasses import dataclass
from typing import Literal

from lora_whisper.lora.adapter import Gating
from lora_whisper.new_language import Method

Trained = Literal["nothing", "adapters", "layers", "weights"]
Sharing = Literal["each", "all"]


@dataclass(frozen=True)
class Arm:
    """One way to make a recogniser for some languages.

    Attributes:
        name: of its folder and in reports.
        about: in a few words, for readers.
        trained: LoRA adapters, the weights of the layers that they adapt, or all weights of the backbone.
        learns: the base languages, or the new ones after them.
        sharing: "each" language has weights of its own, or "all" share the same.
        clusters: share within so many clusters of similar languages instead; 0 for no clusters.
        rank: of adapters, as a multiple of the study's; 0 for as many parameters as an adapter for each
            language has.
        convolutions: whether adapters change the encoder's convolutions, too.
        method: how the adapter of a new language begins.
        source: language that it copies or borrows: "closest", "random", "farthest", or a tag.
        gating: who weighs the experts of a mixture.
        experts: how many adapters a mixture borrows at most.
        own: whether a mixture has a part of its own.
        after: name of the arm whose weights it goes on from; empty for the bare backbone.
        rehearsal: share of the base languages' utterances that it hears again.
    """

    name: str
    about: str
    trained: Trained = "adapters"
    learns: Literal["base", "new"] = "new"
    sharing: Sharing = "each"
    clusters: int = 0
    rank: float = 1.0
    convolutions: bool = False
    method: Method = "scratch"
    source: str = "closest"
    gating: Gating = "fixed"
    experts: int = 2
    own: bool = True
    after: str = ""
    rehearsal: float = 0.0

    @property
    def changes_backbone(self) -> bool:
        """Whether weights of the backbone itself are trained."""
        return self.trained in {"layers", "weights"}

    @property
    def isolated(self) -> bool:
        """Whether no other language can change when a new one is learned."""
        return self.trained == "nothing" or (self.sharing == "each" and not self.clusters)


BARE = Arm("bare", "the backbone as it is", "nothing", "base")
BARE_NEW = Arm("bare-new", "the backbone as it is", "nothing")
LANGUAGE_LORA = Arm("language-lora", "LoRA-Whisper: an adapter for each language", learns="base")
SHARED_LORA = Arm(
    "shared-lora", "one adapter for all, of as many parameters", learns="base", sharing="all", rank=0
)
FULL = Arm("full", "multilingual full fine-tuning", "weights", "base", "all")
FULL_EACH = Arm("full-each", "full fine-tuning of each language alone", "weights", "base")
LAYERS_EACH = Arm(
    "layers-each",
    "the same with only the layers trained that LoRA adapts",
    "layers",
    "base",
)
CONVOLVED_LORA = Arm(
    "language-lora-conv",
    "LoRA-Whisper, the convolutions adapted, too",
    learns="base",
    convolutions=True,
)
CONVOLVED_SHARED = Arm(
    "one-adapter-conv",
    "one adapter for all, of the rank of one, the convolutions adapted, too",
    learns="base",
    sharing="all",
    convolutions=True,
)
WIDE_LORA = Arm("language-lora-wide", "LoRA-Whisper with four times the rank", learns="base", rank=4)

SCRATCH = Arm("scratch", "a fresh adapter", after="language-lora")
WARM_CLOSEST = Arm(
    "warm-closest", "warm start from the closest base", method="warm-start", after="language-lora"
)
WARM_RANDOM = Arm(
    "warm-random",
    "warm start from a random base",
    method="warm-start",
    source="random",
    after="language-lora",
)
WARM_FARTHEST = Arm(
    "warm-farthest",
    "warm start from the farthest base",
    method="warm-start",
    source="farthest",
    after="language-lora",
)
MOE = Arm("moe", "own LoRA and the two closest, by similarity", method="moe", after="language-lora")
STACKED = Arm("stacked", "own LoRA upon the closest, frozen", method="moe", experts=1, after="language-lora")
MOE_LAYER = Arm("moe-layer", "… weighed in each layer", method="moe", gating="layer", after="language-lora")
MOE_TOKEN = Arm(
    "moe-token", "… weighed at each position", method="moe", gating="token", after="language-lora"
)
MOE_BORROWED = Arm(
    "moe-borrowed",
    "the two closest alone, weighed in each layer",
    method="moe",
    gating="layer",
    own=False,
    after="language-lora",
)
SCRATCH_CONVOLVED = Arm(
    "scratch-conv",
    "a fresh adapter, the convolutions adapted, too",
    convolutions=True,
    after="language-lora-conv",
)
WARM_CONVOLVED = Arm(
    "warm-conv",
    "the same, started from the closest base",
    convolutions=True,
    method="warm-start",
    after="language-lora-conv",
)
WARM_SHARED = Arm(
    "warm-shared-conv",
    "the same, started from one adapter for all bases",
    convolutions=True,
    method="warm-start",
    after="one-adapter-conv",
)
MOE_TOKEN_CONVOLVED = Arm(
    "moe-token-conv",
    "own LoRA and the two closest, weighed at each position, the convolutions adapted, too",
    convolutions=True,
    method="moe",
    gating="token",
    after="language-lora-conv",
)
DOUBLE_RANK = Arm("double-rank", "a fresh adapter of twice the rank", rank=2, after="language-lora")
FULL_NEW = Arm(
    "full-new", "the fine-tuned model, fine-tuned on the new ones", "weights", sharing="all", after="full"
)
REHEARSAL = Arm(
    "full-rehearsal",
    "… with a fifth of the base speech again",
    "weights",
    sharing="all",
    after="full",
    rehearsal=0.2,
)
SHARED_NEW = Arm(
    "shared-lora-new", "the shared adapter, trained on the new ones", sharing="all", after="shared-lora"
)
FULL_NEW_EACH = Arm("full-new-each", "full fine-tuning of each new language alone", "weights")

CHOICES = (SCRATCH, WARM_CLOSEST, MOE)
"""Of these an automatic choice takes the best on development data, for each language."""

CONVOLVED = ("scratch-conv", "warm-conv", "warm-shared-conv", "moe-token-conv")
"""Ways of adding a language with adapters that change the convolutions, too."""

STUDIES: dict[str, tuple[Arm, ...]] = {
    "multilingual": (BARE, FULL, FULL_EACH, SHARED_LORA, CONVOLVED_SHARED, LANGUAGE_LORA, CONVOLVED_LORA),
    "expansion": (
        BARE_NEW,
        FULL_NEW,
        REHEARSAL,
        SHARED_NEW,
        FULL_NEW_EACH,
        SCRATCH,
        WARM_CLOSEST,
        WARM_RANDOM,
        WARM_FARTHEST,
        MOE,
        SCRATCH_CONVOLVED,
        WARM_CONVOLVED,
        WARM_SHARED,
        MOE_TOKEN_CONVOLVED,
    ),
    "capacity": (FULL, LANGUAGE_LORA, CONVOLVED_LORA, WIDE_LORA, LAYERS_EACH, FULL_EACH),
    "moe-cost": (SCRATCH, DOUBLE_RANK, STACKED, MOE, MOE_LAYER, MOE_TOKEN, MOE_BORROWED),
}


def similarity_arms(bases: tuple[str, ...]) -> tuple[Arm, ...]:
    """A warm start from each base language, near and far, beside a fresh adapter."""
    starts = (
        Arm(f"from-{tag}", f"warm start from {tag}", method="warm-start", source=tag, after="language-lora")
        for tag in bases
    )
    return (SCRATCH, *starts)


def scaling_arms(languages: int) -> tuple[Arm, ...]:
    """An adapter for each language, for each of a half and of a quarter as many clusters, and for all."""
    counts = sorted({max(2, languages // 2), max(2, languages // 4)}, reverse=True)
    clusters = (
        Arm(f"clusters-{count}", f"an adapter for each of {count} clusters", learns="base", clusters=count)
        for count in counts
    )
    single = Arm("one-adapter", "one adapter for all, of the same rank", learns="base", sharing="all")
    return (BARE, LANGUAGE_LORA, *clusters, single)
