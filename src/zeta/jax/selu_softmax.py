"""SELU, then softmax."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from zeta import activations
from zeta._backends.jax import check_input, compute_dtype
from zeta._call_forms import input_also_called
from zeta._selu_softmax import DIM_LEFT_OUT, checked_dim
from zeta.activations import SELU_ALPHA, SELU_SCALE
from zeta.jax.activations import on_arrays

_selu = on_arrays(activations.selu)


@input_also_called("x")
def selu_softmax(
    input: ArrayLike,
    dim: int = DIM_LEFT_OUT,
    *,
    alpha: float | Array = SELU_ALPHA,
    scale: float | Array = SELU_SCALE,
) -> Array:
    """Softmax of the SELU of the input.

    ``softmax(scale·(max(0, x) + min(0, alpha·(e^x - 1))), dim)``.

    Upstream's implementation applied SELU's scale twice; ``scale=SELU_SCALE**2`` gives its
    numbers.

    Args:
        input: any shape; float16, bfloat16, float32 or float64.
        dim: the dimension that sums to one. The documented default 0 normalises over the batch
            if there is one: leaving it out on an input of two or more dimensions warns, once
            per process.
        alpha: SELU's saturation value, positive.
        scale: SELU's slope.

    Returns:
        Probabilities of the input's shape and dtype.

    Raises:
        TypeError: the input is not a floating-point array, or dim is no integer.
        IndexError: the input has no such dimension.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.jax import selu_softmax
        >>> y = selu_softmax(jnp.array([-1.0, 0.0, 1.0]), dim=-1)
        >>> [round(value, 4) for value in y.tolist()]
        [0.0786, 0.2387, 0.6827]

    For training, take log-probabilities, which cannot underflow to log(0):
    ``jax.nn.log_softmax(zeta.jax.selu(logits))``.

    Source: the selu_softmax document of Zeta; Klambauer et al. 2017 for SELU.
    """
    check_input(input, "selu_softmax")
    x = jnp.asarray(input)
    axis = checked_dim(dim, x.ndim)
    dtype = compute_dtype(x.dtype)
    activation = _selu(x.astype(dtype), alpha, scale)
    # SELU may overflow to inf, and inf - inf is NaN inside the softmax.
    largest = jnp.finfo(dtype).max
    return jax.nn.softmax(jnp.clip(activation, -largest, largest), axis).astype(x.dtype)
