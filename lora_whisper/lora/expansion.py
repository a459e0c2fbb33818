"""How a new language begins: from the adapter of the language that Whisper takes it for."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from lora_whisper.errors import AdapterError
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.language_id import detect_language


def language_similarity(
    backbone: Backbone, candidates: Mapping[str, str], batches: Iterable[tuple[Tensor, Tensor | None]]
) -> dict[str, float]:
    """Similarity of a language to each candidate, most similar first; sums to one.

    Whisper's language-identification probabilities, restricted to the candidates and averaged over the
    utterances (Song et al. 2024, section 2.3). The bare backbone listens.

    Args:
        backbone: the frozen Whisper.
        candidates: language tag → Whisper code of its token; each code once.
        batches: log-mel frames (B, M, T) of the language and the real encoder positions of each row, (B,).

    Raises:
        AdapterError: there are no candidates, or no utterances.
    """
    if not candidates:
        raise AdapterError("there are no adapters to compare with; train some first")
    device = backbone.model.device
    totals = dict.fromkeys(candidates.values(), 0.0)
    count = 0
    for mel, n_positions in batches:
        positions = None if n_positions is None else n_positions.to(device)
        rows = detect_language(backbone, mel.to(device), positions, list(totals))
        count += len(rows)
        for row in rows:
            for code, probability in row.items():
                totals[code] += probability
    if not count:
        raise AdapterError("there are no utterances to compare; check the manifest and --language")
    means = {tag: totals[code] / count for tag, code in candidates.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def adapter_candidates(bank: AdapterBank) -> dict[str, str]:
    """Language tag → Whisper code of a bank's adapters; of those sharing a code, its owner or the first."""
    owners: dict[str, str] = {}
    for adapter in bank:
        code = adapter.info.token_language
        if code not in owners or adapter.tag == code:
            owners[code] = adapter.tag
    return {tag: code for code, tag in owners.items()}
