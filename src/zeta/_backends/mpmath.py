"""mpmath: the primitives at the working precision. The reference that tests compare with."""

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
from mpmath import mpf

from zeta._backends.evaluate import applied
from zeta._formula import Formula

atan = mpmath.atan
tanh = mpmath.tanh
erf = mpmath.erf
asinh = mpmath.asinh
sign = mpmath.sign
round = mpmath.nint
floor = mpmath.floor

# Beyond, the digits of e^x's exponent, or those of π for sin(x), would take hours and all memory.
_LARGEST_EXPONENT = mpf(2) ** 1000
_LARGEST_ANGLE = mpf(2) ** 10_000


def exp(x: mpf) -> mpf:
    if abs(x) > _LARGEST_EXPONENT:
        return mpmath.inf if x > 0 else mpf(0)
    return mpmath.exp(x)


def expm1(x: mpf) -> mpf:
    return mpmath.expm1(x) if abs(x) < 1 else exp(x) - 1


def log(x: mpf) -> mpf:
    return mpmath.log(x) if x > 0 else -mpmath.inf if x == 0 else mpmath.nan


def log1p(x: mpf) -> mpf:
    return mpmath.log1p(x) if x > -1 else log(1 + x)


def sqrt(x: mpf) -> mpf:
    return mpmath.sqrt(x) if x >= 0 else mpmath.nan


def rsqrt(x: mpf) -> mpf:
    return 1 / mpmath.sqrt(x) if x > 0 else mpmath.inf if x == 0 else mpmath.nan


def hypot(x: Any, y: Any) -> mpf:
    return mpmath.sqrt(mpf(x) * x + mpf(y) * y)


def sin(x: mpf) -> mpf:
    return mpmath.sin(_angle(x))


def cos(x: mpf) -> mpf:
    return mpmath.cos(_angle(x))


def sinc(x: mpf) -> mpf:
    return mpf(0) if mpmath.isinf(x) else mpmath.sincpi(x)


def _angle(x: mpf) -> mpf:
    return clip(x, -_LARGEST_ANGLE, _LARGEST_ANGLE)


def erfc(x: mpf) -> mpf:
    if x < 1e100 or mpmath.isinf(x):
        return mpmath.erfc(x)
    # mpmath's own overflows out here; the next term of the asymptotic series is 1/(2x²) of this.
    return exp(-x * x) / (x * mpmath.sqrt(mpmath.pi))


def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + exp(-x))


def softplus(x: mpf) -> mpf:
    return maximum(x, 0) + mpmath.log1p(exp(-abs(x)))


def logaddexp(x: Any, y: Any) -> mpf:
    difference = 0 if x == y else abs(x - y)
    return maximum(x, y) + mpmath.log1p(exp(-difference))


def remainder(x: Any, y: Any) -> mpf:
    return mpf(x) % y if y and mpmath.isfinite(x) else mpmath.nan


def minimum(x: Any, y: Any) -> mpf:
    return x + y if mpmath.isnan(x) or mpmath.isnan(y) else min(x, y)


def maximum(x: Any, y: Any) -> mpf:
    return x + y if mpmath.isnan(x) or mpmath.isnan(y) else max(x, y)


def clip(x: mpf, low: Any, high: Any) -> mpf:
    return minimum(maximum(x, low), high)


def piecewise(x: mpf, knots: Sequence[Any], branches: Sequence[Callable[[mpf], Any]]) -> mpf:
    if mpmath.isnan(x):
        return x
    above = [i for i, knot in enumerate(knots, 1) if x > knot]
    return mpf(branches[max(above, default=0)](x))


def with_gradient(value: Any, surrogate: Any) -> mpf:
    return mpf(value)


def stop_gradient(x: mpf) -> mpf:
    return x


def evaluate(formula: Formula, inputs: tuple[mpf, ...], parameters: dict[str, Any]) -> mpf:
    """The formula at the working precision; at ±inf its limit, where it has one."""
    y = mpf(applied(_finite, formula, inputs, parameters))  # of a bound, it is a plain number
    # Nothing underflows here: what is left of a limit of 0 would be infinite times the next factor.
    is_limit = any(map(mpmath.isinf, inputs))
    return mpf(0) if is_limit and abs(y) < mpf("1e-1000") else y


def _finite(x: mpf, below: bool, above: bool) -> mpf:
    # So far out that what is left of the approach to the limit rounds away.
    largest = mpf("1e30")
    x = maximum(x, -largest) if below else x
    return minimum(x, largest) if above else x
