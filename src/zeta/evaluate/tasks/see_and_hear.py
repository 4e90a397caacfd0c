"""Two senses: the same digit written and spoken."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks import spoken_digits
from zeta.evaluate.tasks.digits import digits
from zeta.evaluate.tasks.task import Array, Budget, MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

_PIXELS = 64
_NOISE = 1.5  # standard deviations, so that one sense alone does not do


@cache
def _load() -> tuple[Array, Array]:
    """Each written digit with a recording of its own: pixels, then coefficients, in noise."""
    images, written = digits.load()
    recordings, spoken = spoken_digits.load()
    pairs = []
    for digit in np.unique(written):
        seen, heard = np.flatnonzero(written == digit), np.flatnonzero(spoken == digit)
        both = min(len(seen), len(heard))
        pairs.append(np.stack([seen[:both], heard[:both]], axis=1))
    rows = np.concatenate(pairs)
    senses = (images[rows[:, 0]], recordings[rows[:, 1]].reshape(len(rows), -1))
    rng = np.random.default_rng(0)
    noisy = [s + _NOISE * s.std(axis=0) * rng.standard_normal(s.shape) for s in senses]
    return np.concatenate(noisy, axis=1).astype(np.float32), written[rows[:, 0]]


def _two_branches(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    import torch
    from torch import nn

    from zeta.evaluate.blocks import Block

    class SeeAndHear(Block):
        """A branch for each sense; what they say is joined and read together."""

        def __init__(self) -> None:
            super().__init__()
            (inputs,) = shape.inputs
            self.see = nn.Sequential(nn.Linear(_PIXELS, shape.width), make_activation())
            self.hear = nn.Sequential(nn.Linear(inputs - _PIXELS, shape.width), make_activation())
            self.join = nn.Sequential(
                nn.Linear(2 * shape.width, shape.width),
                make_activation(),
                nn.Linear(shape.width, shape.outputs),
            )

        def forward(self, x: "Tensor") -> "Tensor":
            seen, heard = self.see(x[..., :_PIXELS]), self.hear(x[..., _PIXELS:])
            joined: Tensor = self.join(torch.cat([seen, heard], dim=-1))
            return joined

    return SeeAndHear()


see_and_hear = Task(
    name="see_and_hear",
    title="a digit seen and heard, both in noise: scikit-learn's images paired with the Free "
    "Spoken Digits",
    kind="classification",
    load=_load,
    budget=Budget(epochs=8, batch_size=32, width=32),
    network=_two_branches,
    missing=spoken_digits.missing,
    dataset="digits",
    tells_apart=False,
)
