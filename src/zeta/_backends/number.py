"""Plain Python numbers: computed by the NumPy backend in float64, answered as a float."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zeta._backends import constant_while_compiling, numpy
from zeta._backends.evaluate import applied
from zeta._formula import Formula


def _on_numbers(function: Callable[..., Any]) -> Callable[..., float]:
    @constant_while_compiling
    def call(*values: float) -> float:
        with np.errstate(all="ignore"):
            return float(function(*map(np.float64, values)))

    return call


exp = _on_numbers(numpy.exp)
expm1 = _on_numbers(numpy.expm1)
log = _on_numbers(numpy.log)
log1p = _on_numbers(numpy.log1p)
sqrt = _on_numbers(numpy.sqrt)
rsqrt = _on_numbers(numpy.rsqrt)
hypot = _on_numbers(numpy.hypot)
sin = _on_numbers(numpy.sin)
cos = _on_numbers(numpy.cos)
sinc = _on_numbers(numpy.sinc)
atan = _on_numbers(numpy.atan)
asinh = _on_numbers(numpy.asinh)
tanh = _on_numbers(numpy.tanh)
erf = _on_numbers(numpy.erf)
erfc = _on_numbers(numpy.erfc)
sigmoid = _on_numbers(numpy.sigmoid)
softplus = _on_numbers(numpy.softplus)
logaddexp = _on_numbers(numpy.logaddexp)
sign = _on_numbers(numpy.sign)
round = _on_numbers(numpy.round)
floor = _on_numbers(numpy.floor)
remainder = _on_numbers(numpy.remainder)
minimum = _on_numbers(numpy.minimum)
maximum = _on_numbers(numpy.maximum)
clip = _on_numbers(numpy.clip)
with_gradient = _on_numbers(numpy.with_gradient)
stop_gradient = _on_numbers(numpy.stop_gradient)


def piecewise(x: float, knots: Sequence[Any], branches: Sequence[Callable[[Any], Any]]) -> float:
    return float(numpy.piecewise(np.asarray(x, np.float64), knots, branches))


@np.errstate(all="ignore")
def evaluate(formula: Formula, inputs: tuple[float, ...], parameters: dict[str, Any]) -> float:
    """The formula at one point."""
    at = tuple(map(np.float64, inputs))
    return float(applied(numpy.ARRAYS.finite, formula, at, parameters))
