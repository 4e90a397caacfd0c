"""Transfer: a network trained with ReLU, fine-tuned with another activation in its place."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from zeta.evaluate.tasks.digits import digits
from zeta.evaluate.tasks.task import (
    Array,
    Budget,
    MakeActivation,
    Shape,
    Task,
    two_hidden_layers,
)

if TYPE_CHECKING:
    from torch import nn

_EPOCHS, _BATCH, _LEARNING_RATE = 10, 32, 0.003  # of the training that comes before


def _digits(first: int, last: int) -> tuple[Array, Array]:
    x, y = digits.load()
    chosen = (first <= y) & (y <= last)
    return x[chosen], y[chosen] - first


def _load() -> tuple[Array, Array]:
    return _digits(5, 9)


@dataclass(frozen=True)
class Transfer(Task):
    """A :class:`Task` whose networks come trained, with ReLU, on the digits 0 to 4."""

    def build(self, shape: Shape, make_activation: MakeActivation, seed: int) -> "nn.Module":
        """The trained hidden layers, another activation between them, and a fresh last layer."""
        network: Any = super().build(shape, make_activation, seed)
        for layer, weights in _trained(shape, seed).items():
            network[layer].load_state_dict(weights)
        built: nn.Module = network
        return built


@cache
def _trained(shape: Shape, seed: int) -> dict[int, Any]:
    """The hidden layers' weights after training with ReLU, by their place in the network."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    pixels, labels = _digits(0, 4)
    x = torch.tensor((pixels - pixels.mean(0)) / np.maximum(pixels.std(0), 1e-3)).float()
    y = torch.tensor(labels)
    torch.manual_seed(seed)
    network: Any = two_hidden_layers(shape, nn.ReLU)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, fused=True)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(x)).split(_BATCH):
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return {place: network[place].state_dict() for place in (0, 2)}


transfer = Transfer(
    name="transfer",
    title="the digits 5 to 9 by a network that was trained with ReLU on 0 to 4 and fine-tuned with "
    "the activation in its place, 896 images (scikit-learn's digits)",
    kind="classification",
    load=_load,
    budget=Budget(epochs=10, batch_size=32, width=32),
    dataset="digits",
    tells_apart=False,
)
