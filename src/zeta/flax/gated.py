"""A gate as an NNX module."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from zeta._formula import Formula
from zeta._gated import Order, check_two_inputs
from zeta._modules import Counts, Learnable
from zeta.flax.activations import FormulaModule
from zeta.jax.activations import halves, on_arrays


class GatedUnit(FormulaModule):
    """A gate as a module: of one array that holds both of its inputs, or of two arrays.

    Args:
        formula: of two inputs, ``swiglu`` say.
        values: starting values by parameter name; the formula's defaults where left out.
        dim, layout, gate_first: how one array holds both; see :func:`zeta.jax.gated`.
        learnable, num_parameters: as in :class:`FormulaModule`, of the result's channels.
        channel_dim: the dimension of the result that holds the channels.
        param_dtype: of the parameters.

    Shape: (…, 2·n, …) or twice (…, n, …); the output is (…, n, …), of the input's dtype.

    Raises:
        ValueError: num_parameters < 1, or as :func:`zeta.jax.gated`.
        TypeError: a formula of another number of inputs, an unknown parameter name, or an input
            that is not floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.activations import swiglu
        >>> from zeta.flax import GatedUnit
        >>> [round(value, 4) for value in GatedUnit(swiglu)(jnp.array([1.0, 3.0])).tolist()]
        [2.1932]
    """

    _inputs = 2

    def __init__(
        self,
        formula: Formula,
        values: Mapping[str, float | Sequence[float]] | None = None,
        *,
        dim: int = -1,
        layout: Order = "halves",
        gate_first: bool = True,
        learnable: Learnable = None,
        num_parameters: Counts = 1,
        channel_dim: int = -1,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        check_two_inputs(formula)
        super().__init__(
            formula,
            values,
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            param_dtype=param_dtype,
        )
        self.dim, self.layout, self.gate_first = dim, layout, gate_first

    def __call__(self, input: Array, value: Array | None = None) -> Array:
        """The gate, elementwise: of one packed array, or of gate and value."""
        gate = input
        if value is None:
            gate, value = halves(self.formula, input, self.dim, self.layout, self.gate_first)
        return on_arrays(self.formula)(gate, value, **self.parameter_values(gate))
