"""`GatedTask`: a task whose network has gated units, so that gates can be candidates."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zeta.evaluate.tasks.task import Task

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
