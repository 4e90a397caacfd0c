"""`GatedTask`: a task whose network has gated units, so that gates can be candidates."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zeta.evaluate.tasks.task import MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GatedTask(Task):
    """A :class:`Task` whose network takes gates, ``swiglu`` say, beside activations.

    ``make_activation`` then gives a :class:`zeta.nn.GatedUnit` of a gate, and as ever a module of
    one input of an activation, which :func:`zeta.evaluate.tasks.gated_unit` makes a gate of.

    Example:
        >>> from zeta.evaluate import tasks
        >>> isinstance(tasks.get("letters_gated"), tasks.GatedTask)
        True
    """


def gated_unit(unit: "nn.Module") -> "nn.Module":
    """``activation(gate)·value`` on the two halves of the last dimension; a gate as it is.

    As Shazeer has it (2020, "GLU variants improve transformer").

    Args:
        unit: what ``make_activation`` of a :class:`GatedTask` gave.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zeta.evaluate.tasks import gated_unit
        >>> gated_unit(nn.ReLU())(torch.tensor([2.0, -1.0, 3.0, 4.0]))
        tensor([6., 0.])
    """
    from zeta.evaluate.blocks import Gate
    from zeta.nn import GatedUnit

    return unit if isinstance(unit, GatedUnit) else Gate(unit)


def gated_layers(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    """Two hidden layers of gated units, as many as do not take more parameters than without gates.

    Example:
        >>> from torch import nn
        >>> from zeta.evaluate.tasks import Shape
        >>> from zeta.evaluate.tasks.gated import gated_layers
        >>> from zeta.evaluate.tasks.task import two_hidden_layers
        >>> shape = Shape(inputs=(8,), outputs=1, width=32)
        >>> networks = [build(shape, nn.SiLU) for build in (two_hidden_layers, gated_layers)]
        >>> [sum(p.numel() for p in network.parameters()) for network in networks]
        [1377, 1324]
    """
    from torch import nn

    (inputs,), outputs, width = shape.inputs, shape.outputs, shape.width
    most = _parameters(inputs, width, width, outputs)
    fits = (h for h in range(width, 1, -1) if _parameters(inputs, 2 * h, h, outputs) <= most)
    hidden = next(fits, 1)
    return nn.Sequential(
        nn.Linear(inputs, 2 * hidden),
        gated_unit(make_activation()),
        nn.Linear(hidden, 2 * hidden),
        gated_unit(make_activation()),
        nn.Linear(hidden, outputs),
    )


def _parameters(inputs: int, made: int, hidden: int, outputs: int) -> int:
    """Of two layers that make so many numbers of which ``hidden`` remain, and of the last layer."""
    return made * (inputs + 1) + made * (hidden + 1) + outputs * (hidden + 1)
