"""The primitives that formulas are written with.

Each takes a PyTorch or TensorFlow tensor, a JAX or NumPy array, a Python number, a SymPy
expression or an mpmath number, and answers in kind. The framework is found by the argument's
type; none is imported that the caller did not load. ``+ - * / **`` and ``abs`` work on all of
them as they are.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from zeta._backends import backend_for

__all__ = [
    "asinh",
    "atan",
    "clip",
    "cos",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "floor",
    "hypot",
    "log",
    "log1p",
    "logaddexp",
    "maximum",
    "minimum",
    "piecewise",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinc",
    "softplus",
    "sqrt",
    "stop_gradient",
    "tanh",
    "with_gradient",
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


def rsqrt(x: Array) -> Array:
    """1 / √x."""
    return backend_for(x).rsqrt(x)


def hypot(x: Any, y: Any) -> Any:
    """√(x² + y²), without overflow of the squares; derivatives are 0 where both are 0."""
    return backend_for(x, y).hypot(x, y)


def sin(x: Array) -> Array:
    """The sine; an argument that overflowed to ±inf is taken at the largest finite number.

    So a frequency times a large finite input never turns into NaN.
    """
    return backend_for(x).sin(x)


def cos(x: Array) -> Array:
    """The cosine; an argument that overflowed is treated as :func:`sin` does."""
    return backend_for(x).cos(x)


def sinc(x: Array) -> Array:
    """sin(πx) / (πx), and 1 at 0: normalised, as NumPy's; sin(x) / x is ``sinc(x * (1 / pi))``.

    Its derivative does not cancel near 0.
    """
    return backend_for(x).sinc(x)


def atan(x: Array) -> Array:
    """The inverse tangent."""
    return backend_for(x).atan(x)


def asinh(x: Array) -> Array:
    """The inverse hyperbolic sine, log(x + √(x² + 1)), without overflow or cancellation."""
    return backend_for(x).asinh(x)


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


def logaddexp(x: Any, y: Any) -> Any:
    """log(e^x + e^y), without overflow; its derivative by x is sigmoid(x - y)."""
    return backend_for(x, y).logaddexp(x, y)


def sign(x: Array) -> Array:
    """-1, 0 or 1, with the derivative 0."""
    return backend_for(x).sign(x)


def round(x: Array) -> Array:
    """The nearest integer, of two equally near the even one; with the derivative 0."""
    return backend_for(x).round(x)


def floor(x: Array) -> Array:
    """The largest integer that is not above x, with the derivative 0."""
    return backend_for(x).floor(x)


def remainder(x: Any, y: Any) -> Any:
    """x - y·floor(x / y), exactly: of y's sign, as Python's %.

    The derivative by x is 1, that by y is -floor(x / y).
    """
    return backend_for(x, y).remainder(x, y)


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


@overload
def piecewise(
    x: Array, *, positive: Callable[[Array], Any], otherwise: Callable[[Array], Any]
) -> Array: ...


@overload
def piecewise(x: Array, knots: Sequence[Any], *branches: Callable[[Array], Any]) -> Array: ...


def piecewise(
    x: Any, knots: Any = None, *branches: Any, positive: Any = None, otherwise: Any = None
) -> Any:
    """One function of x or another, by where x is: the only branch there is.

    ``piecewise(x, positive=f, otherwise=g)`` is f(x) where x > 0 and g(x) elsewhere.
    ``piecewise(x, (k1, k2, …), f0, f1, f2, …)`` is f0(x) up to k1, f1(x) above it and up to k2, and
    so on: one branch more than knots. At a knot it is the branch below.

    Each branch is handed an x that is clamped to its own interval, so an unselected branch cannot
    overflow and turn a gradient into NaN (0·inf). A branch may return a constant; a NaN in x stays
    NaN.

    Args:
        x: what decides.
        knots: numbers or parameters, in rising order; where they are not, the last one below x
            counts. To move a knot changes nothing but what branches make of it.
        branches: functions of x, from left to right.

    Raises:
        TypeError: not one branch more than knots, or neither of the two forms.
        ValueError: numbers that do not rise.

    Example:
        >>> from zeta.math import expm1, piecewise
        >>> [piecewise(x, positive=lambda x: x, otherwise=expm1) for x in (-1e4, 0.0, 1e4)]
        [-1.0, 0.0, 10000.0]
        >>> curve = lambda x: (x + 1) ** 2 / 4
        >>> [piecewise(x, (-1, 1), lambda x: 0, curve, lambda x: x) for x in (-2.0, 0.0, 3.0)]
        [0.0, 0.25, 3.0]
    """
    named = [branch for branch in (otherwise, positive) if branch is not None]
    if knots is None:
        knots, branches, named = (0,), tuple(named), []
    if named or len(branches) != len(knots) + 1:
        raise TypeError(
            "piecewise takes positive=… and otherwise=…, or knots and one branch more than these; "
            f"got {len(branches) + len(named)} branches for {len(knots)} knots"
        )
    numbers = [knot for knot in knots if isinstance(knot, int | float)]
    if any(high <= low for low, high in itertools.pairwise(numbers)):
        raise ValueError(f"piecewise takes knots in rising order, got {tuple(numbers)}")
    return backend_for(x, *knots).piecewise(x, knots, branches)


def with_gradient(value: Any, surrogate: Any) -> Any:
    """``value``, with the derivative of ``surrogate``: as if it were that in backward alone.

    For what has no derivative worth having: a step with a smooth surrogate, as spiking networks
    train with, a quantiser whose derivative is the identity's, straight through. Kernels compute
    ``value`` alone in forward and ``surrogate``'s derivative alone in backward; a second derivative
    is that of the surrogate's derivative. Either may be a number, and ``value`` a comparison, which
    is 0 or 1.

    Example:
        >>> import torch
        >>> from zeta import formula
        >>> from zeta.math import round, sigmoid, with_gradient
        >>> @formula
        ... def quantised(x):
        ...     return with_gradient(round(4 * x) / 4, x)
        >>> x = torch.tensor([0.3, 1.0], requires_grad=True)
        >>> quantised(x).sum().backward()
        >>> quantised(x).tolist(), x.grad.tolist()
        ([0.25, 1.0], [1.0, 1.0])

    Source: Bengio et al. 2013, Estimating or Propagating Gradients Through Stochastic Neurons.
    """
    return backend_for(value, surrogate).with_gradient(value, surrogate)


def stop_gradient(x: Array) -> Array:
    """x, as a constant: its derivative is 0."""
    return backend_for(x).stop_gradient(x)
