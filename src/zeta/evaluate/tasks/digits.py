"""Images: handwritten digits, 8×8 pixels, for a network of rows and a convolutional one."""

from functools import cache
from typing import TYPE_CHECKING

from zeta.evaluate.tasks.gated import GatedTask, gated_layers
from zeta.evaluate.tasks.task import Array, Budget, MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import nn


@cache
def _load() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _load_images() -> tuple[Array, Array]:
    x, y = _load()
    return x.reshape(-1, 1, 8, 8), y


def _convolutional(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, shape.width, 3, padding=1),
        make_activation(),
        nn.Conv2d(shape.width, shape.width, 3, stride=2),
        make_activation(),
        nn.Flatten(-3),
        nn.Linear(9 * shape.width, shape.outputs),
    )


digits = Task(
    name="digits",
    title="10 handwritten digits from 8×8 pixels, 1797 images (scikit-learn's digits)",
    kind="classification",
    load=_load,
    budget=Budget(epochs=20, batch_size=32, width=32),
)

digits_conv = Task(
    name="digits_conv",
    title="the same handwritten digits, by a convolutional network",
    kind="classification",
    load=_load_images,
    budget=Budget(epochs=10, batch_size=64, width=12),
    network=_convolutional,
    dataset="digits",
)

digits_gated = GatedTask(
    name="digits_gated",
    title="the same handwritten digits, by two hidden layers of gated units",
    kind="classification",
    load=_load,
    budget=Budget(epochs=20, batch_size=32, width=32),
    network=gated_layers,
    dataset="digits",
)
