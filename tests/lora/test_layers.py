"""The LoRA layer against a loop over rows and adapters, and its promises: fresh, mixed, merged."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lora_whisper.errors import UsageError
from lora_whisper.lora.layers import LoRAConvolution, LoRALinear
from lora_whisper.lora.parts import Gate, LoRAConfig, LowRank
from lora_whisper.lora.products import infer_together
from lora_whisper.lora.updates import Adapted
from lora_whisper.model.layers import Convolution, Linear
from lora_whisper.model.routing import NO_ADAPTER, Company, Routing

RANKS = {0: 4, 1: 2, 3: 8}  # slot 2 belongs to an adapter that leaves this layer alone
IN, OUT = 12, 20


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_layer(bias: bool = True, trained: bool = True, dropout: float = 0.0) -> LoRALinear:
    linear = Linear(IN, OUT, bias=bias).requires_grad_(False)
    for seed, parameter in enumerate(linear.parameters()):
        parameter.normal_(generator=generator(seed))
    layer = LoRALinear.from_linear(linear)
    for slot, rank in RANKS.items():
        config = LoRAConfig(rank, alpha=3.0 + slot, dropout=dropout)
        layer.adapters[slot] = LowRank.fresh(IN, OUT, config, generator(slot))
        if trained:
            layer.adapters[slot].b.data.normal_(generator=generator(10 + slot))
    return layer


def inputs(rows: int) -> Tensor:
    return torch.randn(rows, 5, IN, generator=generator(7))


def loop(layer: LoRALinear, x: Tensor, routing: Routing) -> Tensor:
    """The formula of the module's docstring, word for word."""
    rows = []
    for b in range(x.shape[0]):
        y = x[b] @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        for slot, gate in zip(routing.adapter_ids[b].tolist(), routing.gates[b].tolist(), strict=True):
            if slot in layer.adapters:
                part = layer.adapters[slot]
                y = y + gate * part.scale * (x[b] @ part.a.T @ part.b.T)
        rows.append(y)
    return torch.stack(rows)


def update(layer: Adapted, slot: int) -> Tensor:
    part = layer.adapters[slot]
    return part.scale * (part.b.float() @ part.a.float())


def mixture(ids: list[list[int]], gates: list[list[float]]) -> Routing:
    return Routing(torch.tensor(ids), torch.tensor(gates))


@pytest.mark.parametrize(
    "routing",
    [
        pytest.param(Routing.one_per_row([1, 1, 1]), id="one adapter"),
        pytest.param(Routing.one_per_row([3, 0, 1]), id="three adapters of three ranks"),
        pytest.param(Routing.one_per_row([NO_ADAPTER, 3, 0]), id="a bare row"),
        pytest.param(Routing.one_per_row([2, 1, 2]), id="an adapter without this layer"),
        pytest.param(Routing.one_per_row([2, 2, 2]), id="only an adapter without this layer"),
        pytest.param(Routing.one_per_row([NO_ADAPTER] * 3), id="only bare rows"),
        pytest.param(mixture([[1], [1], [1]], [[0.5], [1.0], [2.0]]), id="one adapter, gated"),
        pytest.param(
            mixture([[0, 1], [3, 0], [1, 3]], [[0.3, 0.7], [1.0, 0.5], [0.0, 2.0]]), id="two per row"
        ),
        pytest.param(
            mixture([[0, NO_ADAPTER], [2, 1], [NO_ADAPTER] * 2], [[0.3, 0.7], [0.4, 0.6], [1, 1]]),
            id="two per row, some missing, gates of NO_ADAPTER not zero",
        ),
        pytest.param(mixture([[1, 1], [1, 1], [3, 3]], [[0.3, 0.7]] * 3), id="the same adapter twice"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_loop(routing: Routing, bias: bool) -> None:
    layer, x = make_layer(bias), inputs(3)
    torch.testing.assert_close(layer(x, routing), loop(layer, x, routing), atol=1e-5, rtol=1e-5)


def at_once(layer: LoRALinear, x: Tensor, routing: Routing) -> Tensor:
    """As a GPU does it."""
    joint = layer._together(routing, x.shape[1])
    assert joint is not None
    owned = routing.owned(joint.ranks)
    return infer_together(layer.weight, layer.bias, joint.factors, owned, x.dtype)(x)


@pytest.mark.parametrize(
    "routing",
    [
        Routing.one_per_row([3, 0, 1]),
        Routing.one_per_row([NO_ADAPTER, 3, 0]),
        mixture([[0, 1], [3, 0], [1, 3]], [[0.3, 0.7], [1.0, 0.5], [0.0, 2.0]]),
        mixture([[0, NO_ADAPTER], [2, 1], [NO_ADAPTER] * 2], [[0.3, 0.7], [0.4, 0.6], [1, 1]]),
    ],
    ids=["three", "a bare row", "mixtures", "a mixture beside a bare row"],
)
@torch.no_grad()
def test_all_adapters_at_once_equal_the_loop(routing: Routing) -> None:
    layer, x = make_layer(), inputs(3)
    found = at_once(layer, x, routing)
    torch.testing.assert_close(found, loop(layer, x, routing), atol=1e-5, rtol=1e-5)
    bare = [row for row, route in enumerate(routing.routes) if not route]
    assert torch.equal(found[bare], layer.plain()(x)[bare])


@torch.no_grad()
def test_what_was_joined_serves_the_batches_that_follow() -> None:
    layer, x, company = make_layer(), inputs(3), Company()
    joints = []
    for slots in ([0, 1, 1], [1, 0, NO_ADAPTER], [3, 1, 0], [0, 3, 3]):
        routing = company.joined_by(Routing.one_per_row(slots))
        torch.testing.assert_close(at_once(layer, x, routing), loop(layer, x, routing), atol=1e-5, rtol=1e-5)
        joints.append(layer._together(routing, 5))
    assert joints[0] is joints[1] and joints[2] is joints[3] is not joints[0]


@torch.no_grad()
def test_adapters_are_joined_where_that_pays() -> None:
    layer = make_layer()
    assert layer._together(Routing.one_per_row([1, 1, NO_ADAPTER]), 1) is None  # one adapter
    assert layer._together(Routing.one_per_row([0, 1, 3]), 1) is not None
    assert layer._together(Routing.one_per_row([0, 1, 3]), 5000) is None  # 14 ranks of 32 numbers for 240
    assert layer._together(Routing.one_per_row([0, 1, 1]), 5000) is not None


def test_each_row_of_a_mixed_batch_is_as_if_alone() -> None:
    layer, x = make_layer(), inputs(4)
    slots = [0, 3, 1, 0]
    mixed = layer(x, Routing.one_per_row(slots))
    for row, slot in enumerate(slots):
        alone = layer(x[row : row + 1], Routing.one_per_row([slot]))
        torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_bare_rows_of_a_mixed_batch_are_the_backbone_bit_for_bit() -> None:
    layer, x = make_layer(), inputs(3)
    mixed = layer(x, Routing.one_per_row([0, NO_ADAPTER, 3]))
    assert torch.equal(mixed[1], layer(x)[1])
    assert not torch.equal(mixed[0], layer(x)[0])


@pytest.mark.parametrize("slots", [[1, 1, 1], [0, 1, 3], [0, NO_ADAPTER, 3]])
def test_fresh_adapters_are_the_backbone_bit_for_bit(slots: list[int]) -> None:
    layer, x = make_layer(trained=False), inputs(3)
    plain = layer.plain()
    assert torch.equal(layer(x, Routing.one_per_row(slots)), plain(x))


def test_without_routing_it_is_the_plain_layer_bit_for_bit() -> None:
    layer, x = make_layer(), inputs(3)
    assert torch.equal(layer(x), layer.plain()(x))


def test_to_linear_undoes_from_linear() -> None:
    linear = Linear(IN, OUT)
    back = LoRALinear.from_linear(linear).plain()
    assert type(back) is Linear
    assert back.weight is linear.weight
    assert back.bias is linear.bias
    assert (back.in_features, back.out_features) == (IN, OUT)


@pytest.mark.parametrize("training", [True, False])
def test_conversions_keep_the_mode(training: bool) -> None:
    layer = LoRALinear.from_linear(Linear(IN, OUT).train(training))
    assert layer.training is layer.plain().training is training


@pytest.mark.parametrize("slot", [0, 1, 3])
def test_merged_equals_unmerged(slot: int) -> None:
    layer, x = make_layer(), inputs(2)
    before = layer.weight.clone()
    merged = layer.plain(update(layer, slot))(x)
    torch.testing.assert_close(merged, layer(x, Routing.one_per_row([slot] * 2)), atol=1e-5, rtol=1e-5)
    assert (merged - layer(x)).abs().max() > 0.1  # the adapter does change something
    assert torch.equal(layer.weight, before)


def test_without_an_update_the_weight_is_the_same_object() -> None:
    layer = make_layer()
    assert layer.plain().weight is layer.weight


@pytest.mark.parametrize("kind", ["layer", "token"])
def test_gates_weigh_the_adapters_of_their_owner_only(kind: str) -> None:
    layer, x = make_layer(), inputs(3)
    routing = mixture([[0, 1, 3], [1, 0, NO_ADAPTER], [3, 0, 1]], [[1.0, 0.7, 0.3], [1, 1, 0], [1, 1, 1]])
    shape = (3,) if kind == "layer" else (3, IN)
    layer.gates[0] = Gate(nn.Parameter(torch.randn(shape, generator=generator(5))))
    found, plain = layer(x, routing), loop(layer, x, routing)
    torch.testing.assert_close(found[1:], plain[1:])
    expected = x[0] @ layer.weight.T + layer.bias
    for position, vector in enumerate(x[0]):
        if kind == "layer":
            weights = torch.tensor([1.0, 0.7, 0.3]) * layer.gates[0].weight
        else:
            scores = layer.gates[0].weight @ vector + torch.tensor([1.0, 0.7, 0.3]).log()
            weights = 2.0 * scores.softmax(0)
        for slot, weight in zip((0, 1, 3), weights, strict=True):
            expected[position] += weight * (update(layer, slot) @ vector)
    torch.testing.assert_close(found[0], expected)


def test_untrained_gates_leave_the_weights_of_the_routing() -> None:
    routing = mixture([[0, 1], [0, NO_ADAPTER]], [[1.0, 0.4], [1.0, 0.0]])
    for gate in (torch.ones(2), torch.zeros(2, IN)):
        layer, x = make_layer(), inputs(2)
        layer.gates[0] = Gate(nn.Parameter(gate))
        torch.testing.assert_close(layer(x, routing), loop(layer, x, routing))


def test_no_gradient_reaches_what_is_borrowed() -> None:
    layer, x = make_layer(), inputs(2)
    layer(x, mixture([[0, 1], [3, 0]], [[1.0, 0.5], [1.0, 0.5]])).sum().backward()
    assert layer.adapters[1].b.grad is None or not layer.adapters[1].b.grad.any()
    assert layer.adapters[0].b.grad is not None and layer.adapters[0].b.grad.any()
    alone = make_layer()
    alone(x, mixture([[0, NO_ADAPTER], [3, NO_ADAPTER]], [[1.0, 0], [1, 0]])).sum().backward()
    torch.testing.assert_close(layer.adapters[0].b.grad, alone.adapters[0].b.grad)


def test_merges_a_half_precision_layer_in_float32() -> None:
    layer = make_layer()
    change = update(layer, 0)
    exact = layer.weight.half().float() + change
    layer.half()
    assert torch.equal(layer.plain(change).weight, exact.half())


def test_model_state_holds_no_adapter() -> None:
    assert set(make_layer().state_dict()) == {"weight", "bias"}


def gradients(layer: LoRALinear, x: Tensor, routing: Routing) -> dict[int, Tensor | None]:
    layer(x, routing).square().sum().backward()
    found = {slot: part.a.grad for slot, part in layer.adapters.items()}
    for part in layer.adapters.values():
        part.a.grad = part.b.grad = None
    return found


def test_gradients_of_a_mixed_batch_are_those_of_each_row_alone() -> None:
    layer, x = make_layer(), inputs(3)
    mixed = gradients(layer, x, Routing.one_per_row([3, 1, NO_ADAPTER]))
    for row, slot in enumerate([3, 1]):
        alone = gradients(layer, x[row : row + 1], Routing.one_per_row([slot]))[slot]
        torch.testing.assert_close(mixed[slot], alone, atol=1e-3, rtol=1e-5)
    assert mixed[0] is None  # not in the batch: the optimiser has nothing to do


@pytest.mark.parametrize("slots", [[0, 0], [0, 3]])
def test_dropout_acts_in_training_only(slots: list[int]) -> None:
    layer, x = make_layer(dropout=0.5), inputs(2)
    routing = Routing.one_per_row(slots)
    layer.eval()
    expected = layer(x, routing)
    torch.testing.assert_close(expected, loop(layer, x, routing), atol=1e-5, rtol=1e-5)
    layer.train()
    torch.manual_seed(0)
    many = torch.stack([layer(x, routing) for _ in range(2000)])
    assert many.std(0).mean() > 0.5
    torch.testing.assert_close(many.mean(0), expected, atol=0.5, rtol=0.05)


def test_dropout_of_one_adapter_spares_the_rows_of_another() -> None:
    layer, x = make_layer(), inputs(3)
    layer.adapters[0].dropout = 0.9
    layer.train()
    routing = Routing.one_per_row([0, 1, NO_ADAPTER])
    torch.testing.assert_close(layer(x, routing)[1:], loop(layer, x, routing)[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: LoRAConfig(rank=0), "0"),
        (lambda: LoRAConfig(modules=("q", "gate")), "gate"),
        (lambda: LoRAConfig(modules=()), "choose from q, k, v"),
        (lambda: LoRAConfig(dropout=1.0), "1.0"),
    ],
)
def test_refuses_an_impossible_shape(make: Callable[[], LoRAConfig], value: str) -> None:
    with pytest.raises(UsageError, match=value):
        make()


def test_scale_is_alpha_over_rank() -> None:
    assert LoRAConfig(rank=8, alpha=16).scale == 2.0


@pytest.mark.parametrize("positions", [1, 40], ids=["few positions", "many"])
@pytest.mark.parametrize("kind", [None, "layer", "token"])
def test_inference_computes_what_training_does(positions: int, kind: str | None) -> None:
    layer = make_layer()
    x = torch.randn(4, positions, IN, generator=generator(7))
    routing = mixture(
        [[0, 1], [1, 3], [NO_ADAPTER, NO_ADAPTER], [3, 2]], [[1.0, 0.5], [0.3, 0.7], [0, 0], [1, 1]]
    )
    if kind:
        shape = (2,) if kind == "layer" else (2, IN)
        layer.gates[1] = Gate(nn.Parameter(torch.randn(shape, generator=generator(5))))
    expected = layer(x, routing).detach()
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, routing), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "slots",
    [
        [0, 0, 1, 1, 3, 3],
        [0, 1, 0, 3, 3, 1],
        [0, 0, 0, 1, 3, NO_ADAPTER],
        [0, 0, 0, 0, 0, 1],
        [2, 0, 1, 2, 3, 0],
    ],
    ids=["equal groups", "scattered", "filled up", "one prevails", "without this layer"],
)
def test_inference_with_groups_of_any_size_is_the_loop(slots: list[int]) -> None:
    layer, routing = make_layer(), Routing.one_per_row(slots)
    x = torch.randn(len(slots), 1, IN, generator=generator(7))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, routing), loop(layer, x, routing), atol=1e-4, rtol=1e-4)
        rows = torch.tensor([1, 3, 4])
        fewer = routing.index_select(rows)
        torch.testing.assert_close(layer(x[rows], fewer), loop(layer, x[rows], fewer), atol=1e-4, rtol=1e-4)


def test_what_a_layer_keeps_for_a_batch_serves_the_rows_that_stay() -> None:
    layer, x = make_layer(), inputs(3)
    routing = Routing.one_per_row([0, 1, 3])
    with torch.inference_mode():
        whole = layer(x, routing)
        kept = routing.memory[layer]
        rows = torch.tensor([2, 0])
        fewer = routing.index_select(rows)
        torch.testing.assert_close(layer(x[rows], fewer), whole[rows])
        assert fewer.memory[layer] is kept and len(kept) == 3
        beams = fewer.repeat_interleave(2)
        torch.testing.assert_close(
            layer(x[rows].repeat_interleave(2, 0), beams), whole[rows].repeat_interleave(2, 0)
        )


def test_training_keeps_nothing() -> None:
    layer, routing = make_layer(), Routing.one_per_row([0, 1])
    layer(inputs(2), routing)
    assert not routing.memory


# --- Convolutions -----------------------------------------------------------------------------------------


def make_convolution(stride: int, trained: bool = True) -> LoRAConvolution:
    convolution = Convolution(IN, OUT, stride).requires_grad_(False)
    for seed, parameter in enumerate(convolution.parameters()):
        parameter.normal_(generator=generator(seed))
    layer = LoRAConvolution.from_convolution(convolution)
    for slot, rank in RANKS.items():
        config = LoRAConfig(rank, alpha=3.0 + slot)
        part = LowRank.fresh(layer.in_features, layer.out_features, config, generator(slot))
        if trained:
            part.b.data.normal_(generator=generator(10 + slot))
        layer.adapters[slot] = part
    return layer


def frames(rows: int) -> Tensor:
    return torch.randn(rows, IN, 8, generator=generator(7))


@pytest.mark.parametrize("stride", [1, 2])
def test_each_row_of_a_convolution_has_its_own_kernel(stride: int) -> None:
    layer, x = make_convolution(stride), frames(4)
    found = layer(x, Routing.one_per_row([0, NO_ADAPTER, 3, 2]))
    for row, slot in enumerate([0, None, 3, None]):
        plain = layer.plain(None if slot is None else update(layer, slot))
        torch.testing.assert_close(found[row], plain(x)[row], atol=1e-4, rtol=1e-4)
    assert torch.equal(found[1], layer.plain()(x)[1])
    assert (found[0] - layer(x)[0]).abs().max() > 0.1


@pytest.mark.parametrize("slots", [[1, 1], [0, NO_ADAPTER]])
def test_a_fresh_adapter_leaves_a_convolution_bit_for_bit(slots: list[int]) -> None:
    layer, x = make_convolution(2, trained=False), frames(2)
    assert torch.equal(layer(x, Routing.one_per_row(slots)), layer.plain()(x))


def test_gradients_of_a_convolution_are_those_of_its_merged_kernel() -> None:
    layer, x = make_convolution(2), frames(2).requires_grad_()
    part = layer.adapters[3]
    layer(x, Routing.one_per_row([3, 3])).square().sum().backward()
    found, x_grad = part.a.grad, x.grad
    part.a.grad, x.grad = None, None
    kernel = layer.weight + (part.scale * part.b @ part.a).view_as(layer.weight)
    nn.functional.conv1d(x, kernel, layer.bias, stride=2, padding=1).square().sum().backward()
    torch.testing.assert_close(found, part.a.grad, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(x_grad, x.grad, atol=1e-2, rtol=1e-4)


def test_plain_undoes_from_convolution() -> None:
    convolution = Convolution(IN, OUT, 2).eval()
    back = LoRAConvolution.from_convolution(convolution).plain()
    assert type(back) is Convolution
    assert back.weight is convolution.weight
    assert back.bias is convolution.bias
    assert (back.stride, back.training) == (convolution.stride, False)
