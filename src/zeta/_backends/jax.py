"""JAX: the primitives on arrays, each differentiable any number of times, in both modes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from zeta._backends import jax_elementary
from zeta._backends.composed import Composed
from zeta._backends.evaluate import Arrays
from zeta._formula import Formula

ARRAYS = Arrays(
    kind="an array",
    noun="array",
    types=(Array, np.ndarray, np.generic),
    dtypes={np.dtype(d): jnp.promote_types(d, "f4") for d in ("f2", jnp.bfloat16, "f4", "f8")},
    cast=jnp.asarray,
    at_least=lambda x, low: jnp.where(x < low, low, x),
    at_most=lambda x, high: jnp.where(x > high, high, x),
    largest=lambda dtype: jnp.finfo(dtype).max,
    shape=lambda x: x.shape,
    unstack=tuple,
)
check_input = ARRAYS.check_input
compute_dtype = ARRAYS.compute_dtype

exp = jnp.exp
expm1 = jax_elementary.expm1
log = jnp.log
log1p = jnp.log1p
sqrt = jnp.sqrt
atan = jnp.arctan
tanh = jnp.tanh
erf = lax.erf
erfc = lax.erfc
sigmoid = jax_elementary.sigmoid
softplus = jax_elementary.softplus
remainder = jnp.remainder
stop_gradient = lax.stop_gradient


def sin(x: Array) -> Array:
    return jax_elementary.sin(_finite(x))


def cos(x: Array) -> Array:
    return jax_elementary.cos(_finite(x))


def minimum(x: Any, y: Any) -> Array:
    return jnp.minimum(x, y)


def maximum(x: Any, y: Any) -> Array:
    return jnp.maximum(x, y)


def clip(x: Array, low: Any, high: Any) -> Array:
    # jnp.clip's gradient at the bounds is a half.
    x = jnp.where(x <= low, low, x)
    return jnp.where(x >= high, high, x)


# 0 times an infinite derivative from within would be NaN.
def sign(x: Array) -> Array:
    return jnp.sign(lax.stop_gradient(x))


def round(x: Array) -> Array:
    return jnp.round(lax.stop_gradient(x))


def floor(x: Array) -> Array:
    return jnp.floor(lax.stop_gradient(x))


def rsqrt(x: Array) -> Array:
    return _COMPOSED.rsqrt(x)


def hypot(x: Any, y: Any) -> Array:
    return _COMPOSED.hypot(*jnp.broadcast_arrays(x, y))


def logaddexp(x: Any, y: Any) -> Array:
    return _COMPOSED.logaddexp(*jnp.broadcast_arrays(x, y))


def asinh(x: Array) -> Array:
    return _COMPOSED.asinh(x)


def sinc(x: Array) -> Array:
    return _COMPOSED.sinc(x)


def piecewise(x: Array, knots: Sequence[Any], branches: Sequence[Callable[[Array], Any]]) -> Array:
    y: Any = None
    for low, high, branch in zip((None, *knots), (*knots, None), branches, strict=True):
        value = branch(_within(x, low, high))
        if jnp.shape(value) != jnp.shape(x) or not jnp.ndim(
            x
        ):  # a branch without x would swallow NaN
            value = jnp.where(jnp.isnan(x), x, value)
        y = value if low is None else jnp.where(x > low, value, y)
    return y


def _within(x: Array, low: Any, high: Any) -> Array:
    # Not jnp.minimum, whose gradient at a knot is a half.
    if low is not None:
        x = jnp.where(x > low, x, lax.stop_gradient(low))
    return x if high is None else jnp.where(x > high, lax.stop_gradient(high), x)


def with_gradient(value: Any, surrogate: Any) -> Array:
    dtype = jnp.result_type(value, surrogate)  # of a mask or a number too
    arrays = jnp.broadcast_arrays(value, surrogate)
    return _with_gradient(*(a.astype(dtype) for a in arrays))


@jax.custom_jvp
def _with_gradient(value: Array, surrogate: Array) -> Array:
    return value


@_with_gradient.defjvp
def _with_gradient_jvp(
    arrays: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return _with_gradient(*arrays), tangents[1]


def evaluate(formula: Formula, inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Array:
    """The formula, compiled as one, in float32 for half types."""
    ARRAYS.check(formula, inputs, parameters)
    return _compiled(formula, inputs, parameters)


def softmax(formula: Formula, x: Array, parameters: dict[str, Any], dim: int, logs: bool) -> Array:
    """The softmax of the formula, or its logarithm, in float32 for half types."""
    ARRAYS.check(formula, (x,), parameters)
    wide = x.astype(ARRAYS.compute_dtype(x.dtype))
    value = _finite(evaluate(formula, (wide,), parameters))
    normalised = jax.nn.log_softmax if logs else jax.nn.softmax
    return normalised(value, axis=dim).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _compiled(formula: Formula, inputs: tuple[Array, ...], parameters: dict[str, Any]) -> Array:
    return ARRAYS.compute(formula, inputs, parameters)


def _finite(x: Array) -> Array:
    largest = jnp.finfo(x.dtype).max
    return lax.clamp(-largest, x, largest)


_COMPOSED = Composed(
    where=jnp.where,
    finite=_finite,
    with_gradient=with_gradient,
    round=round,
    sqrt=sqrt,
    log=log,
    log1p=log1p,
    sin=sin,
    softplus=softplus,
)
