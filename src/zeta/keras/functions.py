"""Functions on Keras tensors, of whichever backend, symbolic ones included."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, Operation, ops

from zeta import activations
from zeta._backends.evaluate import dtype_name
from zeta._call_forms import input_also_called
from zeta._formula import Formula
from zeta._gated import Order, check_two_inputs, places
from zeta._selu_softmax import DIM_LEFT_OUT, checked_dim
from zeta.activations import SELU_ALPHA, SELU_SCALE

PACKAGE = "zeta"
DTYPES = ("float16", "bfloat16", "float32", "float64")


@keras.saving.register_keras_serializable(package=PACKAGE)
class Elementwise(Operation):
    """A catalogue function as an operation of a functional model.

    Args:
        function: its name in the catalogue.
    """

    def __init__(self, function: str, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.function = function

    def call(self, *inputs: Any, **parameters: Any) -> Any:
        """The function, elementwise."""
        return evaluate(activations.get(self.function), inputs, parameters)

    def get_config(self) -> dict[str, Any]:
        """What builds the same operation."""
        return {"function": self.function, "name": self.name}


def on_tensors(formula: Formula) -> Callable[..., Any]:
    """A catalogue formula as a function of Keras tensors.

    The function takes the inputs and then the formula's parameters, by position or name, each a
    number, a tensor or a variable that broadcasts to the input's shape; gradients flow to all of
    them. Of one input, it serves as ``activation=`` of a layer and is saved with it. On the PyTorch
    backend it runs as a fused kernel.

    Raises:
        TypeError: an input that is not floating point, or an unknown parameter.
        ValueError: a parameter that does not broadcast to the input's shape.

    Example:
        >>> from zeta import activations
        >>> from zeta.keras.functions import on_tensors
        >>> from keras import ops
        >>> y = on_tensors(activations.exo)(ops.convert_to_tensor([-2.0, 0.0, 2.0]), alpha=0.5)
        >>> [round(value, 4) for value in ops.convert_to_numpy(y).tolist()]
        [-1.2426, 0.0, 1.7214]
    """

    @functools.wraps(formula, updated=())
    def function(*args: Any, **kwargs: Any) -> Any:
        inputs, parameters = formula.arguments(*args, **kwargs)
        values = (*inputs, *formula.members(parameters))
        if any(isinstance(value, KerasTensor) for value in values):
            return Elementwise(formula.name)(*inputs, **parameters)
        return evaluate(formula, inputs, parameters)

    function.__module__ = "zeta.keras"  # where it is found, for pickles
    return function


def gated(
    formula: Formula | str,
    packed: Any,
    dim: int = -1,
    *,
    layout: Order = "halves",
    gate_first: bool = True,
    **parameters: Any,
) -> Any:
    """A gate on one tensor that holds both of its inputs; see :func:`zeta.ops.gated`.

    Args:
        formula: of two inputs, or its name in the catalogue.
        packed: a tensor (…, 2·n, …), floating point.
        dim: the dimension that holds both.
        layout: "halves", or "interleaved" for gate and value in turn.
        gate_first: whether the gate comes first; `keras.ops.glu` has the value first.
        parameters: the formula's, by name; gradients flow to tensors.

    Returns:
        (…, n, …), of the dtype of ``packed``.

    Raises:
        TypeError: a formula of another number of inputs, or a tensor that is not floating point.
        ValueError: an unknown layout, or a dimension of odd or unknown size.
        IndexError: there is no such dimension.

    Example:
        >>> from keras import ops
        >>> from zeta.keras import gated
        >>> y = gated("swiglu", ops.convert_to_tensor([1.0, 2.0, 3.0, 4.0]))
        >>> [round(value, 4) for value in ops.convert_to_numpy(y).tolist()]
        [2.1932, 7.0464]
    """
    formula = activations.get(formula) if isinstance(formula, str) else formula
    check_two_inputs(formula)
    gate, value = halves(formula, packed, dim, layout, gate_first)
    return on_tensors(formula)(gate, value, **parameters)


def halves(
    formula: Formula, packed: Any, dim: int, layout: Order, gate_first: bool
) -> tuple[Any, Any]:
    """Gate and value of a tensor that holds both; see :func:`gated`."""
    packed = as_tensor(packed)
    check_float(packed, formula.name, "packed")
    gate, value = (packed[at] for at in places(formula, packed.shape, dim, layout, gate_first))
    return gate, value


def evaluate(formula: Formula, inputs: Iterable[Any], parameters: Mapping[str, Any]) -> Any:
    """The formula on tensors of Keras's backend; parameters may be variables."""
    tensors = {
        name: tuple(map(as_tensor, value)) if isinstance(value, tuple) else as_tensor(value)
        for name, value in parameters.items()
    }
    return formula(*map(ops.convert_to_tensor, inputs), **tensors)


def as_tensor(given: Any) -> Any:
    """A variable or a NumPy array as a tensor of Keras's backend; else what came."""
    if isinstance(given, keras.Variable):
        return given.value
    if isinstance(given, np.ndarray | np.generic):
        return ops.convert_to_tensor(given)
    return given


def check_float(x: Any, function: str, argument: str = "input") -> None:
    """Raise TypeError unless ``x`` is a tensor of a supported floating-point dtype."""
    if not hasattr(x, "dtype"):
        raise TypeError(f"{function}: {argument} must be a tensor, got {type(x).__name__}")
    if dtype_name(x) not in DTYPES:
        raise TypeError(
            f"{function}: {argument} must be a floating-point tensor ({', '.join(DTYPES)}), "
            f"got {dtype_name(x)}"
        )


def compute_dtype(dtype: str) -> str:
    """The dtype that arithmetic runs in: float32 for the half types, else the dtype itself."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


@keras.saving.register_keras_serializable(package=PACKAGE)
@input_also_called("x")
def selu_softmax(
    input: Any,
    dim: int = DIM_LEFT_OUT,
    *,
    alpha: float = SELU_ALPHA,
    scale: float = SELU_SCALE,
) -> Any:
    """Softmax of the SELU of the input.

    ``softmax(scale·(max(0, x) + min(0, alpha·(e^x - 1))), dim)``.

    Args:
        input: a floating-point tensor.
        dim: the dimension that sums to one. The documented default 0 normalises over the batch:
            leaving it out on an input of two or more dimensions warns, once per process.
        alpha: SELU's saturation value, positive.
        scale: SELU's slope.

    Returns:
        Probabilities of the input's shape and dtype.

    Raises:
        TypeError: the input is not floating point, or dim is no integer.
        IndexError: the input has no such dimension.

    Example:
        >>> from keras import ops
        >>> from zeta.keras import selu_softmax
        >>> y = selu_softmax(ops.convert_to_tensor([-1.0, 0.0, 1.0]), dim=-1)
        >>> [round(value, 4) for value in ops.convert_to_numpy(y).tolist()]
        [0.0786, 0.2387, 0.6827]

    Source: the selu_softmax document of Zeta; Klambauer et al. 2017 for SELU.
    """
    check_float(input, "selu_softmax")
    axis = checked_dim(dim, len(input.shape))
    dtype = compute_dtype(dtype_name(input))
    activation = _selu(ops.cast(input, dtype), alpha, scale)
    # SELU may overflow to inf, and inf - inf is NaN inside the softmax.
    largest = float(np.finfo(dtype).max)
    return ops.cast(ops.softmax(ops.clip(activation, -largest, largest), axis), dtype_name(input))


_selu = on_tensors(activations.selu)
