"""The primitives that formulas are written with.

Each takes a PyTorch or TensorFlow tensor, a JAX or NumPy array, a Python number, a SymPy
expression or an mpmath number, and answers in kind. The framework is found by the argument's
type; none is imported that the caller did not load. ``+ - * / **`` and ``abs`` work on all of
them as they are.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from zeta._backends import backend_for

__all__ = [
    "atan",
    "clip",
    "cos",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "piecewise",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
]

Array = TypeVar("Array")


def exp(x: Array) -> Array:
    """e^x."""
    return backend_for(x).exp(x)


def expm1(x: Array) -> Array:
    """e^x - 1, without cancellation near 0."""
    return backend_for(x).expm1(x)


def log(x: Array) -> Array:
    """The natural logarithm."""
    return backend_for(x).log(x)


def log1p(x: Array) -> Array:
    """log(1 + x), without cancellation near 0."""
    return backend_for(x).log1p(x)


def sqrt(x: Array) -> Array:
    """The square root."""
    return backend_for(x).sqrt(x)


def sin(x: Array) -> Array:
    """The sine; an argument that overflowed to ±inf is taken at the largest finite number.

    So a frequency times a large finite input never turns into NaN.
    """
    return backend_for(x).sin(x)


def cos(x: Array) -> Array:
    """The cosine; an argument that overflowed is treated as :func:`sin` does."""
    return backend_for(x).cos(x)


def atan(x: Array) -> Array:
    """The inverse tangent."""
    return backend_for(x).atan(x)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return backend_for(x).tanh(x)


def erf(x: Array) -> Array:
    """The error function."""
    return backend_for(x).erf(x)


def erfc(x: Array) -> Array:
    """1 - erf(x), without cancellation in the upper tail."""
    return backend_for(x).erfc(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    return backend_for(x).sigmoid(x)


def softplus(x: Array) -> Array:
    """log(1 + e^x), without overflow."""
    return backend_for(x).softplus(x)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of two values, elementwise; NaN if either is."""
    return backend_for(x, y).minimum(x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two values, elementwise; NaN if either is."""
    return backend_for(x, y).maximum(x, y)


def clip(x: Any, low: Any, high: Any) -> Any:
    """x kept within [low, high], whose bounds may be parameters: min(max(x, low), high).

    The derivative by x is 1 strictly inside, else 0; at or beyond a bound, that by the bound is 1.
    """
    return backend_for(x, low, high).clip(x, low, high)


def piecewise(
    x: Array, *, positive: Callable[[Array], Any], otherwise: Callable[[Array], Any]
) -> Array:
    """``positive(x)`` where x > 0, ``otherwise(x)`` elsewhere: the only branch there is.

    Each branch is handed an x that is clamped to its own side of zero, so an unselected branch
    cannot overflow and turn a gradient into NaN (0·inf). A branch may return a constant; a NaN
    in x stays NaN.

    Example:
        >>> from zeta.math import expm1, piecewise
        >>> [piecewise(x, positive=lambda x: x, otherwise=expm1) for x in (-1e4, 0.0, 1e4)]
        [-1.0, 0.0, 10000.0]
    """
    return backend_for(x).piecewise(x, positive, otherwise)
