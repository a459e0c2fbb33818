"""LoRA mixture of experts: a language's own adapter beside those of similar languages, borrowed as they are.

    y = W₀x + g₀ · s₀B₀A₀x + Σₖ gₖ · sₖBₖAₖx        (Song et al. 2024, section 2.3)

The weights are those of the routing (by similarity), or learned in each layer, or learned for each position.
The first two make the mixture a plain adapter of the summed rank: the A of all stand below each other, the
weighted B beside each other. (The average of the A and of the B is another thing: it has products of one
adapter's A with another's B in it.)
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_whisper.errors import AdapterError, TooFar
from lora_whisper.lora.adapter import Adapter, Expert, Gating
from lora_whisper.lora.layers import LoRAConvolution, LoRALinear
from lora_whisper.lora.parts import Gate, LoRAConfig, LowRank
from lora_whisper.lora.updates import Adapted
from lora_whisper.model.whisper import Whisper


def chosen_experts(
    similarity: Mapping[str, float], adapters: Mapping[str, Adapter], most: int = 2, threshold: float = 0.0
) -> tuple[Expert, ...]:
    """The most similar adapters at or above the threshold, weighted by their similarity; weights sum to one.

    Args:
        similarity: of the new language to each language with an adapter.
        adapters: those adapters, by language.
        most: how many to choose at most.
        threshold: least similarity; one that none reaches is an error.

    Raises:
        TooFar: no adapter is similar enough.
    """
    ranked = sorted(((share, tag) for tag, share in similarity.items()), key=lambda pair: (-pair[0], pair[1]))
    near = [(share, tag) for share, tag in ranked[:most] if share >= threshold and share > 0]
    if not near:
        best = f"{ranked[0][1]} with {ranked[0][0]:.3f}" if ranked else "none"
        raise TooFar(
            f"no adapter is similar enough for a mixture (threshold {threshold}; nearest: {best}); "
            "lower the threshold or choose another method"
        )
    total = sum(share for share, _ in near)
    return tuple(Expert(tag, adapters[tag].fingerprint, share / total) for share, tag in near)


def borrowed(adapters: Mapping[str, Adapter], wanted: Sequence[Expert], where: str) -> tuple[Adapter, ...]:
    """The adapters that a mixture borrows.

    Args:
        adapters: those at hand, by language.
        wanted: which, as they were when they were chosen.
        where: who borrows, for errors.

    Raises:
        AdapterError: one is missing, was changed, or is a mixture itself.
    """
    found = []
    for expert in wanted:
        adapter = adapters.get(expert.language)
        if adapter is None:
            raise AdapterError(f"{where}: its expert {expert.language} is missing; load that adapter too")
        if adapter.fingerprint != expert.fingerprint:
            raise AdapterError(
                f"{where}: its expert {expert.language} has changed since it was chosen (fingerprint "
                f"{adapter.fingerprint[:12]}, not {expert.fingerprint[:12]}); restore it or train again"
            )
        if adapter.experts:
            raise AdapterError(f"{where}: its expert {expert.language} is a mixture itself; flatten it first")
        found.append(adapter)
    return tuple(found)


def fresh_gates(
    layers: Mapping[str, Adapted], experts: Sequence[Adapter], own: Mapping[str, LowRank], gating: Gating
) -> dict[str, Gate]:
    """Untrained gates of a mixture, which leave the weights of the routing as they are.

    Args:
        layers: the layers of the backbone by path.
        experts: what is borrowed.
        own: the mixture's own parts.
        gating: "fixed" has no gates.
    """
    if gating == "fixed":
        return {}
    count = 1 + len(experts)
    used = own.keys() | {path for expert in experts for path in expert.parts}
    gates = {}
    for path, layer in layers.items():
        if path in used:
            device = layer.weight.device
            shape = torch.ones(count) if gating == "layer" else torch.zeros(count, layer.in_features)
            gates[path] = Gate(nn.Parameter(shape.to(device)))
    return gates


def gates_from(
    layers: Mapping[str, Adapted], tensors: Mapping[str, Tensor], count: int, where: str
) -> dict[str, Gate]:
    """Gates with copies of these tensors (`….gate`), for `count` adapters.

    Raises:
        AdapterError: one has another shape.
    """
    gates = {}
    for path, layer in layers.items():
        tensor = tensors.get(f"{path}.gate")
        if tensor is None:
            continue
        if tuple(tensor.shape) not in {(count,), (count, layer.in_features)}:
            raise AdapterError(f"{where}: {path}.gate is {tuple(tensor.shape)}, not for {count} adapters")
        gates[path] = Gate(nn.Parameter(tensor.to(layer.weight.device, copy=True)))
    return gates


@dataclass(frozen=True)
class Flattened:
    """A mixture as a plain adapter.

    Attributes:
        config: its shape.
        tensors: its values.
        error: by how much it differs from the mixture: Frobenius norm of the difference of all updates, as a
            share of that of the updates. 0 where nothing was left out.
    """

    config: LoRAConfig
    tensors: dict[str, Tensor]
    error: float


def flatten(mixture: Adapter, rank: int | None = None) -> Flattened:
    """The mixture as one plain adapter: exactly, of the summed rank, or as near as one of `rank` can be.

    Raises:
        AdapterError: its weights change from position to position, so no plain adapter equals it.
    """
    _check_constant(mixture)
    exact = {path: _stacked(mixture, path) for path in _paths(mixture)}
    full_rank = max(a.shape[0] for a, _ in exact.values())
    target = min(rank or full_rank, full_rank)
    tensors: dict[str, Tensor] = {}
    lost = total = 0.0
    for path, (a, b) in exact.items():
        a_new, b_new, left_out, size = _reduced(a, b, target)
        tensors[f"{path}.a"], tensors[f"{path}.b"] = a_new, b_new
        lost, total = lost + left_out, total + size
    kinds = dict.fromkeys(kind for one in (mixture, *mixture.experts) for kind in one.config.modules)
    config = LoRAConfig(target, float(target), tuple(kinds))
    return Flattened(config, tensors, (lost / total) ** 0.5 if total else 0.0)


def updates_of(adapter: Adapter) -> dict[str, Tensor]:
    """The change of each weight by path, (out, in) float32, of an adapter or of a mixture without a router.

    Raises:
        AdapterError: a router decides at every position.
    """
    _check_constant(adapter)
    stacks = {path: _stacked(adapter, path) for path in _paths(adapter)}
    return {path: b @ a for path, (a, b) in stacks.items()}


def merged_model(model: Whisper, layers: Mapping[str, Adapted], adapter: Adapter) -> Whisper:
    """A plain Whisper of its own, with the adapter merged into the weights in float32.

    Raises:
        AdapterError: a router decides at every position.
    """
    updates = updates_of(adapter)
    shared = {id(held): held for layer in layers.values() for held in (layer.adapters, layer.gates)}
    merged = copy.deepcopy(model, shared)
    for path in layers:
        layer = merged.get_submodule(path)
        if isinstance(layer, LoRALinear | LoRAConvolution):
            merged.set_submodule(path, layer.plain(updates.get(path)))
    return merged


def _check_constant(mixture: Adapter) -> None:
    if mixture.experts and mixture.info.gating == "token":
        raise AdapterError(
            f"{mixture.tag}: a router decides at every position, so it cannot be one plain adapter; "
            "train the mixture with --gating layer or fixed to merge or export it"
        )


def _paths(mixture: Adapter) -> list[str]:
    return list(dict.fromkeys(path for one in (mixture, *mixture.experts) for path in one.parts))


def _stacked(mixture: Adapter, path: str) -> tuple[Tensor, Tensor]:
    """A (ΣR, in) and B (out, ΣR) of a layer in float32, every weight and scale within B."""
    factors = mixture.gates[path].weight.detach().float().tolist() if path in mixture.gates else None
    lower, wider = [], []
    for index, (one, (_, weight)) in enumerate(zip((mixture, *mixture.experts), mixture.route, strict=True)):
        part = one.parts.get(path)
        if part is not None:
            lower.append(part.a.detach().float())
            wider.append(
                part.b.detach().float() * (part.scale * weight * (factors[index] if factors else 1.0))
            )
    return torch.cat(lower), torch.cat(wider, 1)


def _reduced(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """A and B of exactly `rank`, the square of what is left out, and the square of the whole."""
    if a.shape[0] <= rank:
        missing = rank - a.shape[0]
        size = float(((b.T @ b) * (a @ a.T)).sum())
        padded = torch.nn.functional.pad
        return padded(a, (0, 0, 0, missing)).contiguous(), padded(b, (0, missing)).contiguous(), 0.0, size
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T)  # of B·A, within the small spaces that both span
    root = s[:rank].sqrt()
    new_a, new_b = root[:, None] * (v[:rank] @ q_a.T), (q_b @ u[:, :rank]) * root
    squares = s.square()
    return new_a.float(), new_b.float(), float(squares[rank:].sum()), float(squares.sum())
