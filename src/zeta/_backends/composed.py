"""Primitives from what every framework has, for those that lack them or lose digits in them.

Their derivatives, of any order, are the framework's own of these lines: nothing overflows or is
0/0 on the way, and no choice between two forms has a kink.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zeta._backends.minimax import polynomial

# Where asinh(x) is log(2x) to the last bit, and the square of x is no overflow.
_LARGE = 2.0**30
# sin(πx)/(πx) for |x| <= 1/2, by powers of x²: 12 terms are float64's digits, one more its slope's.
_SINC = tuple((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k + 1) for k in range(14))


@dataclass(frozen=True)
class Composed:
    """These primitives on a framework's arrays.

    Attributes:
        where: an array, or another where a mask is false; numbers too.
        finite: an array with the largest numbers for infinities, which have derivative 0 there.
        with_gradient, round, sqrt, log, log1p, sin, softplus: as in `zeta.math`.
    """

    where: Callable[[Any, Any, Any], Any]
    finite: Callable[[Any], Any]
    with_gradient: Callable[[Any, Any], Any]
    round: Callable[[Any], Any]
    sqrt: Callable[[Any], Any]
    log: Callable[[Any], Any]
    log1p: Callable[[Any], Any]
    sin: Callable[[Any], Any]
    softplus: Callable[[Any], Any]

    def asinh(self, x: Any) -> Any:
        # log(a + √(1 + a²)) of a = |x|, without the cancellation near 0.
        a = self.where(x < 0, -x, x)
        is_large = a > _LARGE
        small = self.where(is_large, 1.0, a)
        large = self.where(is_large, a, 1.0)
        root = self.sqrt(1 + small * small)
        y = self.log1p(self.with_gradient(small * (1 + small / (1 + root)), small + root))
        y = self.where(is_large, self.log(large) + math.log(2), y)
        return self.where(x < 0, -y, y)

    def hypot(self, x: Any, y: Any) -> Any:
        # A common factor is a constant: whatever it is, the derivatives are the same.
        size = self.with_gradient(self.where(abs(x) < abs(y), abs(y), abs(x)), 0)
        is_zero = abs(x) + abs(y) == 0  # both, and neither NaN
        factor = self.where(is_zero, 1.0, self.finite(size))
        u, v = x / factor, y / factor
        return size * self.sqrt(self.where(is_zero, 1.0, u * u + v * v))

    def rsqrt(self, x: Any) -> Any:
        return 1 / self.sqrt(x)

    def logaddexp(self, x: Any, y: Any) -> Any:
        # Finite, so that the difference of two equal infinities is 0.
        u, v = self.finite(x), self.finite(y)
        is_first = x > y
        return self.where(is_first, x, y) + self.softplus(self.where(is_first, v - u, u - v))

    def sinc(self, x: Any) -> Any:
        is_small = abs(x) < 0.5
        small = self.where(is_small, x, 0.0)
        large = self.where(is_small, 1.0, self.finite(x))
        # sin(πx) = ±sin(πr), where r is exact.
        whole = self.round(large)
        sign = 1 - 2 * abs(whole - 2 * self.round(whole / 2))
        y = sign * self.sin(math.pi * (large - whole)) / math.pi / large
        return self.where(is_small, polynomial(_SINC, small * small), y)
