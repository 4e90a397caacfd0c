"""SELU, then softmax, as a module."""

from flax import nnx
from jax import Array

from zeta.jax import selu_softmax


class SELUSoftmax(nnx.Module):
    """Softmax of the SELU of the input; see :func:`zeta.jax.selu_softmax`.

    Args:
        dim: the dimension that sums to one.

    Shape: any; the output has the input's shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.flax import SELUSoftmax
        >>> SELUSoftmax()(jnp.zeros((1, 4)))
        Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def __call__(self, input: Array) -> Array:
        """Probabilities along ``dim``."""
        return selu_softmax(input, self.dim)
