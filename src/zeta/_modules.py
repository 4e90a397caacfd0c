"""What the modules of formulas have in common, in PyTorch, Flax and Keras."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zeta import activations
from zeta._formula import Formula

# Which parameters are trained, and how many values each has; see `parameter_counts`.
Learnable = bool | Iterable[str] | None
Counts = int | Mapping[str, int]

#: The documents' activations: formulas with a class of their own, named alike in every framework.
CLASSES = {
    "exo": "Exo",
    "learnable_selu_variation": "LearnableSELUVariation",
    "laplace": "LaplaceActivation",
}
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


def starting_values(
    formula: Formula, values: Mapping[str, float | Sequence[float]] | None
) -> dict[str, Any]:
    """Every parameter's starting value, a number or a vector's tuple of numbers.

    Raises:
        TypeError: an unknown parameter name, or a value that is no number.
        ValueError: a vector of another length.
    """
    return {
        name: tuple(map(float, value)) if name in formula.vectors else float(value)
        for name, value in formula.bind(**(values or {})).items()
    }


def parameter_counts(formula: Formula, num_parameters: Counts) -> dict[str, int]:
    """How many values each parameter has: 1, one per group of channels, or one per channel.

    Raises:
        TypeError: the name of no parameter.
        ValueError: a number below 1.
    """
    given = num_parameters if isinstance(num_parameters, Mapping) else {}
    if unknown := [name for name in given if name not in formula.parameters]:
        raise TypeError(
            f"{formula.name}: num_parameters has {unknown[0]!r}, which is not a parameter; "
            f"it has {', '.join(formula.parameters) or 'none'}"
        )
    every = 1 if isinstance(num_parameters, Mapping) else num_parameters
    for count in (every, *given.values()):
        if operator.index(count) < 1:
            raise ValueError(f"num_parameters must be at least 1, got {count}")
    return dict.fromkeys(formula.parameters, every) | dict(given)


def parameter_shape(formula: Formula, name: str, count: int) -> tuple[int, ...]:
    """The shape of a parameter with so many values: a vector's length comes first."""
    length = formula.vectors.get(name)
    return (*(() if length is None else (length,)), *(() if count == 1 else (count,)))


def which_learned(formula: Formula, learnable: Learnable) -> bool | tuple[str, ...]:
    """What was asked for: True for all parameters, False for none, or their names.

    Raises:
        TypeError: the name of no parameter.
    """
    names = formula.learned(learnable)
    if isinstance(learnable, bool):
        return learnable
    return len(names) > 0 if len(names) in (0, len(formula.parameters)) else names


def channel_shape(
    shape: Sequence[int], channel_dim: int, num_parameters: int, module: str
) -> list[int]:
    """The shape in which one value per channel broadcasts over an input of this ``shape``.

    Args:
        shape: the input's.
        channel_dim: the dimension of channels.
        num_parameters: how many values there are: the number of channels, or of groups of them.
        module: its name, for messages.

    Raises:
        ValueError: the input has no such dimension, or its channels make no equal groups.
    """
    dims = len(shape)
    if not -dims <= channel_dim < dims:
        raise ValueError(
            f"{module}: channel_dim={channel_dim} needs an input that has this dimension, "
            f"got shape {tuple(shape)}"
        )
    if shape[channel_dim] % num_parameters:
        raise ValueError(
            f"{module}: expected {num_parameters} channels in dimension {channel_dim}, got "
            f"{shape[channel_dim]} (input shape {tuple(shape)}); of groups, a multiple of them"
        )
    own = [1] * dims
    own[channel_dim] = shape[channel_dim]
    return own


def given_or_own(own: Callable[[], dict[str, Any]], **given: Any) -> dict[str, Any]:
    """Every parameter's value: what a call gave, and the module's ``own`` for the rest."""
    values = {name: value for name, value in given.items() if value is not None}
    return values if len(values) == len(given) else own() | values


class IsMatched:
    """Marks what surgery put into a model around the ``activation`` that it stands for."""

    activation: Any
