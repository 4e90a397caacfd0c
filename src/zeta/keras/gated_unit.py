"""A gate as a Keras layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from zeta._formula import Formula
from zeta._gated import Order, check_two_inputs, checked_dim, half_shape
from zeta._modules import Learnable
from zeta.keras.activations import FormulaLayer, SharedAxes
from zeta.keras.functions import PACKAGE, evaluate, halves

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package=PACKAGE)
class GatedUnit(FormulaLayer):
    """A gate as a layer: of one tensor that holds both of its inputs, or of two tensors.

    Args:
        formula: of two inputs, or its name in the catalogue, "swiglu" say.
        values: starting values by parameter name; the formula's defaults where left out.
        dim, layout, gate_first: how one tensor holds both; see :func:`zeta.keras.gated`.
        learnable: as in :class:`FormulaLayer`.
        shared_axes, groups: as :class:`FormulaLayer` has them, along the axes of the result.
        **kwargs: as every layer takes them, ``name`` and ``dtype`` say.

    Shape: (…, 2·n, …) or twice (…, n, …); the output is (…, n, …).

    Raises:
        TypeError: a formula of another number of inputs, an unknown parameter name, or an input
            that is not floating point.
        ValueError: as :func:`zeta.keras.gated`, or shared axes that do not fit the result.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from zeta.keras import GatedUnit
        >>> y = ops.convert_to_numpy(GatedUnit("swiglu")(np.array([1.0, 3.0], "float32")))
        >>> [round(value, 4) for value in y.tolist()]
        [2.1932]
    """

    _inputs = 2

    def __init__(
        self,
        formula: Formula | str,
        values: Mapping[str, float | Sequence[float]] | None = None,
        *,
        dim: int = -1,
        layout: Order = "halves",
        gate_first: bool = True,
        learnable: Learnable = None,
        shared_axes: SharedAxes | Mapping[str, SharedAxes] = None,
        groups: int | None = None,
        **kwargs: Any,
    ) -> None:
        options: dict[str, Any] = {"shared_axes": shared_axes, "groups": groups, **kwargs}
        super().__init__(formula, values, learnable=learnable, **options)
        check_two_inputs(self.formula)
        self.dim, self.layout, self.gate_first = dim, layout, gate_first

    def build(  # type: ignore[override]  # Keras goes by the names
        self, inputs_shape: Shape, value_shape: Shape | None = None
    ) -> None:
        """Make the parameters, each at its starting value exactly."""
        super().build(self.compute_output_shape(inputs_shape, value_shape))
        self.input_spec = None  # which is of the result

    def call(self, inputs: Any, value: Any = None) -> Any:
        """The gate, elementwise: of one packed tensor, or of gate and value."""
        gate = inputs
        if value is None:
            gate, value = halves(self.formula, inputs, self.dim, self.layout, self.gate_first)
        return evaluate(self.formula, (gate, value), self.parameter_values())

    def compute_output_shape(self, inputs_shape: Shape, value_shape: Shape | None = None) -> Shape:
        """The gate's, or that of a half."""
        if value_shape is not None:
            return tuple(inputs_shape)
        dim = checked_dim(self.formula, inputs_shape, self.dim, self.layout)
        return half_shape(inputs_shape, dim)

    def _arguments(self) -> dict[str, Any]:
        own = {"dim": self.dim, "layout": self.layout, "gate_first": self.gate_first}
        return super()._arguments() | own
