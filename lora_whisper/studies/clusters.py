"""Clusters of languages that sound alike, so that each cluster can share one adapter."""

from collections.abc import Mapping, Sequence

from lora_whisper.data.manifest import Utterance
from lora_whisper.errors import UsageError
from lora_whisper.jobs import sound_similarity
from lora_whisper.model.checkpoint import Backbone


def clusters(
    backbone: Backbone, heard: Mapping[str, Sequence[Utterance]], count: int
) -> list[tuple[str, ...]]:
    """The languages in `count` clusters by how alike they sound to the bare encoder, each sorted.

    Args:
        backbone: listens.
        heard: language → utterances.
        count: how many clusters.
    """
    utterances = [one for ones in heard.values() for one in ones]
    return average_linkage(sound_similarity(backbone, utterances), count)


def average_linkage(likeness: Mapping[str, Mapping[str, float]], count: int) -> list[tuple[str, ...]]:
    """Clusters made by joining the two of highest mean similarity until `count` are left, sorted.

    Args:
        likeness: similarity of each item to each.
        count: how many clusters.

    Raises:
        UsageError: more clusters than items, or none.
    """
    if not 1 <= count <= len(likeness):
        raise UsageError(f"{count} clusters of {len(likeness)} languages; ask for 1 to {len(likeness)}")
    found: list[tuple[str, ...]] = [(tag,) for tag in sorted(likeness)]
    while len(found) > count:
        pairs = [(one, other) for i, one in enumerate(found) for other in found[i + 1 :]]
        one, other = max(pairs, key=lambda pair: _mean_likeness(likeness, *pair))
        found = [group for group in found if group not in (one, other)] + [tuple(sorted(one + other))]
    return sorted(found)


def _mean_likeness(
    likeness: Mapping[str, Mapping[str, float]], one: Sequence[str], other: Sequence[str]
) -> float:
    return sum(likeness[a][b] for a in one for b in other) / (len(one) * len(other))
