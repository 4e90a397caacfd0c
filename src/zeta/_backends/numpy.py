"""NumPy: the primitives on arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from zeta._formula import Formula

Array = npt.NDArray[np.floating[Any]]

DTYPES = (np.float16, np.float32, np.float64)

exp = np.exp
expm1 = np.expm1
log = np.log
log1p = np.log1p
sqrt = np.sqrt
atan = np.arctan
tanh = np.tanh
erf = special.erf
minimum = np.minimum
maximum = np.maximum
clip = np.clip


def sigmoid(x: Array) -> Array:
    # expit is 0 where e^-x overflows, though the result is no underflow yet; that far down, e^x
    # is the sigmoid to the last bit.
    return np.where(x < -40, np.exp(np.minimum(x, -40)), special.expit(x))


def erfc(x: Array) -> Array:
    # special.erfc is 0 beyond 26.6, where most subnormal results are.
    tail = np.maximum(x, 26)
    return np.where(x > 26, special.erfcx(tail) * np.exp(-tail * tail), special.erfc(x))


def sin(x: Array) -> Array:
    return np.sin(_finite(x))


def cos(x: Array) -> Array:
    return np.cos(_finite(x))


def softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


def piecewise(
    x: Array, positive: Callable[[Array], Any], otherwise: Callable[[Array], Any]
) -> Array:
    branches = (positive(np.maximum(x, 0)), otherwise(np.minimum(x, 0)))
    # A constant branch would swallow NaN.
    above, below = (np.where(np.isnan(x), x, y) if np.ndim(y) == 0 else y for y in branches)
    return np.where(x > 0, above, below)


def evaluate(formula: Formula, x: Any, parameters: dict[str, Any]) -> Array:
    """The formula by NumPy operations, in float32 for float16."""
    x = np.asarray(x)
    if x.dtype not in DTYPES:
        raise TypeError(
            f"{formula.name}: input must be a floating-point array "
            f"(float16, float32 or float64), got {x.dtype}"
        )
    dtype = np.promote_types(x.dtype, np.float32)
    values = {
        name: _checked_parameter(formula.name, name, value, x, dtype)
        for name, value in parameters.items()
    }
    with np.errstate(all="ignore"):  # ±inf and NaN are values here, as in every framework
        y = np.asarray(formula.function(_limits_defined(formula, x.astype(dtype)), **values))
        y = y.astype(x.dtype)
    if y.shape != x.shape:
        raise ValueError(
            f"formula {formula.name!r} must return one value per element of x, shape {x.shape}; "
            f"it returned shape {y.shape}"
        )
    return y


def _limits_defined(formula: Formula, x: Array) -> Array:
    below, above = formula.clamped_sides
    largest = np.finfo(x.dtype).max
    x = np.maximum(x, -largest) if below else x
    return np.minimum(x, largest) if above else x


def _checked_parameter(function: str, name: str, value: Any, x: Array, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, int | float):
        return value
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(
            f"{function}: {name} must be a number or an array of numbers, got {value!r}"
        )
    if np.broadcast_shapes(array.shape, x.shape) != x.shape:
        raise ValueError(
            f"{function}: {name} of shape {array.shape} does not broadcast to the input's shape "
            f"{x.shape}"
        )
    return array.astype(dtype)


def _finite(x: Array) -> Array:
    largest = np.finfo(x.dtype).max
    return np.clip(x, -largest, largest)
