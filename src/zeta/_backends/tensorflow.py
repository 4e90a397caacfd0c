"""TensorFlow: the primitives on tensors, eager or in a graph, each differentiable twice."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from zeta._backends import tensorflow_graph
from zeta._formula import Formula

Primitive = Callable[[Tensor], Tensor]

DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


def _or_in_graph(primitive: Primitive, traced: Primitive) -> Primitive:
    """A primitive, as ``traced`` writes it in float32 for graphs."""
    return lambda x: (traced if _is_for_graph(x) else primitive)(x)


def _is_for_graph(x: Tensor) -> bool:
    return not tf.executing_eagerly() and x.dtype == tf.float32


exp = tf.exp
expm1 = _or_in_graph(tf.math.expm1, tensorflow_graph.expm1)
log = tf.math.log
log1p = _or_in_graph(tf.math.log1p, tensorflow_graph.log1p)
sqrt = tf.sqrt
atan = tf.atan
tanh = tf.tanh
erf = tf.math.erf
erfc = _or_in_graph(tf.math.erfc, tensorflow_graph.erfc)
sigmoid = tensorflow_graph.sigmoid
softplus = _or_in_graph(tf.math.softplus, tensorflow_graph.softplus)


def sin(x: Tensor) -> Tensor:
    return tf.sin(_angle(x))


def cos(x: Tensor) -> Tensor:
    return tf.cos(_angle(x))


def minimum(x: Any, y: Any) -> Tensor:
    return tf.minimum(*_tensors(x, y))


def maximum(x: Any, y: Any) -> Tensor:
    return tf.maximum(*_tensors(x, y))


def clip(x: Tensor, low: Any, high: Any) -> Tensor:
    # tf.clip_by_value's gradient at the bounds is 1.
    low, high = (tf.cast(bound, x.dtype) for bound in (low, high))
    x = tf.where(x <= low, low, x)
    return tf.where(x >= high, high, x)


def piecewise(
    x: Tensor, positive: Callable[[Tensor], Any], otherwise: Callable[[Tensor], Any]
) -> Tensor:
    zero = tf.zeros_like(x)
    branches = (positive(tf.where(x > 0, x, zero)), otherwise(tf.where(x > 0, zero, x)))
    # A constant branch would swallow NaN.
    above, below = (
        y if tf.is_tensor(y) else tf.where(tf.math.is_nan(x), x, tf.cast(y, x.dtype))
        for y in branches
    )
    return tf.where(x > 0, above, below)


def evaluate(formula: Formula, x: Tensor, parameters: dict[str, Any]) -> Tensor:
    """The formula by TensorFlow operations, in float32 for half types."""
    check_input(x, formula.name)
    x = tf.convert_to_tensor(x)
    dtype = compute_dtype(x.dtype)
    values = {
        name: _checked_parameter(formula.name, name, value, x, dtype)
        for name, value in parameters.items()
    }
    y = formula.function(_limits_defined(formula, tf.cast(x, dtype)), **values)
    if not tf.is_tensor(y) or not y.shape.is_compatible_with(x.shape):
        came = f"shape {y.shape}" if tf.is_tensor(y) else type(y).__name__
        raise ValueError(
            f"formula {formula.name!r} must return one value per element of x, "
            f"shape {x.shape}; it returned {came}"
        )
    return tf.cast(y, x.dtype)


def check_input(x: Any, function: str, argument: str = "input") -> None:
    """Raise TypeError unless ``x`` is a tensor of a supported floating-point dtype."""
    if not isinstance(x, Tensor | tf.Variable):
        raise TypeError(f"{function}: {argument} must be a tf.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        accepted = ", ".join(dtype.name for dtype in DTYPES)
        raise TypeError(
            f"{function}: {argument} must be a floating-point tensor ({accepted}), "
            f"got {x.dtype.name}"
        )


def compute_dtype(dtype: tf.DType) -> tf.DType:
    """The dtype that arithmetic runs in: float32 for the half types, else the dtype itself."""
    return tf.float32 if dtype in (tf.float16, tf.bfloat16) else dtype


def _checked_parameter(function: str, name: str, value: Any, x: Tensor, dtype: tf.DType) -> Any:
    """A number as it is, a tensor in the dtype that the computation runs in."""
    if isinstance(value, int | float):
        return value
    if not isinstance(value, Tensor | tf.Variable):
        raise TypeError(
            f"{function}: {name} must be a number or a tensor, got {type(value).__name__}"
        )
    check_input(value, function, name)
    if not _broadcasts(value.shape, x.shape):
        raise ValueError(
            f"{function}: {name} of shape {tuple(value.shape)} does not broadcast to the input's "
            f"shape {tuple(x.shape)}"
        )
    return tf.cast(value, dtype)


def _broadcasts(shape: tf.TensorShape, whole: tf.TensorShape) -> bool:
    """A size that is not known while a graph is traced is taken on trust."""
    if shape.rank is None or whole.rank is None:
        return True
    return shape.rank <= whole.rank and all(
        size in (1, None, wanted) or wanted is None
        for size, wanted in zip(reversed(shape), reversed(whole), strict=False)
    )


def _limits_defined(formula: Formula, x: Tensor) -> Tensor:
    below, above = formula.clamped_sides
    largest = tf.constant(x.dtype.max, x.dtype)
    x = tf.where(x < -largest, -largest, x) if below else x
    return tf.where(x > largest, largest, x) if above else x


def _angle(x: Tensor) -> Tensor:
    largest = tensorflow_graph.LARGEST_ANGLE if _is_for_graph(x) else x.dtype.max
    return clip(x, -largest, largest)


def _tensors(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    like = x if tf.is_tensor(x) else y
    x, y = (tf.cast(v, like.dtype) for v in (x, y))
    return x, y
