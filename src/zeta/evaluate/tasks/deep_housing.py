"""A deep network: the price of houses through twenty hidden layers."""

from dataclasses import replace
from typing import TYPE_CHECKING

from zeta.evaluate.tasks.housing import housing
from zeta.evaluate.tasks.task import Budget, MakeActivation, Shape

if TYPE_CHECKING:
    from torch import nn

_LAYERS = 20


def _deep(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    """Twenty hidden layers of one width, without normalisation or a way around.

    Their weights start as He et al. (2015) have it, for ReLU: with PyTorch's own, which are for no
    activation and half as large, a signal is gone after so many layers, whatever the activation.
    """
    from torch import nn

    def linear(inputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, shape.width)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        return layer

    sizes = [shape.inputs[0], *[shape.width] * (_LAYERS - 1)]
    hidden = [layer for size in sizes for layer in (linear(size), make_activation())]
    return nn.Sequential(*hidden, nn.Linear(shape.width, shape.outputs))


deep_housing = replace(
    housing,
    name="deep_housing",
    title=f"the price of houses again, by {_LAYERS} hidden layers",
    budget=Budget(epochs=3, batch_size=64, width=24),
    network=_deep,
    dataset=housing.name,
)
