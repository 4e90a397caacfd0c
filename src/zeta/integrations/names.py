"""Activations by name: which classes and functions of which library compute one."""

import functools
from typing import Any

from zeta import activations
from zeta._formula import Formula
from zeta._modules import IsMatched

# What torch.nn has beside the catalogue's activations.
_FURTHER = ("glu", "rrelu")

# What a library calls one of these, in the spelling that `_spelling` makes.
_ALIASES = {
    "gelu": {"accurategelu", "bloomgelu", "fastgelu", "geluaccurate", "gelufast", "gelunew"}
    | {"gelupython", "gelupythontanh", "gelupytorchtanh", "gelutanh", "newgelu", "quickgelu"},
    "hardswish": {"hardsilu"},
    "silu": {"swish"},
    "squared_relu": {"relu2", "relusquared"},
}

# Words of other libraries for their own modules, which are formulas of the catalogue too.
_ALSO = {"quick_gelu": "gelu", "swish": "silu"}

# What halves a dimension, so that nothing elementwise can take its place.
GATES = frozenset({"glu"})


def _spelling(name: str) -> str:
    """The same for ``"leaky_relu"``, ``"LeakyReLU"`` and ``"leaky_relu_"``.

    transformers' ``SiLUActivation`` and timm's ``SwishMe`` say nothing more by their endings.
    """
    return name.removesuffix("Activation").removesuffix("Me").replace("_", "").lower()


#: The names of activations, those that users register with them.
NAMES = set(_FURTHER)
_BY_SPELLING = {_spelling(name): name for name in _FURTHER}
_BY_SPELLING |= {alias: name for name, aliases in _ALIASES.items() for alias in aliases}


def _add(formula: Formula) -> None:
    if len(formula.inputs) == 1:
        NAMES.add(formula.name)
        _BY_SPELLING.setdefault(_spelling(formula.name), formula.name)


activations.follow(_add)


def unmatched(value: Any) -> Any:
    """The activation within a ``Matched``; any other value as it is."""
    return unmatched(value.activation) if isinstance(value, IsMatched) else value


def named(name: str) -> str | None:
    """The activation that a class or function of this name computes, if it is known.

    GELU's approximations count as "gelu".

    Example:
        >>> from zeta.integrations.names import named
        >>> named("SiLUActivation"), named("hard_sigmoid"), named("Linear")
        ('silu', 'hardsigmoid', None)
    """
    return _BY_SPELLING.get(_spelling(name))


def activation_name(value: Any) -> str | None:
    """The name of the activation that a module, a layer or a function computes, if it is known.

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
    return None if isinstance(value, type) else named(own_name(value))


def own_name(value: Any) -> str:
    """What a function calls itself, also within a :func:`functools.partial`; else the type's."""
    if isinstance(value, functools.partial):
        return own_name(value.func)
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else type(value).__name__


def known(what: str) -> frozenset[str]:
    """The activations that a user's word stands for; none for what is rather a pattern."""
    if what in NAMES:
        return frozenset({what, _ALSO.get(what, what)})
    name = named(what) if what.islower() and what == what.strip("_") else None
    return frozenset({name} if name else ())
