"""Plain Python numbers: computed by the NumPy backend in float64, answered as a float."""

from collections.abc import Callable
from typing import Any

import numpy as np

from zeta._backends import numpy
from zeta._backends.evaluate import applied
from zeta._formula import Formula


def _on_numbers(function: Callable[..., Any]) -> Callable[..., float]:
    @np.errstate(all="ignore")
    def call(*values: float) -> float:
        return float(function(*map(np.float64, values)))

    return call


exp = _on_numbers(numpy.exp)
expm1 = _on_numbers(numpy.expm1)
log = _on_numbers(numpy.log)
log1p = _on_numbers(numpy.log1p)
sqrt = _on_numbers(numpy.sqrt)
sin = _on_numbers(numpy.sin)
cos = _on_numbers(numpy.cos)
atan = _on_numbers(numpy.atan)
tanh = _on_numbers(numpy.tanh)
erf = _on_numbers(numpy.erf)
erfc = _on_numbers(numpy.erfc)
sigmoid = _on_numbers(numpy.sigmoid)
softplus = _on_numbers(numpy.softplus)
minimum = _on_numbers(numpy.minimum)
maximum = _on_numbers(numpy.maximum)
clip = _on_numbers(numpy.clip)


def piecewise(x: float, positive: Callable[[Any], Any], otherwise: Callable[[Any], Any]) -> float:
    return float(numpy.piecewise(np.asarray(x, np.float64), positive, otherwise))


@np.errstate(all="ignore")
def evaluate(formula: Formula, inputs: tuple[float, ...], parameters: dict[str, Any]) -> float:
    """The formula at one point."""
    at = tuple(map(np.float64, inputs))
    return float(applied(numpy.ARRAYS.finite, formula, at, parameters))
