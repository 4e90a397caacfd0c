"""JAX: the primitives on arrays, each differentiable any number of times, in both modes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from zeta._backends import jax_elementary
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


def piecewise(
    x: Array, positive: Callable[[Array], Any], otherwise: Callable[[Array], Any]
) -> Array:
    # Not jnp.minimum, whose gradient at 0 is a half.
    branches = (positive(jnp.where(x > 0, x, 0)), otherwise(jnp.where(x > 0, 0, x)))
    # A branch without x would swallow NaN.
    above, below = (
        y if jnp.shape(y) == jnp.shape(x) else jnp.where(jnp.isnan(x), x, y) for y in branches
    )
    return jnp.where(x > 0, above, below)


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
