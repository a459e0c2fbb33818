"""What 8 or 4 bits a weight spare, and what they cost: training over them against training over all bits."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from benchmarks.adapted import CONFIG, Speech, difference_row, heard, results
from benchmarks.measure import MIB, Row, Setting, Variant, alternate, ratio_row, require
from benchmarks.training import LANGUAGE, Clock, train_once
from benchmarks.workload import LORA, MINI, SMALL, TINY, backbone_folder, row_of, utterances
from lora_whisper.data.batching import FixedRows
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.model.checkpoint import Backbone, load_backbone
from lora_whisper.model.few_bits import FewBits
from lora_whisper.training.trainer import TrainConfig

ALL = "all bits"
BITS = {ALL: None, "8 bits": 8, "4 bits": 4}
N_ROWS, LENGTH_S = 4, 10.0


def measure(setting: Setting) -> Iterator[Row]:
    """The rows."""
    require("bitsandbytes", remedy="pip install lora-whisper[bits]")
    for geometry in setting.chosen((TINY,), (SMALL,)):
        yield from _training(geometry, setting)
    if not setting.quick:
        yield from _cer(setting)


def _training(geometry: str, setting: Setting) -> Iterator[Row]:
    variants, mib = [], {}
    for name, bits in BITS.items():
        one = load_backbone(backbone_folder(geometry, setting.folder), setting.device, bits=bits)
        mib[name] = sum(_kept_bytes(weight) for weight in one.model.parameters()) / MIB
        rows = FixedRows([row_of(each, one) for each in utterances(N_ROWS, [LANGUAGE], length_s=LENGTH_S)])
        variants.append(Variant(name, partial(_step, one, rows)))
    times = alternate(variants, setting.rounds(2))
    for name in list(BITS)[1:]:
        figures = {"all_bits_mib": mib[ALL], "few_bits_mib": mib[name]}
        title = f"training, {geometry}, over {name} a weight, against all bits"
        yield ratio_row(
            title, times[ALL], times[name], None, figures, ("ours on both sides; MiB of weights",)
        )


def _step(one: Backbone, rows: FixedRows) -> float:
    """Seconds of a training step."""
    clock = Clock()
    train_once(one, rows, TrainConfig(epochs=1, batch_s=LENGTH_S * N_ROWS), clock)
    return clock.times[-1] - clock.times[0]


def _kept_bytes(weight: Tensor) -> int:
    return (weight.codes if isinstance(weight, FewBits) else weight).nbytes


def _cer(setting: Setting) -> Iterator[Row]:
    found = results({name: partial(_adapted, bits, setting) for name, bits in BITS.items()}, setting)
    for name in list(BITS)[1:]:
        pair = {key.replace(" ", "_"): found[key] for key in (ALL, name)}
        yield difference_row(
            f"CER, mini, adapters over {name} a weight minus adapters over all bits", pair, ()
        )


def _adapted(bits: int | None, setting: Setting, speech: Speech, name: str) -> EvaluationResult:
    bank = AdapterBank(load_backbone(MINI, setting.device, bits=bits))
    bank.add(LANGUAGE, LORA)
    return heard(bank, speech, CONFIG, setting, name.replace(" ", "-"))
