"""NumPy: the primitives on arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from zeta._backends.composed import Composed
from zeta._backends.evaluate import Arrays
from zeta._formula import Formula

Array = npt.NDArray[np.floating[Any]]

ARRAYS = Arrays(
    kind="an array",
    noun="array",
    types=(np.ndarray, np.generic),
    dtypes={np.dtype(d): np.promote_types(d, np.float32) for d in ("f2", "f4", "f8")},
    cast=lambda x, dtype: x.astype(dtype),
    at_least=np.maximum,
    at_most=np.minimum,
    largest=lambda dtype: np.finfo(dtype).max,
    shape=lambda x: x.shape,
    unstack=tuple,
)

exp = np.exp
expm1 = np.expm1
log = np.log
log1p = np.log1p
sqrt = np.sqrt
atan = np.arctan
asinh = np.arcsinh
hypot = np.hypot
logaddexp = np.logaddexp
sign = np.sign
round = np.rint
floor = np.floor
remainder = np.remainder
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


def rsqrt(x: Array) -> Array:
    return 1 / np.sqrt(x)


def sinc(x: Array) -> Array:
    return _COMPOSED.sinc(x)


def piecewise(x: Array, knots: Sequence[Any], branches: Sequence[Callable[[Array], Any]]) -> Array:
    y: Any = None
    for low, high, branch in zip((None, *knots), (*knots, None), branches, strict=True):
        within = x if low is None else np.maximum(x, low)
        value = branch(within if high is None else np.minimum(within, high))
        if np.shape(value) != x.shape or not x.shape:  # a branch without x would swallow NaN
            value = np.where(np.isnan(x), x, value)
        y = value if low is None else np.where(x > low, value, y)
    return y


def with_gradient(value: Any, surrogate: Any) -> Array:
    dtype = np.result_type(value, surrogate)  # of a mask or a number too
    return np.broadcast_arrays(value, surrogate)[0].astype(dtype)


def stop_gradient(x: Array) -> Array:
    return x


@np.errstate(all="ignore")  # ±inf and NaN are values here, as in every framework
def evaluate(formula: Formula, inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Array:
    """The formula by NumPy operations, in float32 for float16."""
    values = {
        name: tuple(map(_array_of, value))
        if name in formula.vectors and type(value) is tuple
        else _array_of(value)
        for name, value in parameters.items()
    }
    return np.asarray(ARRAYS.evaluate(formula, tuple(map(np.asarray, inputs)), values))


def softmax(formula: Formula, x: Any, parameters: dict[str, Any], dim: int, logs: bool) -> Array:
    """The softmax of the formula, or its logarithm, in float32 for float16."""
    x = np.asarray(x)
    ARRAYS.check(formula, (x,), parameters)
    value = _finite(evaluate(formula, (x.astype(ARRAYS.compute_dtype(x.dtype)),), parameters))
    value = value - value.max(dim, keepdims=True)
    total = np.exp(value).sum(dim, keepdims=True)
    y = value - np.log(total) if logs else np.exp(value) / total
    return np.asarray(y.astype(x.dtype))


def _array_of(value: Any) -> Any:
    """What other libraries have, and lists, as NumPy's; the rest as it is."""
    is_array = hasattr(value, "__array__") or isinstance(value, list | tuple)
    return np.asarray(value) if is_array else value


def _finite(x: Array) -> Array:
    largest = np.finfo(x.dtype).max
    return np.clip(x, -largest, largest)


_COMPOSED = Composed(
    where=np.where,
    finite=_finite,
    with_gradient=with_gradient,
    round=round,
    sqrt=sqrt,
    log=log,
    log1p=log1p,
    sin=sin,
    softplus=softplus,
)
