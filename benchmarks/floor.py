"""How close training and encoding are to what the machine can do at all.

The floor is arithmetic: the operations of every matrix product, at the best rate that this machine reaches on
any of them in this precision, or the bytes of their operands and results, each moved once, at the machine's
bandwidth, whichever takes longer. Norms, activations, optimiser, Python and all else count as nothing. What
is reached is the share of the floor in the time measured. How long each part's products take at the rate of
their own shapes, one by one as PyTorch multiplies them, stands beside it.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from benchmarks.machine import trains_in_bf16
from benchmarks.measure import MIB, Row, Setting, Variant, alternate, timed
from benchmarks.training import CPU_ROWS, LANGUAGE, LARGE_CPU_ROWS, Clock, train_once
from benchmarks.workload import (
    LANGUAGES,
    LORA,
    MEAN_S,
    SMALL,
    TINY,
    Speech,
    backbone,
    bank_of,
    row_of,
    utterances,
)
from lora_whisper.data.batching import FixedRows, collate
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.whisper import ModelDimensions
from lora_whisper.training.trainer import TrainConfig

GOAL = 0.5
N_STEPS = 2
SHORTEST_LOOK_S, FEWEST_LOOKS, MOST_LOOKS = 0.1, 3, 200
"""How long and how often a product is repeated to find its best time."""
N_COPIED = 64 * MIB


@dataclass(frozen=True)
class Product:
    """Equal matrix products, (batch, rows, inner) by (batch, inner, out), as part of a pass.

    Attributes:
        part: of the model.
        shape: batch, rows, inner, out.
        times: how many of them the pass has, its way back included.
        moved: numbers that one of them must read and write; None for its operands and its result.
    """

    part: str
    shape: tuple[int, int, int, int]
    times: int
    moved: int | None = None

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        batch, rows, inner, out = self.shape
        return 2 * batch * rows * inner * out * self.times

    def n_bytes(self, size: int) -> int:
        """Bytes of operands and results, with `size` bytes a number."""
        batch, rows, inner, out = self.shape
        all_of_it = batch * (rows * inner + inner * out + rows * out)
        return (all_of_it if self.moved is None else self.moved) * size * self.times


@dataclass(frozen=True)
class Floor:
    """Least seconds of a pass.

    Attributes:
        by_part: seconds of the products of each part of the model, at the rate of their own shapes.
        memory_s: seconds to move all bytes once.
        operations: of all products.
        rate: operations a second, the best of all shapes.
    """

    by_part: dict[str, float]
    memory_s: float
    operations: int
    rate: float

    @property
    def seconds(self) -> float:
        """The longer of computing and moving."""
        return max(self.operations / self.rate, self.memory_s)


def encoder_products(dims: ModelDimensions, rows: int, positions: int, training: bool) -> list[Product]:
    """The products of the encoder for `rows` rows of `positions` positions.

    On its way back a frozen layer needs the gradient of its input alone, an adapter that of its weights too,
    and nothing before the first adapter needs any.
    """
    width, layers, m = dims.n_audio_state, dims.n_audio_layer, rows * positions
    first = 3 if training else 0  # inputs of the first block's query, key and value
    found = [
        Product("convolutions", (1, 2 * m, 3 * dims.n_mels, width), 1),
        Product("convolutions", (1, m, 3 * width, width), 1),
        Product("projections", (1, m, width, width), 4 * layers * (1 + training) - first),
    ]
    return [
        *found,
        *_mlp(width, m, layers, training),
        *_attention(rows, dims.n_audio_head, (positions, positions), width, (layers, training)),
        *_adapters(width, m, 4 * layers, training),
        *_mlp_adapters(width, m, layers, training),
    ]


def decoder_products(
    dims: ModelDimensions, rows: int, positions: int, tokens: int, labels: int
) -> list[Product]:
    """The products of the decoder in training, for `tokens` tokens a row and `labels` labels in all."""
    width, layers, m = dims.n_text_state, dims.n_text_layer, rows * tokens
    heads = dims.n_text_head
    return [
        Product("projections", (1, m, width, width), 2 * 6 * layers - 3),
        Product("projections", (1, rows * positions, width, width), 2 * 2 * layers),
        *_mlp(width, m, layers, True),
        *_attention(rows, heads, (tokens, tokens), width, (layers, True)),
        *_attention(rows, heads, (tokens, positions), width, (layers, True)),
        *_adapters(width, m, 6 * layers, True),
        *_adapters(width, rows * positions, 2 * layers, True),
        *_mlp_adapters(width, m, layers, True),
        Product("vocabulary", (1, labels, width, dims.n_vocab), 2),
    ]


def _mlp(width: int, m: int, layers: int, training: bool) -> list[Product]:
    times = layers * (1 + training)
    return [Product("MLP", (1, m, width, 4 * width), times), Product("MLP", (1, m, 4 * width, width), times)]


def _attention(
    rows: int, heads: int, lengths: tuple[int, int], width: int, passes: tuple[int, bool]
) -> list[Product]:
    """Scores and mixing of queries and keys of these lengths; both operands of both have gradients.

    The scores themselves need not go through memory: a fused kernel keeps them.
    """
    (queries, keys), (layers, training), head = lengths, passes, width // heads
    times, moved = layers * (1 + 2 * training), rows * width * (queries + keys)
    return [
        Product("attention", (rows * heads, queries, head, keys), times, moved),
        Product("attention", (rows * heads, queries, keys, head), times, moved),
    ]


def _adapters(width: int, m: int, n_layers: int, training: bool) -> list[Product]:
    times = n_layers * (1 + 2 * training)
    return [
        Product("adapters", (1, m, width, LORA.rank), times),
        Product("adapters", (1, m, LORA.rank, width), times),
    ]


def _mlp_adapters(width: int, m: int, layers: int, training: bool) -> list[Product]:
    times = layers * (1 + 2 * training)
    shapes = [(width, LORA.rank), (LORA.rank, 4 * width), (4 * width, LORA.rank), (LORA.rank, width)]
    return [Product("adapters", (1, m, inner, out), times) for inner, out in shapes]


def floor_of(products: Sequence[Product], dtype: torch.dtype, device: str) -> Floor:
    """The floor of a pass on this machine, whose rates are measured now."""
    best: dict[tuple[int, int, int, int], float] = {}
    by_part: dict[str, float] = {}
    for product in products:
        if product.shape not in best:
            best[product.shape] = _product_s(product.shape, dtype, device)
        seconds = best[product.shape] * product.times
        by_part[product.part] = by_part.get(product.part, 0.0) + seconds
    n_bytes = sum(product.n_bytes(dtype.itemsize) for product in products)
    operations = sum(product.operations for product in products)
    rate = max(2 * prod(shape) / seconds for shape, seconds in best.items())
    return Floor(by_part, n_bytes / bandwidth(device), operations, rate)


def _product_s(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> float:
    """Best seconds of a product of this shape, its second operand as weights lie or the other way round."""
    batch, rows, inner, out = shape
    left = torch.randn(batch, rows, inner, device=device).to(dtype)
    right = torch.randn(batch, inner, out, device=device).to(dtype)
    as_weights = right.transpose(1, 2).contiguous().transpose(1, 2)
    result = torch.empty(batch, rows, out, dtype=dtype, device=device)
    if batch == 1:
        left, right, as_weights, result = left[0], right[0], as_weights[0], result[0]
    return min(_best_s(partial(torch.matmul, left, each, out=result)) for each in (right, as_weights))


def bandwidth(device: str) -> float:
    """Bytes a second that the machine reads and writes, by its fastest copy of a large tensor."""
    source = torch.ones(N_COPIED, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_s(lambda: target.copy_(source))


def _best_s(function: Callable[[], object]) -> float:
    run = timed(function)
    run()
    times: list[float] = []
    while len(times) < FEWEST_LOOKS or (sum(times) < SHORTEST_LOOK_S and len(times) < MOST_LOOKS):
        times.append(run())
    return min(times)


def measure(setting: Setting) -> Iterator[Row]:
    """Encoding and training of each geometry."""
    for geometry in setting.chosen((TINY,), (TINY, SMALL)):
        one = backbone(geometry, setting.folder, setting.device)
        n_rows = CPU_ROWS if geometry == TINY else LARGE_CPU_ROWS
        speech = utterances(n_rows, [LANGUAGE], length_s=MEAN_S)
        yield _encoding(geometry, one, speech, setting)
        yield _training(geometry, one, speech, setting)


def _encoding(geometry: str, one: Backbone, speech: Sequence[Speech], setting: Setting) -> Row:
    batch = collate([row_of(each, one) for each in speech]).to(one.model.device)
    bank = bank_of(one, LANGUAGES)
    routing = bank.route([LANGUAGES[row % len(LANGUAGES)] for row in range(len(speech))])

    @torch.inference_mode()
    def encode() -> None:
        one.model.encode(batch.mel, batch.n_positions, routing)

    times = alternate([Variant("", timed(encode))], setting.rounds(3))[""]
    for tag in LANGUAGES:
        bank.remove(tag)
    products = encoder_products(one.model.dims, len(speech), _positions(speech, one), training=False)
    found = floor_of(products, torch.float32, setting.device)
    what = f"{len(speech)} × {MEAN_S:.0f} s in 8 languages, fp32"
    return _row(f"encoding, {geometry}, {what}: share of the floor", found, times)


def _training(geometry: str, one: Backbone, speech: Sequence[Speech], setting: Setting) -> Row:
    rows = [row_of(each, one) for each in speech]
    clock = Clock()
    config = TrainConfig(epochs=1, batch_s=1.02 * MEAN_S * len(rows))
    train_once(one, FixedRows(rows * (1 + N_STEPS)), config, clock)
    steps = [after - before for before, after in zip(clock.times[1:], clock.times[2:], strict=False)]
    labels = sum(len(row.tokens) - row.n_prompt for row in rows)
    longest = max(len(row.tokens) for row in rows) - 1
    positions, dims = _positions(speech, one), one.model.dims
    products = encoder_products(dims, len(rows), positions, training=True)
    products += decoder_products(dims, len(rows), positions, longest, labels)
    bf16 = trains_in_bf16(setting.device)
    found = floor_of(products, torch.bfloat16 if bf16 else torch.float32, setting.device)
    what = f"{len(rows)} × {MEAN_S:.0f} s, {'bf16' if bf16 else 'fp32'}"
    return _row(f"training, {geometry}, a step of {what}: share of the floor", found, steps)


def _positions(speech: Sequence[Speech], one: Backbone) -> int:
    return row_of(speech[0], one).mel.shape[1] // 2


def _row(name: str, found: Floor, times: Sequence[float]) -> Row:
    shares = [found.seconds / each for each in times]
    parts = {f"{part}_by_shape_ms": 1e3 * seconds for part, seconds in found.by_part.items()}
    figures = {
        "measured_ms": 1e3 * statistics.median(times),
        "floor_ms": 1e3 * found.seconds,
        **parts,
        "floor_memory_ms": 1e3 * found.memory_s,
        "operations_g": found.operations / 1e9,
        "best_gflop_per_s": found.rate / 1e9,
    }
    return Row(name, statistics.median(shares), min(shares), max(shares), GOAL, figures=figures)
