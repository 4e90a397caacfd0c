"""mpmath: the primitives at the working precision. The reference that tests compare with."""

from collections.abc import Callable
from typing import Any

import mpmath
from mpmath import mpf

from zeta._formula import Formula

exp = mpmath.exp
expm1 = mpmath.expm1
log = mpmath.log
log1p = mpmath.log1p
sqrt = mpmath.sqrt
sin = mpmath.sin
cos = mpmath.cos
atan = mpmath.atan
tanh = mpmath.tanh
erf = mpmath.erf


def erfc(x: mpf) -> mpf:
    if x < 1e100 or mpmath.isinf(x):
        return mpmath.erfc(x)
    # mpmath's own overflows out here; the next term of the asymptotic series is 1/(2x²) of this.
    return mpmath.exp(-x * x) / (x * mpmath.sqrt(mpmath.pi))


def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))


def softplus(x: mpf) -> mpf:
    return maximum(x, 0) + mpmath.log1p(mpmath.exp(-abs(x)))


def minimum(x: Any, y: Any) -> mpf:
    return x + y if mpmath.isnan(x) or mpmath.isnan(y) else min(x, y)


def maximum(x: Any, y: Any) -> mpf:
    return x + y if mpmath.isnan(x) or mpmath.isnan(y) else max(x, y)


def clip(x: mpf, low: Any, high: Any) -> mpf:
    return minimum(maximum(x, low), high)


def piecewise(x: mpf, positive: Callable[[mpf], Any], otherwise: Callable[[mpf], Any]) -> mpf:
    if mpmath.isnan(x):
        return x
    return mpmath.mpf(positive(x) if x > 0 else otherwise(x))


def evaluate(formula: Formula, x: mpf, parameters: dict[str, Any]) -> mpf:
    """The formula at the working precision; at ±inf its limit, where it has one."""
    below, above = formula.clamped_sides
    # So far out that what is left of the approach to the limit rounds away.
    largest = mpmath.mpf("1e30")
    x = maximum(x, -largest) if below else x
    x = minimum(x, largest) if above else x
    return formula.function(x, **parameters)
