"""Activations of constants that are not trained."""

import math

from zeta import math as zm
from zeta._formula import Formula, formula
from zeta.math import clip, erfc, expm1, piecewise

#: SELU's slope at 0 from below over its slope above, 1.6732632…, of Klambauer et al. 2017.
SELU_ALPHA = 1.6732632423543772848170429916717
#: SELU's slope above 0, 1.0507009…, from the same paper.
SELU_SCALE = 1.0507009873554804934193349852946

_SQRT_HALF = math.sqrt(0.5)


@formula(alpha=1.0)
def exo(x, alpha):
    """A sigmoid gate between the identity and tanh.

    Linear for x → +∞; tends to -1 for x → -∞ (alpha > 0). Source: the Exo document of Zeta.
    """
    gate = zm.sigmoid(alpha * x)
    return gate * x + (1 - gate) * zm.tanh(x)


@formula(mu=0.707107, sigma=0.282095)
def laplace(x, mu, sigma):
    """The normal distribution function of mean mu and standard deviation sigma.

    MEGA's attention activation, an approximation of squared ReLU with a bounded range.
    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """
    z = (x - mu) * (_SQRT_HALF / sigma)
    return 0.5 * erfc(-z)


@formula
def relu(x):
    """The positive part of x. Source: Nair and Hinton 2010."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: 0)


@formula(negative_slope=0.01)
def leaky_relu(x, negative_slope):
    """ReLU with a small slope on its negative side. Source: Maas et al. 2013."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: negative_slope * x)


@formula(alpha=1.0)
def elu(x, alpha):
    """The exponential linear unit. Source: Clevert et al. 2016."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x))


@formula(alpha=SELU_ALPHA, scale=SELU_SCALE)
def selu(x, alpha, scale):
    """The self-normalising exponential linear unit. Source: Klambauer et al. 2017."""
    return scale * piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x))


@formula
def gelu(x):
    """x times the standard normal distribution function. Source: Hendrycks and Gimpel 2016."""
    return x * (0.5 * erfc(-_SQRT_HALF * x))


@formula
def gelu_tanh(x):
    """GELU's tanh approximation, 0.5·x·(1 + tanh u) written as x·sigmoid(2u).

    u = √(2/π)·(x + 0.044715·x³).

    Source: Hendrycks and Gimpel 2016.
    """
    c = clip(x, -32, 32)  # where the gate is 0 or 1 even in float64
    k = 2 * math.sqrt(2 / math.pi)
    return x * zm.sigmoid(c * (k + 0.044715 * k * (c * c)))


@formula
def silu(x):
    """x times its own sigmoid, also called swish. Source: Elfwing et al. 2017."""
    return x * zm.sigmoid(x)


@formula
def mish(x):
    """A smooth gate like SiLU's, x·tanh(softplus(x)). Source: Misra 2019."""
    return x * zm.tanh(zm.softplus(x))


@formula
def softplus(x):
    """A smooth ReLU, log(1 + e^x). Source: Dugas et al. 2001."""
    return zm.softplus(x)


@formula
def tanh(x):
    """The hyperbolic tangent."""
    return zm.tanh(x)


@formula
def sigmoid(x):
    """The logistic function, 1 / (1 + e^-x)."""
    return zm.sigmoid(x)


@formula
def hardswish(x):
    """SiLU with a piecewise linear gate. Source: Howard et al. 2019."""
    return x * ((clip(x, -3, 3) + 3) / 6)


@formula
def squared_relu(x):
    """The square of ReLU. Source: So et al. 2021, Primer."""
    return piecewise(x, positive=lambda x: x * x, otherwise=lambda x: 0)


__all__ = [
    *("SELU_ALPHA", "SELU_SCALE"),
    *(name for name, value in globals().items() if isinstance(value, Formula)),
]
