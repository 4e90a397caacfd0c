"""Networks that hold everything there is: what exporters, compilers and savers are tested with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cases import GATE_SHARE, SHARE
from zeta._formula import Formula
from zeta.activations import GATES
from zeta.nn import ActivatedLinear, GatedUnit, MixtureOfSoftmaxes
from zeta.ops import selu_softmax

CHANNELS = 6


class EveryActivation(nn.Module):
    """Formulas of the catalogue: each with fixed parameters, and with learned ones per channel."""

    def __init__(self, formulas: Sequence[Formula] = SHARE) -> None:
        super().__init__()
        fixed = {f.name: f.module(learnable=False) for f in formulas}
        learned = {
            f"{f.name}_per_channel": f.module(learnable=True, num_parameters=CHANNELS)
            for f in formulas
            if f.parameters
        }
        self.activations = nn.ModuleDict(fixed | learned)

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        return [f"y_{name}" for name in self.activations]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of x (…, CHANNELS, points), whatever the batch."""
        return tuple(activation(x) for activation in self.activations.values())


class EveryGate(nn.Module):
    """Gates of the catalogue on one packed tensor: fixed, and in turn with what is learned."""

    def __init__(self) -> None:
        super().__init__()
        fixed = {f.name: GatedUnit(f) for f in GATE_SHARE}
        learned = {
            f"{f.name}_learned": GatedUnit(f, layout="interleaved", learnable=True)
            for f in GATE_SHARE
        }
        self.gates = nn.ModuleDict(fixed | learned)

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        return [f"y_{name}" for name in self.gates]

    def forward(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Of (…, 2n), whatever the batch."""
        return tuple(gate(packed) for gate in self.gates.values())


class EveryHead(nn.Module):
    """`selu_softmax` and the mixture's two decoders, probabilities and log-probabilities."""

    names = ("selu_softmax", "separate", "separate_log", "shared", "shared_log")

    def __init__(self) -> None:
        super().__init__()
        self.separate = MixtureOfSoftmaxes(3, CHANNELS, 11)
        self.shared = MixtureOfSoftmaxes(3, CHANNELS, 11, decoder="shared")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of x (…, CHANNELS)."""
        return (
            selu_softmax(x, dim=-1),
            self.separate(x),
            self.separate.log_prob(x),
            self.shared(x),
            self.shared.log_prob(x),
        )


class GatedBlock(nn.Sequential):
    """The feed-forward block of today's language models, and one of one input."""

    def __init__(self) -> None:
        gated = ActivatedLinear(10, CHANNELS, GATES["swiglu"], bias=False)
        plain = ActivatedLinear(12, CHANNELS, SHARE[0], learnable=True)
        super().__init__(nn.Linear(CHANNELS, 20), gated, nn.Linear(CHANNELS, 12), plain)


class Classifier(nn.Module):
    """A small network as one would train it: the documents' activations, then the mixture."""

    def __init__(self) -> None:
        super().__init__()
        activations = [f.module(learnable=True, num_parameters=16) for f in SHARE[:3]]
        layers = [layer for a in activations for layer in (nn.Linear(16, 16), a)]
        self.body = nn.Sequential(*layers)
        self.head = MixtureOfSoftmaxes(3, 16, 10, decoder="shared")

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of x (N, 16)."""
        return self.head.log_prob(self.body(x))


def points(batch: int) -> Tensor:
    """For `EveryActivation`: the moderate and both tails, with the largest and the smallest."""
    info = torch.finfo(torch.float32)
    tails = [0.0, 1e-20, 1e-8, 1e-6, 1e-4, 20, 50, 88, 95, 1e4, info.max, info.smallest_normal]
    magnitudes = torch.cat([torch.linspace(1e-3, 12, 800), torch.tensor(tails)])
    return torch.cat([magnitudes, -magnitudes]).expand(batch, CHANNELS, -1).contiguous()


def gate_points(batch: int) -> Tensor:
    """For `EveryGate`: pairs of moderate numbers, of tails and of the tiniest."""
    numbers = torch.tensor([1e-30, 1e-6, 0.02, 0.4, 1.0, 3.3, 8.0, 20.0, 60.0])
    numbers = torch.cat([numbers, -numbers])
    return torch.cartesian_prod(numbers, numbers).T.reshape(1, -1).repeat(batch, 1)
