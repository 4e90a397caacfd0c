"""Elementary functions that XLA computes slowly on processors, or loses digits in.

Its float32 sine calls a scalar function per element there, ten times the cost of an exponential,
and its log1p and expm1 take several times as long as the polynomials below. Other dtypes and
devices take XLA's own. Each has its derivative by hand, of any order and in both modes.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from zeta._backends.minimax import ATANH

Function = Callable[[Array], Array]

# π/2 in three parts; a whole number of 12 bits times one of the first two is exact in float32.
_QUARTER_TURN = tuple(map(np.float32, (1.5703125, 4.837512969970703e-4, 7.549790126404332e-8)))
# Further out, float32 numbers are a sixth of a turn apart and more: the sine is that of this.
_LARGEST_ANGLE = np.float32(2**23)
# Minimax on [-π/4, π/4], by rising powers of r².
_SINE = tuple(map(np.float32, (-0.16666655242443085, 0.008332176133990288, -1.9516977772582322e-4)))
_COSINE = tuple(
    map(np.float32, (-0.5, 0.04166664555668831, -0.0013887312961742282, 2.4432785721728578e-5))
)
_ATANH = tuple(map(np.float32, ATANH))
_EXPM1 = tuple(np.float32(1 / math.factorial(k)) for k in range(2, 10))


@jax.custom_jvp
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x); jax.nn.sigmoid is 0 where e^-x overflows but the result is no underflow."""
    e = jnp.exp(-jnp.abs(x))
    return jnp.where(x > 0, 1, e) / (1 + e)


@jax.custom_jvp
def expm1(x: Array) -> Array:
    """e^x - 1."""
    return _on_cpu(_float32_expm1, jnp.expm1, x)


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """log(1 + e^x)."""
    return _on_cpu(_float32_softplus, jax.nn.softplus, x)


@jax.custom_jvp
def sin(x: Array) -> Array:
    """The sine of finite numbers."""
    return _on_cpu(_float32_sin, jnp.sin, x)


@jax.custom_jvp
def cos(x: Array) -> Array:
    """The cosine of finite numbers."""
    return _on_cpu(_float32_cos, jnp.cos, x)


# The value is passed on, so that it is computed once.
sigmoid.defjvps(lambda dx, s, x: dx * (s * (1 - s)))
softplus.defjvps(lambda dx, y, x: dx * sigmoid(x))
expm1.defjvps(lambda dx, y, x: dx * jnp.exp(x))
sin.defjvps(lambda dx, y, x: dx * cos(x))
cos.defjvps(lambda dx, y, x: -dx * sin(x))


def _on_cpu(float32_function: Function, function: Function, x: Array) -> Array:
    if x.dtype != jnp.float32:
        return function(x)
    return lax.platform_dependent(x, cpu=float32_function, default=function)


def _float32_expm1(x: Array) -> Array:
    small = jnp.where(jnp.abs(x) < 0.7, x, 0)
    series = small * small * _polynomial(_EXPM1, small) + small
    return jnp.where(jnp.abs(x) < 0.7, series, jnp.exp(x) - 1)


def _float32_softplus(x: Array) -> Array:
    e = jnp.exp(-jnp.abs(x))
    s = e / (2 + e)  # log(1 + e) = 2·atanh(s)
    return jnp.maximum(x, 0) + 2 * s * _polynomial(_ATANH, s * s)


def _float32_sin(x: Array) -> Array:
    n, sine, cosine = _reduced(x)
    y = jnp.where(n & 1, cosine, sine)
    return jnp.where(n & 2, -y, y)


def _float32_cos(x: Array) -> Array:
    n, sine, cosine = _reduced(x)
    y = jnp.where(n & 1, sine, cosine)
    return jnp.where((n + 1) & 2, -y, y)


def _reduced(x: Array) -> tuple[Array, Array, Array]:
    """n, sin r and cos r with x = n·π/2 + r and |r| at most about π/4."""
    x = lax.clamp(-_LARGEST_ANGLE, x, _LARGEST_ANGLE)
    n = jnp.round(x * np.float32(2 / math.pi))
    high = jnp.round(n / 2**12) * 2**12
    r = x
    for part in _QUARTER_TURN:
        r = r - high * part
        r = r - (n - high) * part
    s = r * r
    return n.astype(jnp.int32), r + r * s * _polynomial(_SINE, s), 1 + s * _polynomial(_COSINE, s)


def _polynomial(coefficients: tuple[np.float32, ...], x: Array) -> Array:
    """Horner's rule; coefficients by rising powers."""
    y = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        y = y * x + coefficient
    return y
