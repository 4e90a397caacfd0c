"""TensorFlow in a graph: float32 primitives from operators that TensorFlow Lite has.

TensorFlow Lite has neither erfc, expm1, log1p nor softplus: its converter refuses the first and
writes the others as their definitions, e^x - 1 and the like, which lose every digit where they are
needed and overflow from 89 on. While a graph is traced nothing tells what will become of it, so
that every graph is written so; eager calls keep TensorFlow's own, one operation each.

In a tf.function of a million numbers on two cores, forward and backward take, in units of the time
with TensorFlow's own: elu 0.8, softplus 1.3, mish 1.1, gelu and laplace 1.7; under XLA, which fuses
them, 0.8, 0.5, 0.6 and 1.5 to 1.7. tf.math.erfc costs less since it rounds x², 58 ulp in the tail.
"""

import math
from collections.abc import Callable

import tensorflow as tf
from tensorflow import Tensor

from zeta._backends.minimax import ATANH, ERFC_DENOMINATOR, ERFC_NUMERATOR, polynomial

# Further out, float32 numbers are a sixth of a turn apart and more, and TensorFlow Lite's sine
# leaves [-1, 1] and becomes NaN: the sine is that of this.
LARGEST_ANGLE = 2.0**23

Differentiable = tuple[Tensor, Callable[[Tensor], Tensor]]


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    # tf.sigmoid is off by 5 ulp. Not tf.abs, whose gradient at 0 is 0.
    e = tf.exp(tf.where(x > 0, -x, x))
    return tf.where(x > 0, tf.ones_like(e), e) / (1 + e)


@tf.custom_gradient
def expm1(x: Tensor) -> Differentiable:
    """e^x - 1."""
    return tf.tanh(x / 2) * (tf.exp(x) + 1), lambda dy: dy * tf.exp(x)


@tf.custom_gradient
def log1p(x: Tensor) -> Differentiable:
    """log(1 + x)."""
    # Not log(y) with what y = 1 + x lost put back: Grappler takes (1 + x) - 1 for x.
    is_small = tf.abs(x) < 0.5
    small = tf.where(is_small, x, tf.zeros_like(x))
    return tf.where(is_small, _log1p_of_small(small), tf.math.log(1 + x)), lambda dy: dy / (1 + x)


@tf.custom_gradient
def softplus(x: Tensor) -> Differentiable:
    """log(1 + e^x)."""
    y = tf.maximum(x, 0) + _log1p_of_small(tf.exp(-tf.abs(x)))
    return y, lambda dy: dy * sigmoid(x)


@tf.custom_gradient
def erfc(x: Tensor) -> Differentiable:
    """1 - erf(x)."""
    a = tf.minimum(tf.abs(x), 10.2)  # where float32 has underflowed
    high = tf.round(a * 16) / 16  # its square is exact
    ratio = polynomial(ERFC_NUMERATOR, a) / polynomial(ERFC_DENOMINATOR, a)
    # In this order: XLA would merge neighbouring exponentials, and round a² after all.
    upper = tf.exp(-high * high) * ratio * tf.exp((high - a) * (high + a))
    y = tf.where(x < 0, 2 - upper, upper)
    return y, lambda dy: dy * (-2 / math.sqrt(math.pi)) * tf.exp(-x * x)


def _log1p_of_small(x: Tensor) -> Tensor:
    """log(1 + x) for x in [-1/2, 1]."""
    s = x / (2 + x)
    return 2 * s * polynomial(ATANH, s * s)
