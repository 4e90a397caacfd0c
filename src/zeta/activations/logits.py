"""What stands between logits and a softmax.

A formula of which p_v ∝ g(x_v) is given is log g here.
"""

import math

from zeta import math as zm
from zeta._formula import Formula, formula
from zeta.math import clip, hypot, piecewise


@formula(tau=1.0)
def temperature(x, tau):
    """x / tau: flatter for a larger tau. Source: Hinton et al. 2015, Distilling the Knowledge."""
    return x * (1 / tau)


@formula(cap=30.0)
def softcap(x, cap):
    """A smooth bound, cap·tanh(x / cap). Used by: Gemma 2. Source: Bello et al. 2016."""
    return cap * zm.tanh(x * (1 / cap))


@formula
def sigsoftmax(x):
    """p ∝ e^x·σ(x), whose logarithm is x - log(1 + e^-x). Source: Kanai et al. 2018, Sigsoftmax."""
    return x - zm.softplus(-x)


@formula
def taylor_softmax(x):
    """p ∝ 1 + x + x²/2. Source: de Brébisson and Vincent 2016, the spherical loss family."""
    c = clip(x, -1e17, 1e17)  # beyond, the square is all, and would overflow
    beyond = zm.log(zm.maximum(abs(x), 1e17)) - math.log(1e17)
    return zm.log1p(c + 0.5 * (c * c)) + 2 * beyond


@formula
def stablemax(x):
    """p ∝ 1 + x for x ≥ 0, else 1 / (1 - x).

    Source: Prieto et al. 2025, Grokking at the Edge of Numerical Stability.
    """
    return piecewise(x, positive=lambda x: zm.log1p(x), otherwise=lambda x: -zm.log1p(-x))


@formula(scale=23.0, shift=5.0, width=7.5)
def shifted_sigmoid(x, scale, shift, width):
    """scale·σ((x + shift) / width), a smooth bound.

    Used by: modded-nanogpt.
    Source: Jordan et al. 2024, modded-nanogpt.
    """
    return scale * zm.sigmoid((x + shift) * (1 / width))


@formula(cap=15.0)
def softcap_rsqrt(x, cap):
    """A smooth bound without tanh, cap·x / √(x² + cap²).

    Used by: modded-nanogpt.

    Source: Jordan et al. 2024, modded-nanogpt.
    """
    return cap * (x / hypot(x, cap))


__all__ = [name for name, value in globals().items() if isinstance(value, Formula)]
