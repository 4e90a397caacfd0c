"""Networks that train together are the networks that train alone, to rounding."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from zeta import activations
from zeta.evaluate.blocks import Block, CausalAttention, LastPlace, Places, Residual
from zeta.evaluate.stack import Alone, Stack, networks_of
from zeta.nn import Exo, GatedUnit, LaplaceActivation, LearnableSELUVariation

RATES = [0.001, 0.01, 0.01, 0.003]
S, B = len(RATES), 6


def perceptron(make_activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 8), make_activation(), nn.Linear(8, 8, bias=False), make_activation(),
        nn.Linear(8, 3),
    )  # fmt: skip


def convolutional(make_activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(-1, (1, 5)), nn.Conv1d(1, 4, 3, padding="same", dilation=2), make_activation(),
        nn.Conv1d(4, 4, 3, stride=2, padding=1, bias=False), make_activation(), nn.Flatten(-2),
        nn.Linear(12, 3),
    )  # fmt: skip


class OwnForward(nn.Module):
    """A module of a user's own, with a buffer."""

    def __init__(self, make_activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 5), make_activation(), nn.Linear(5, 5))
        self.outer = nn.Linear(5, 3)
        self.register_buffer("shift", torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(x + self.inner(x + self.shift))


def shared(make_activation: Callable[[], nn.Module]) -> nn.Module:
    """The usual way to write one activation for all layers, and a layer that is there twice."""
    activation, layer = make_activation(), nn.Linear(5, 5)
    return nn.Sequential(layer, activation, layer, activation, nn.Linear(5, 3))


def tied(make_activation: Callable[[], nn.Module]) -> nn.Module:
    network = nn.Sequential(
        nn.Linear(5, 5), make_activation(), nn.Linear(5, 5), make_activation(), nn.Linear(5, 3)
    )
    network[2].weight = network[0].weight
    return network


def tied_inside(make_activation: Callable[[], nn.Module]) -> nn.Module:
    network = OwnForward(make_activation)
    network.inner[2].weight = network.inner[0].weight
    return network


def frozen(make_activation: Callable[[], nn.Module]) -> nn.Module:
    network = perceptron(make_activation)
    network[0].requires_grad_(False)
    return network


def normalised(make_activation: Callable[[], nn.Module]) -> nn.Module:
    # No bias before a normalisation: its gradient is a rounding error, which Adam makes a step of.
    return nn.Sequential(
        nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), make_activation(), nn.LayerNorm(8),
        nn.Linear(8, 3),
    )  # fmt: skip


def parametrized(make_activation: Callable[[], nn.Module]) -> nn.Module:
    network = perceptron(make_activation)
    register_parametrization(network[0], "weight", nn.Softplus())
    return network


def hooked(make_activation: Callable[[], nn.Module]) -> nn.Module:
    network = perceptron(make_activation)
    network[0].register_forward_hook(lambda module, inputs, output: 3 * output)
    return network


class Twice(nn.Sequential):
    """A forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def overridden(make_activation: Callable[[], nn.Module]) -> nn.Module:
    return Twice(nn.Linear(5, 8), make_activation(), nn.Linear(8, 3))


def residual(make_activation: Callable[[], nn.Module]) -> nn.Module:
    """Images of 1×5 pixels in two channels."""

    def block() -> nn.Module:
        inner = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(4)
        return Residual(*inner, make_activation(), nn.Conv2d(4, 4, 1, groups=2))

    return nn.Sequential(
        nn.Linear(5, 10), nn.Unflatten(-1, (2, 1, 5)), nn.Conv2d(2, 4, 1, bias=False),
        nn.BatchNorm2d(4, affine=False), block(), nn.Sequential(block(), make_activation()),
        nn.AvgPool2d((1, 2)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class Tokens(nn.Module):
    """Numbers as whole ones from 0 to 3."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-1.4, 1.4).add(2).long()


def transformer(make_activation: Callable[[], nn.Module]) -> nn.Module:
    def block() -> list[nn.Module]:
        mlp = nn.Linear(8, 24), GatedUnit(activations.swiglu), nn.Linear(12, 8), make_activation()
        return [
            Residual(nn.LayerNorm(8), CausalAttention(8, 2)),
            Residual(nn.LayerNorm(8, bias=False), *mlp),
        ]

    return nn.Sequential(
        Tokens(), nn.Embedding(4, 8), Places(5, 8), *block(), *block(), LastPlace(),
        nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 3), nn.LogSoftmax(-1),
    )  # fmt: skip


class OwnAttention(nn.Module):
    """Forward passes of a user's own around layers that are written out."""

    def __init__(self, make_activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.act, self.places = make_activation(), nn.Embedding(5, 4)
        self.embed, self.qkv, self.out = (
            nn.Linear(1, 4),
            nn.Linear(4, 12, bias=False),
            nn.Linear(20, 3),
        )
        self.block = Residual(nn.LayerNorm(4), self.act)  # one activation, held twice
        self.gate = GatedUnit(activations.glu)
        self.attention = nn.MultiheadAttention(4, 2, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.embed(x[..., None]) + self.places(torch.arange(5)))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.block(x) + self.attention(x, x, x, need_weights=False)[0]
        return self.out(self.gate(x, x.flip(0)).flatten(1))


NETWORKS = [
    perceptron, convolutional, OwnForward, shared, residual, transformer, OwnAttention, tied,
    tied_inside, frozen, normalised, parametrized, hooked, overridden,
]  # fmt: skip


def trained(
    of: Callable[[list[nn.Module], list[float]], object], networks: list[nn.Module]
) -> list:
    """Outputs before each of five steps and in scoring, and the parameters after them."""
    networks = copy.deepcopy(networks)
    generator = torch.Generator().manual_seed(0)
    stack, outputs = of(networks, RATES), []
    for _ in range(5):
        x = torch.randn(S, B, 5, generator=generator, dtype=torch.float64)
        target = torch.randn(S, B, 3, generator=generator, dtype=torch.float64)
        outputs.append(stack(x))
        (outputs[-1] - target).square().mean((1, 2)).sum().backward()
        stack.step()
    stack.train(False)
    outputs.append(stack(x))
    return [*outputs, *stack.parameters.values()]


class OneByOne:
    """The same interface over networks that each train alone."""

    def __init__(self, networks: list[nn.Module], rates: list[float]) -> None:
        self.each = [Alone(n, r) for n, r in zip(networks, rates, strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([one(x[s : s + 1]) for s, one in enumerate(self.each)])

    def step(self) -> None:
        for one in self.each:
            one.step()

    def train(self, mode: bool) -> None:
        for one in self.each:
            one.train(mode)

    @property
    def parameters(self) -> dict[str, Tensor]:
        names = self.each[0].parameters
        return {n: torch.cat([one.parameters[n] for one in self.each]) for n in names}


@pytest.mark.parametrize("make_network", NETWORKS)
@pytest.mark.parametrize(
    ("name", "learnable"),
    [("relu", False), ("exo", False), ("exo", True), ("learnable_selu_variation", True)],
)
def test_equal_to_networks_that_train_alone(
    make_network: Callable[..., nn.Module], name: str, learnable: bool
) -> None:
    def make_activation() -> nn.Module:
        return activations.get(name).module(learnable=learnable)

    torch.manual_seed(1)
    networks = [make_network(make_activation).double() for _ in range(S)]
    for together, alone in zip(trained(Stack, networks), trained(OneByOne, networks), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-12)


def test_dropout_draws_for_each_network_and_predicts_without() -> None:
    stack = networks_of(
        [nn.Sequential(nn.Linear(1, 100), nn.Dropout(0.5)) for _ in range(2)], [0.1] * 2
    )
    x = torch.ones(2, 3, 1)
    first, second = (stack(x) == 0).float()
    assert 0.35 < first.mean() < 0.65
    assert not first.equal(second)
    stack.train(False)
    assert (stack(x) != 0).all()


class DoubledInTraining(Block):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.training else x


def test_a_block_knows_whether_it_trains() -> None:
    networks = [nn.Sequential(nn.Linear(1, 2), DoubledInTraining()) for _ in range(2)]
    stack, x = networks_of(networks, [0.1] * 2), torch.ones(2, 3, 1)
    training = stack(x)
    stack.train(False)
    torch.testing.assert_close(training, 2 * stack(x))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.MaxPool1d(2), torch.randn(3, 2, 4, 6)),
        (nn.MaxPool2d(2), torch.randn(3, 2, 4, 6, 6)),
        (nn.Flatten(0, 1), torch.randn(3, 2, 4, 6)),
        (nn.LogSoftmax(0), torch.randn(3, 2, 4)),
        (GatedUnit(activations.swiglu, dim=1, layout="interleaved"), torch.randn(3, 2, 4, 6)),
        (nn.Conv2d(2, 2, 1, padding=1, padding_mode="circular"), torch.randn(3, 2, 2, 4, 4)),
        (nn.Embedding(4, 2, padding_idx=0), torch.randint(4, (3, 2, 5))),
    ],
    ids=lambda value: "" if isinstance(value, Tensor) else type(value).__name__,
)
def test_layers_that_look_elsewhere(layer: nn.Module, x: Tensor) -> None:
    alone = torch.stack([copy.deepcopy(layer)(one) for one in x])
    network = nn.Sequential(layer)
    network.register_parameter("trained", nn.Parameter(torch.ones(())))
    torch.testing.assert_close(Stack([network] * 3, [0.1] * 3)(x), alone)


@pytest.mark.parametrize("make_network", [convolutional, residual, transformer, OwnForward])
def test_nothing_stays_behind_on_the_cpu(make_network: Callable[..., nn.Module]) -> None:
    """Stood for by the device without numbers, which refuses to meet the CPU's."""
    networks = [make_network(LearnableSELUVariation).to("meta") for _ in range(2)]
    stack = Stack(networks, [0.1, 0.2])
    output = stack(torch.zeros(2, 3, 5, device="meta"))
    output.sum().backward()
    assert (
        {p.grad.device.type for p in stack.parameters.values()} == {output.device.type} == {"meta"}
    )


def test_a_network_that_diverges_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    stack = networks_of([nn.Linear(2, 1) for _ in range(2)], [0.1, 0.1])
    x = torch.ones(2, 3, 2)
    x[0] = float("inf")
    for _ in range(2):
        stack(x).square().mean((1, 2)).sum().backward()
        stack.step()
    finite = [p.isfinite().flatten(1).all(1) for p in stack.parameters.values()]
    assert [f.tolist() for f in finite] == [[False, True]] * 2


def test_a_single_network_stays_as_it_is() -> None:
    network = nn.Linear(2, 1)
    alone = networks_of([network], [0.1])
    assert isinstance(alone, Alone)
    x = torch.randn(1, 3, 2)
    torch.testing.assert_close(alone(x), network(x[0])[None], rtol=0, atol=0)


@pytest.mark.parametrize("make_activation", [Exo, LaplaceActivation, LearnableSELUVariation])
def test_zeta_s_activations_keep_their_kernels(
    make_activation: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: nn.Module, state: object) -> None:
        raise AssertionError(f"{module} would lose its kernel in torch.vmap")

    monkeypatch.setattr("zeta.evaluate.stack._vmapped", refuse)
    stack = Stack([perceptron(make_activation) for _ in range(2)], [0.1, 0.1])
    assert stack(torch.zeros(2, 3, 5)).shape == (2, 3, 3)
