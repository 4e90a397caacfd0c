"""TensorFlow: the primitives on tensors, eager or in a graph, each differentiable twice."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from zeta._backends import tensorflow_graph
from zeta._backends.composed import Composed
from zeta._backends.evaluate import Arrays, Shape

Primitive = Callable[[Tensor], Tensor]


def _shape(x: Tensor) -> Shape:
    return None if x.shape.rank is None else tuple(x.shape)


ARRAYS = Arrays(
    kind="a tf.Tensor",
    noun="tensor",
    types=(Tensor, tf.Variable),
    dtypes=dict.fromkeys((tf.float16, tf.bfloat16, tf.float32), tf.float32)
    | {tf.float64: tf.float64},
    cast=lambda x, dtype: tf.cast(tf.convert_to_tensor(x), dtype),  # a variable's value
    at_least=lambda x, low: tf.where(x < low, low, x),
    at_most=lambda x, high: tf.where(x > high, high, x),
    largest=lambda dtype: tf.constant(dtype.max, dtype),
    shape=_shape,
    unstack=tf.unstack,
)
check_input = ARRAYS.check_input
compute_dtype = ARRAYS.compute_dtype
evaluate = ARRAYS.evaluate


def softmax(formula: Any, x: Any, parameters: dict[str, Any], dim: int, logs: bool) -> Any:
    """The softmax of the formula, or its logarithm, in float32 for half types."""
    ARRAYS.check(formula, (x,), parameters)
    wide = ARRAYS.compute(formula, (tf.cast(x, compute_dtype(x.dtype)),), parameters)
    normalised = tf.nn.log_softmax if logs else tf.nn.softmax
    return tf.cast(normalised(ARRAYS.finite(wide, True, True), axis=dim), x.dtype)


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
stop_gradient = tf.stop_gradient


def sin(x: Tensor) -> Tensor:
    return tf.sin(_angle(x))


def cos(x: Tensor) -> Tensor:
    return tf.cos(_angle(x))


def minimum(x: Any, y: Any) -> Tensor:
    return _extremum(tf.minimum, x, y)


def maximum(x: Any, y: Any) -> Tensor:
    return _extremum(tf.maximum, x, y)


def _extremum(of: Callable[..., Tensor], x: Any, y: Any) -> Tensor:
    # TensorFlow's own gradient of two equal ones is all the first one's: each has half here.
    x, y = _tensors(x, y)
    return tf.where(tf.equal(x, y), 0.5 * x + 0.5 * y, of(x, y))


def clip(x: Tensor, low: Any, high: Any) -> Tensor:
    # tf.clip_by_value's gradient at the bounds is 1.
    low, high = (tf.cast(bound, x.dtype) for bound in (low, high))
    x = tf.where(x <= low, low, x)
    return tf.where(x >= high, high, x)


# 0 times an infinite derivative from within would be NaN.
def sign(x: Tensor) -> Tensor:
    return tf.sign(tf.stop_gradient(x))


def round(x: Tensor) -> Tensor:
    return tf.round(tf.stop_gradient(x))


def floor(x: Tensor) -> Tensor:
    return tf.floor(tf.stop_gradient(x))


def remainder(x: Any, y: Any) -> Tensor:
    return tf.math.floormod(*_tensors(x, y))


def hypot(x: Any, y: Any) -> Tensor:
    return _COMPOSED.hypot(*_tensors(x, y))


def logaddexp(x: Any, y: Any) -> Tensor:
    return _COMPOSED.logaddexp(*_tensors(x, y))


def piecewise(
    x: Tensor, knots: Sequence[Any], branches: Sequence[Callable[[Tensor], Any]]
) -> Tensor:
    y: Any = None
    for low, high, branch in zip((None, *knots), (*knots, None), branches, strict=True):
        value = branch(_within(x, low, high))
        if not tf.is_tensor(value) or value.shape != x.shape:
            # A branch without x would swallow NaN.
            value = tf.where(tf.math.is_nan(x), x, tf.cast(value, x.dtype))
        y = value if low is None else tf.where(x > low, value, y)
    return y


def _within(x: Tensor, low: Any, high: Any) -> Tensor:
    # Not tf.maximum, whose gradient at a knot is 1.
    if low is not None:
        x = tf.where(x > low, x, tf.stop_gradient(tf.cast(low, x.dtype)))
    return x if high is None else tf.where(x > high, tf.stop_gradient(tf.cast(high, x.dtype)), x)


def with_gradient(value: Any, surrogate: Any) -> Tensor:
    value, surrogate = _tensors(value, surrogate)
    shape = tf.broadcast_dynamic_shape(tf.shape(value), tf.shape(surrogate))
    return _with_gradient(*(tf.broadcast_to(v, shape) for v in (value, surrogate)))


@tf.custom_gradient
def _with_gradient(value: Tensor, surrogate: Tensor) -> Any:
    return tf.identity(value), lambda upstream: (None, upstream)


def _angle(x: Tensor) -> Tensor:
    largest = tensorflow_graph.LARGEST_ANGLE if _is_for_graph(x) else x.dtype.max
    return clip(x, -largest, largest)


def _finite(x: Tensor) -> Tensor:
    return clip(x, -x.dtype.max, x.dtype.max)


def _tensors(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    is_like = tf.is_tensor(x) and x.dtype.is_floating
    like = x if is_like else y
    x, y = (tf.cast(v, like.dtype) for v in (x, y))
    return x, y


_COMPOSED = Composed(
    where=tf.where,
    finite=_finite,
    with_gradient=with_gradient,
    round=round,
    sqrt=sqrt,
    log=log,
    log1p=log1p,
    sin=sin,
    softplus=softplus,
)
asinh = _COMPOSED.asinh
rsqrt = _COMPOSED.rsqrt
sinc = _COMPOSED.sinc
