"""Activations by name: which classes and functions of which library compute one."""

from typing import Any

from zeta import activations
from zeta._formula import Formula

# Class names, so that no library needs to be imported to recognise its classes.
_CLASSES: dict[str, frozenset[str]] = {
    "relu": frozenset({"ReLU"}),
    "leaky_relu": frozenset({"LeakyReLU"}),
    "elu": frozenset({"ELU"}),
    "selu": frozenset({"SELU"}),
    "gelu": frozenset(
        {
            "GELU",
            "GELUTanh",
            "GELUActivation",
            "BloomGelu",
            "NewGELUActivation",
            "FastGELUActivation",
            "AccurateGELUActivation",
            "QuickGELU",
            "QuickGELUActivation",
        }
    ),
    "silu": frozenset({"SiLU", "SiLUActivation", "Swish", "SwishMe"}),
    "mish": frozenset({"Mish", "MishMe", "MishActivation"}),
    "softplus": frozenset({"Softplus"}),
    "tanh": frozenset({"Tanh"}),
    "sigmoid": frozenset({"Sigmoid"}),
    "hardswish": frozenset({"Hardswish", "HardSwish", "HardSwishMe"}),
    "squared_relu": frozenset({"ReLUSquaredActivation", "SquaredReLU"}),
    "laplace": frozenset({"LaplaceActivation"}),
}

# Functions that take the place of a module, whatever library's.
FUNCTIONS = frozenset(_CLASSES) | {
    *("celu", "hard_silu", "hard_swish", "hard_sigmoid", "hardsigmoid", "hard_tanh", "hardtanh"),
    *("log_sigmoid", "logsigmoid", "prelu", "relu6", "rrelu", "soft_sign", "softsign", "swish"),
}


class IsMatched:
    """Marks every framework's ``Matched``, which stands for the ``activation`` within."""

    activation: Any


def unmatched(value: Any) -> Any:
    """The activation within a ``Matched``; any other value as it is."""
    return unmatched(value.activation) if isinstance(value, IsMatched) else value


def activation_name(value: Any) -> str | None:
    """The name of the activation that a module, a layer or a function computes, if it is known.

    GELU's approximations count as "gelu".

    Example:
        >>> import torch
        >>> from zeta.integrations.names import activation_name
        >>> activation_name(torch.nn.SiLU()), activation_name(torch.nn.Linear(1, 1))
        ('silu', None)
    """
    value = unmatched(value)
    formula = value if isinstance(value, Formula) else getattr(value, "formula", None)
    if isinstance(formula, Formula):
        return formula.name
    class_name = type(value).__name__
    found = next((name for name, classes in _CLASSES.items() if class_name in classes), None)
    if found is None and not isinstance(value, type):
        function = getattr(value, "__name__", None)
        return function if function in FUNCTIONS else None
    return found


def is_known(name: str) -> bool:
    """Whether ``name`` names an activation that can be recognised in a model."""
    return name in _CLASSES or name in activations.CATALOGUE
