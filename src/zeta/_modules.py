"""What the modules of formulas have in common, in PyTorch, Flax and Keras."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from zeta import activations
from zeta._formula import Formula

#: The documents' activations: formulas with a class of their own, named alike in every framework.
CLASSES = {
    "exo": "Exo",
    "learnable_selu_variation": "LearnableSELUVariation",
    "laplace": "LaplaceActivation",
}
# Those that train their parameters; the others keep their documented constants.
LEARNABLE = frozenset({"learnable_selu_variation"})
# The documented constants, by name.
EXO, SELU, LAPLACE = (activations.get(name).parameters for name in CLASSES)


def check_one_input(formula: Formula, where: str) -> None:
    """Raise TypeError if the formula takes more than one tensor."""
    if len(formula.inputs) > 1:
        raise TypeError(
            f"{where} needs a formula of one input, and {formula!r} takes "
            f"{len(formula.inputs)} ({', '.join(formula.inputs)}): call it, use GatedUnit, or "
            "zeta.replace_gates on a PyTorch model"
        )


def check_names(module: Any, formula: Formula, kind: str) -> None:
    """Raise ValueError if a parameter is called like an attribute that the module has already."""
    if taken := [name for name in formula.parameters if hasattr(module, name)]:
        raise ValueError(
            f"{formula!r} cannot be a {kind}: {kind}s have an attribute {taken[0]!r} of their own; "
            "name the parameter otherwise"
        )


def parameter_shape(num_parameters: int) -> tuple[int, ...]:
    """The shape of a parameter that is one value, or one per channel.

    Raises:
        ValueError: num_parameters < 1.
    """
    if operator.index(num_parameters) < 1:
        raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
    return () if num_parameters == 1 else (num_parameters,)


def channel_shape(
    shape: Sequence[int], channel_dim: int, num_parameters: int, module: str
) -> list[int]:
    """The shape in which one value per channel broadcasts over an input of this ``shape``.

    Raises:
        ValueError: the input has no such dimension, or another number of channels.
    """
    dims = len(shape)
    if not -dims <= channel_dim < dims:
        raise ValueError(
            f"{module}: channel_dim={channel_dim} needs an input that has this dimension, "
            f"got shape {tuple(shape)}"
        )
    if shape[channel_dim] != num_parameters:
        raise ValueError(
            f"{module}: expected {num_parameters} channels in dimension {channel_dim}, "
            f"got {shape[channel_dim]} (input shape {tuple(shape)})"
        )
    own = [1] * dims
    own[channel_dim] = num_parameters
    return own


def given_or_own(own: Callable[[], dict[str, Any]], **given: Any) -> dict[str, Any]:
    """Every parameter's value: what a call gave, and the module's ``own`` for the rest."""
    values = {name: value for name, value in given.items() if value is not None}
    return values if len(values) == len(given) else own() | values


class IsMatched:
    """Marks what surgery put into a model around the ``activation`` that it stands for."""

    activation: Any
