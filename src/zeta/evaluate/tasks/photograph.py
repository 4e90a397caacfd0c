"""Regression by a coordinate network: a photograph's colours from the place in the picture."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.task import Array, Budget, MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import nn

_EVERY = 6  # pixels, across and down


@cache
def _load() -> tuple[Array, Array]:
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("flower.jpg")[::_EVERY, ::_EVERY]
    height, width, _ = pixels.shape
    places = np.indices((height, width)).reshape(2, -1).T
    return places.astype(float), pixels.reshape(-1, 3) / 255


def _coordinate_network(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    (inputs,), width = shape.inputs, shape.width
    hidden = [
        layer
        for size in (inputs, width, width)
        for layer in (nn.Linear(size, width), make_activation())
    ]
    return nn.Sequential(*hidden, nn.Linear(width, shape.outputs))


photograph = Task(
    name="photograph",
    title="a photograph's colours from the place in the picture, 7704 pixels (scikit-learn)",
    kind="regression",
    load=_load,
    budget=Budget(epochs=15, batch_size=64, width=32),
    network=_coordinate_network,
)
