"""An implicit image: a photograph's colours from waves over the picture, by a deeper network."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.photograph import photograph
from zeta.evaluate.tasks.task import Array, Budget, MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import nn

_OCTAVES = 4
_LAYERS = 4


@cache
def _load() -> tuple[Array, Array]:
    """Sines and cosines of the place, each octave twice as fine (Mildenhall et al., 2020)."""
    places, colours = photograph.load()
    angles = np.pi * places / places.max(axis=0)
    octaves = np.concatenate([2**octave * angles for octave in range(_OCTAVES)], axis=1)
    return np.concatenate([np.sin(octaves), np.cos(octaves)], axis=1), colours


def _deep(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    (inputs,), width = shape.inputs, shape.width
    sizes = [inputs, *[width] * (_LAYERS - 1)]
    hidden = [layer for size in sizes for layer in (nn.Linear(size, width), make_activation())]
    return nn.Sequential(*hidden, nn.Linear(width, shape.outputs))


photograph_waves = Task(
    name="photograph_waves",
    title=f"the photograph's colours from waves of {_OCTAVES} octaves over the picture, by "
    f"{_LAYERS} hidden layers, 7704 pixels (scikit-learn)",
    kind="regression",
    load=_load,
    budget=Budget(epochs=15, batch_size=64, width=32),
    network=_deep,
    dataset="photograph",
)
