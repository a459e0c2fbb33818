"""How alike languages are: to Whisper's language identification, to its encoder, and by their adapters."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lora_whisper.errors import AdapterError
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.lora.mixture import flatten
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.language_id import detect_language
from lora_whisper.model.whisper import position_mask


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


def embedding_similarity(
    backbone: Backbone, batches: Mapping[str, Iterable[tuple[Tensor, Tensor | None]]]
) -> dict[str, dict[str, float]]:
    """How alike languages sound: cosine (-1 to 1) between their mean encoder outputs, by tag and tag.

    What all languages share is subtracted first; without that all cosines are nearly one.

    Args:
        backbone: the frozen Whisper, which listens bare.
        batches: by language, log-mel frames (B, M, T) and the real encoder positions of each row, (B,).

    Raises:
        AdapterError: a language has no utterances, or there are fewer than two.
    """
    if len(batches) < 2:
        raise AdapterError("one language alone cannot be compared; give speech in two or more")
    means = torch.stack([_mean_embedding(backbone, tag, rows) for tag, rows in batches.items()])
    return _cosines(list(batches), means - means.mean(0))


@torch.inference_mode()
def _mean_embedding(backbone: Backbone, tag: str, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Tensor:
    """Mean encoder output over all real positions of all utterances, (D,) float64."""
    total = torch.zeros(backbone.model.dims.n_audio_state, dtype=torch.float64)
    count = 0
    for mel, n_positions in batches:
        positions = None if n_positions is None else n_positions.to(backbone.model.device)
        audio = backbone.model.encode(mel.to(backbone.model.device), positions)
        mask = position_mask(positions, audio.shape[1])
        real = torch.ones(audio.shape[:2], dtype=torch.bool) if mask is None else mask[:, 0, 0].cpu()
        total += audio.cpu().double()[real].sum(0)
        count += int(real.sum())
    if not count:
        raise AdapterError(f"{tag}: no utterances to compare; check the manifest and --language")
    return total / count


def adapter_similarity(bank: AdapterBank) -> dict[str, dict[str, float]]:
    """How alike the adapters of a bank change the backbone: cosine between their updates of all weights.

    Raises:
        AdapterError: there are fewer than two adapters, or one decides at every position.
    """
    adapters = list(bank)
    if len(adapters) < 2:
        raise AdapterError("one adapter alone cannot be compared; load two or more")
    flat = [flatten(adapter).tensors for adapter in adapters]
    products = torch.tensor([[_inner_product(one, other) for other in flat] for one in flat])
    norms = products.diagonal().clamp(min=1e-30).sqrt()
    cosines = (products / norms[:, None] / norms).tolist()
    tags = [adapter.tag for adapter in adapters]
    return {tag: dict(zip(tags, row, strict=True)) for tag, row in zip(tags, cosines, strict=True)}


def _inner_product(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Sum over layers of <B₁A₁, B₂A₂>, without ever making a whole update: tr((A₁A₂ᵀ)ᵀ(B₁ᵀB₂))."""
    total = 0.0
    for name, a in one.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "a" and name in other:
            inner = (one[f"{path}.b"].T @ other[f"{path}.b"]) * (a @ other[name].T)
            total += float(inner.double().sum())
    return total


def _cosines(tags: Sequence[str], vectors: Tensor) -> dict[str, dict[str, float]]:
    unit = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
    rows = (unit @ unit.T).tolist()
    return {tag: dict(zip(tags, row, strict=True)) for tag, row in zip(tags, rows, strict=True)}


def adapter_candidates(bank: AdapterBank) -> dict[str, str]:
    """Language tag → Whisper code of what to start from; of those sharing a code, its owner or the first.

    Mixtures are left out: they lean on others, so nothing can be copied or borrowed from them.
    """
    owners: dict[str, str] = {}
    for adapter in bank:
        code = adapter.info.token_language
        if not adapter.experts and (code not in owners or adapter.tag == code):
            owners[code] = adapter.tag
    return {tag: code for code, tag in owners.items()}
