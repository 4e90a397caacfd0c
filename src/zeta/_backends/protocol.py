"""What a backend is: a module with the primitives of `zeta.math`, and a way to take a formula.

What is particular to a framework's arrays, it says in a `zeta._backends.evaluate.Arrays`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

Unary = Callable[[Any], Any]
Binary = Callable[[Any, Any], Any]


class Backend(Protocol):
    """The primitives on one framework's values, which answer in kind; see `zeta.math`."""

    exp: Unary
    expm1: Unary
    log: Unary
    log1p: Unary
    sqrt: Unary
    sin: Unary
    cos: Unary
    atan: Unary
    tanh: Unary
    erf: Unary
    erfc: Unary
    sigmoid: Unary
    softplus: Unary
    minimum: Binary
    maximum: Binary
    clip: Callable[[Any, Any, Any], Any]
    piecewise: Callable[[Any, Unary, Unary], Any]  # x, positive, otherwise
    evaluate: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]  # formula, inputs, parameters


if TYPE_CHECKING:
    from zeta._backends import jax, mpmath, number, numpy, sympy, tensorflow, torch, tracer

    _ALL: tuple[Backend, ...] = (jax, mpmath, number, numpy, sympy, tensorflow, torch, tracer)
