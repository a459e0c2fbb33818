"""What is trained, as values: a run of the one trainer is a list of tracks.

A track owns parameters, an optimiser and a stream of rows. One adapter per language is one track per
language; full fine-tuning is a single track with the rows of all languages. Tracks never share a parameter, a
clipping norm, a schedule or a random number, so training them together equals training each alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from lora_whisper.data.batching import Batch, RowSource
from lora_whisper.lora.bank import Adapter
from lora_whisper.model.layers import Linear
from lora_whisper.model.routing import Route
from lora_whisper.model.whisper import Whisper

AuxiliaryLoss = Callable[[Tensor, Batch], Tensor]
"""A further loss from the encoder output (B, S, D) of a track's rows, already weighted."""


Learned = Literal["all", "layers", "tokens"]
"""What learns of a backbone: all weights; the matrices that LoRA adapts, without convolutions, norms, biases
and embeddings; the embedding of the tokens."""


@dataclass(frozen=True, eq=False)
class Track:
    """One thing to train.

    Attributes:
        name: language tag, or what else is trained.
        parameters: by a name that is stable between runs.
        train: rows to learn from.
        dev: rows for the development loss; None if there are none.
        route: adapters that all its rows are routed to; empty for the bare backbone.
        auxiliary: a further loss, for example CTC in pre-training.
        token_weights: how much each token of the vocabulary counts in the loss, (V,); None: all the same.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    train: RowSource
    dev: RowSource | None = None
    route: Route = ()
    auxiliary: AuxiliaryLoss | None = None
    token_weights: Tensor | None = None


def language_lora(adapter: Adapter, train: RowSource, dev: RowSource | None) -> Track:
    """The track of one language's own adapter: the method of the paper."""
    return Track(adapter.tag, adapter.named_parameters(), train, dev, adapter.route)


def full(
    model: Whisper,
    train: RowSource,
    dev: RowSource | None,
    auxiliary: nn.Module | None = None,
    token_weights: Tensor | None = None,
    learned: Learned = "all",
) -> Track:
    """The track of the backbone's own weights (full fine-tuning, pre-training), and of an auxiliary loss.

    Args:
        model: the backbone.
        train: rows to learn from.
        dev: rows for the development loss; None if there are none.
        auxiliary: a module that learns beside the backbone; its loss is the caller's.
        token_weights: see `Track`.
        learned: which of the weights; the others are kept.
    """
    model.requires_grad_(False)
    parameters = dict(model.named_parameters())
    if learned == "all":
        del parameters["encoder.positional_embedding"]
    elif learned == "layers":
        layers = [path for path, module in model.named_modules() if isinstance(module, Linear)]
        parameters = {f"{path}.weight": parameters[f"{path}.weight"] for path in layers}
    else:
        name = "decoder.token_embedding.weight"
        parameters = {name: parameters[name]}
    if auxiliary is not None:
        parameters |= {f"auxiliary.{name}": p for name, p in auxiliary.named_parameters()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return Track("full", parameters, train, dev, auxiliary=auxiliary, token_weights=token_weights)
