"""JAX: the primitives on arrays, each differentiable any number of times, in both modes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from zeta._backends import jax_elementary
from zeta._formula import Formula

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)

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
    # A constant branch would swallow NaN.
    above, below = (jnp.where(jnp.isnan(x), x, y) if jnp.ndim(y) == 0 else y for y in branches)
    return jnp.where(x > 0, above, below)


def evaluate(formula: Formula, x: Any, parameters: dict[str, Any]) -> Array:
    """The formula, compiled as one, in float32 for half types."""
    check_input(x, formula.name)
    x = jnp.asarray(x)
    values = {
        name: _checked_parameter(formula.name, name, value, x.shape)
        for name, value in parameters.items()
    }
    return _compiled(formula, x, values)


@functools.partial(jax.jit, static_argnums=0)
def _compiled(formula: Formula, x: Array, parameters: dict[str, Any]) -> Array:
    dtype = compute_dtype(x.dtype)
    values = {name: jnp.asarray(value, dtype) for name, value in parameters.items()}
    y = formula.function(_limits_defined(formula, x.astype(dtype)), **values)
    if jnp.shape(y) != x.shape:
        raise ValueError(
            f"formula {formula.name!r} must return one value per element of x, shape {x.shape}; "
            f"it returned shape {jnp.shape(y)}"
        )
    return jnp.asarray(y, x.dtype)


def check_input(x: Any, function: str, argument: str = "input") -> None:
    """Raise TypeError unless ``x`` is an array of a supported floating-point dtype."""
    if not isinstance(x, Array | np.ndarray | np.generic):
        raise TypeError(f"{function}: {argument} must be an array, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        accepted = ", ".join(np.dtype(dtype).name for dtype in DTYPES)
        raise TypeError(
            f"{function}: {argument} must be a floating-point array ({accepted}), got {x.dtype}"
        )


def compute_dtype(dtype: DTypeLike) -> Any:
    """The dtype that arithmetic runs in: float32 for the half types, else the dtype itself."""
    return jnp.promote_types(dtype, jnp.float32)


def _checked_parameter(function: str, name: str, value: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(value, int | float):
        return value
    if not isinstance(value, Array | np.ndarray | np.generic):
        raise TypeError(
            f"{function}: {name} must be a number or an array, got {type(value).__name__}"
        )
    check_input(value, function, name)
    fits = len(value.shape) <= len(shape) and all(
        size in (1, whole)
        for size, whole in zip(reversed(value.shape), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{function}: {name} of shape {value.shape} does not broadcast to the input's "
            f"shape {shape}"
        )
    return value


def _limits_defined(formula: Formula, x: Array) -> Array:
    below, above = formula.clamped_sides
    largest = jnp.finfo(x.dtype).max
    x = jnp.where(x < -largest, -largest, x) if below else x
    return jnp.where(x > largest, largest, x) if above else x


def _finite(x: Array) -> Array:
    largest = jnp.finfo(x.dtype).max
    return lax.clamp(-largest, x, largest)
