"""A tiny frozen model with adapters, and rows from which they learn something."""

import torch

from lora_whisper.data.batching import FixedRows, Row
from lora_whisper.lora.layers import LoRALinear
from lora_whisper.lora.parts import LowRank
from lora_whisper.model.layers import Linear
from lora_whisper.model.whisper import ModelDimensions, Whisper
from lora_whisper.training.methods import Track
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import StepReport

DIMS = ModelDimensions(8, 100, 16, 2, 1, 40, 32, 16, 2, 1)
EOT = 39


def rows(seed: int, count: int = 12) -> FixedRows:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        frames = 2 * int(torch.randint(10, 40, (1,), generator=generator))
        n_tokens = int(torch.randint(3, 8, (1,), generator=generator))
        text = range(seed % 7, seed % 7 + n_tokens)  # something that can be learned
        made.append(Row(torch.randn(8, frames, generator=generator), (38, *text, EOT), 1))
    return FixedRows(made)


class Bench:
    """A tiny frozen model with adapters, made alike at each call."""

    def __init__(self, n_adapters: int = 2, dropout: float = 0.0, device: str = "cpu") -> None:
        self.model = Whisper(DIMS).initialise(0).requires_grad_(False)
        self.model.decoder.token_embedding.weight *= 30  # logits that an adapter can move
        self.model.to(device)
        self.parameters: list[dict[str, torch.nn.Parameter]] = [{} for _ in range(n_adapters)]
        for path, layer in list(self.model.named_modules()):
            if isinstance(layer, Linear):
                adapted = LoRALinear.from_linear(layer)
                self.model.set_submodule(path, adapted)
                for slot, named in enumerate(self.parameters):
                    generator = torch.Generator().manual_seed(slot)
                    a = torch.randn(4, layer.in_features, generator=generator) * 0.2
                    b = torch.randn(layer.out_features, 4, generator=generator) * 0.2
                    a, b = (torch.nn.Parameter(each.to(device)) for each in (a, b))
                    part = LowRank(a, b, 1.0, dropout)
                    adapted.adapters[slot] = part
                    named |= {f"{path}.a": part.a, f"{path}.b": part.b}

    def track(self, slot: int, dev: bool = True) -> Track:
        return Track(
            f"l{slot}",
            self.parameters[slot],
            rows(slot),
            rows(100 + slot, 4) if dev else None,
            ((slot, 1.0),),
        )

    def values(self, slot: int) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters[slot].items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Losses(Monitor):
    """Notes the losses of every step."""

    def __init__(self) -> None:
        self.all: list[dict[str, float]] = []

    def step(self, report: StepReport) -> None:
        self.all.append(report.losses)
