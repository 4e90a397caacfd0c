"""Colour images: pieces of two photographs, by a residual network with batch normalisation."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.task import Array, Budget, MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import nn

_SIDE = 8  # pixels of a piece, across and down; pieces do not overlap
_BLOCKS = 3
_QUARTERS = 4  # of a photograph: upper left and right, lower left and right


@cache
def _load() -> tuple[Array, Array]:
    """Every second piece, as on a chess board, and which photograph's which quarter it is from."""
    from sklearn.datasets import load_sample_images

    x, y = [], []
    for number, photograph in enumerate(load_sample_images().images):
        rows, columns = (size // _SIDE for size in photograph.shape[:2])
        pixels = photograph[: rows * _SIDE, : columns * _SIDE].reshape(
            rows, _SIDE, columns, _SIDE, 3
        )
        row, column = np.indices((rows, columns))
        quarter = 2 * (2 * row >= rows) + (2 * column >= columns)
        chosen = (row + column) % 2 == 0
        x.append(pixels.transpose(0, 2, 4, 1, 3)[chosen])
        y.append((_QUARTERS * number + quarter)[chosen])
    return np.concatenate(x).astype(np.float32), np.concatenate(y)


def _residual(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    from zeta.evaluate.blocks import Residual

    width = shape.width

    def convolution(channels: int) -> list[nn.Module]:
        # The normalisation's shift is the bias.
        same_size = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        return [same_size, nn.BatchNorm2d(width)]

    def block() -> list[nn.Module]:
        inner = *convolution(width), make_activation(), *convolution(width)
        return [Residual(*inner), make_activation()]

    blocks = [layer for _ in range(_BLOCKS) for layer in block()]
    return nn.Sequential(
        *convolution(shape.inputs[0]),
        make_activation(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(-3),
        nn.Linear(width, shape.outputs),
    )


patches = Task(
    name="patches",
    title="which quarter of which of two photographs a piece of 8×8 pixels in colour is from, 4240 "
    "pieces (scikit-learn), by a residual network with batch normalisation; training and test "
    "pieces are of the same photographs",
    kind="classification",
    load=_load,
    budget=Budget(epochs=3, batch_size=16, width=8),
    network=_residual,
    dataset="photograph",
)
