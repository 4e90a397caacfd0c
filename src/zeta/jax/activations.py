"""A formula as a JAX function."""

import functools
from collections.abc import Callable
from typing import Any

from jax import Array

from zeta._backends import jax as backend
from zeta._formula import Formula


def on_arrays(formula: Formula) -> Callable[..., Array]:
    """The formula as a function of a JAX or NumPy array, answering a JAX array.

    The function takes the array and then the formula's parameters, by position or name, each a
    number or an array that broadcasts to the input's shape; gradients flow to all of them. It is
    compiled as one. Under ``jax.grad``, ``jax.vmap``, ``jax.checkpoint`` and the rest it is plain
    JAX.

    Raises:
        TypeError: an input that is not a floating-point array, or an unknown parameter.
        ValueError: a parameter that does not broadcast to the input's shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta import activations
        >>> from zeta.jax.activations import on_arrays
        >>> y = on_arrays(activations.exo)(jnp.array([-2.0, 0.0, 2.0]), alpha=0.5)
        >>> [round(value, 4) for value in y.tolist()]
        [-1.2426, 0.0, 1.7214]
    """

    @functools.wraps(formula, updated=())
    def function(x: Any, *args: Any, **kwargs: Any) -> Array:
        return backend.evaluate(formula, (x,), formula.bind(*args, **kwargs))

    function.__module__ = "zeta.jax"  # where it is found, for pickles
    return function
