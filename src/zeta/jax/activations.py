"""A formula as a JAX function, of its inputs or of one array that holds both of a gate's."""

import functools
from collections.abc import Callable
from typing import Any

from jax import Array

from zeta._backends import jax as backend
from zeta._formula import Formula
from zeta._gated import Order, check_two_inputs, places


def on_arrays(formula: Formula) -> Callable[..., Array]:
    """The formula as a function of JAX or NumPy arrays, answering a JAX array.

    The function takes the inputs and then the formula's parameters, by position or name, each a
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
    def function(*args: Any, **kwargs: Any) -> Array:
        return backend.evaluate(formula, *formula.arguments(*args, **kwargs))

    function.__module__ = "zeta.jax"  # where it is found, for pickles
    return function


def gated(
    formula: Formula,
    packed: Any,
    dim: int = -1,
    *,
    layout: Order = "halves",
    gate_first: bool = True,
    **parameters: Any,
) -> Array:
    """A gate on one array that holds both of its inputs; see :func:`zeta.ops.gated`.

    Args:
        formula: of two inputs, ``swiglu`` say.
        packed: a JAX or NumPy array (…, 2·n, …), floating point.
        dim: the dimension that holds both.
        layout: "halves", or "interleaved" for gate and value in turn.
        gate_first: whether the gate comes first; `jax.nn.glu` has the value first.
        parameters: the formula's, by name; gradients flow to arrays.

    Returns:
        (…, n, …), of the dtype of ``packed``.

    Raises:
        TypeError: a formula of another number of inputs, or an array that is not floating point.
        ValueError: an unknown layout, or a dimension of odd size.
        IndexError: there is no such dimension.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.activations import swiglu
        >>> from zeta.jax import gated
        >>> y = gated(swiglu, jnp.array([1.0, 2.0, 3.0, 4.0]))
        >>> [round(value, 4) for value in y.tolist()]
        [2.1932, 7.0464]
    """
    check_two_inputs(formula)
    gate, value = halves(formula, packed, dim, layout, gate_first)
    return on_arrays(formula)(gate, value, **parameters)


def halves(
    formula: Formula, packed: Any, dim: int, layout: Order, gate_first: bool
) -> tuple[Array, Array]:
    """Gate and value of an array that holds both; see :func:`gated`."""
    backend.check_input(packed, formula.name, "packed")
    gate, value = (packed[at] for at in places(formula, packed.shape, dim, layout, gate_first))
    return gate, value
