"""Activations whose parameters modules train by default."""

from zeta._formula import Formula, formula
from zeta.math import expm1, piecewise, sin


@formula(lambda_=1.0507, alpha=1.67326, beta=1.0, gamma=0.1, omega=2.0, learnable=True)
def learnable_selu_variation(x, lambda_, alpha, beta, gamma, omega):
    """SELU with a sine on its negative side and five learnable scalars.

    Oscillates within λ(-α ± γ) for x → -∞, so it has no limit there.
    Source: Apoorv 2024, LearnableSELUVariation.
    """
    return lambda_ * piecewise(
        x,
        positive=lambda x: x,
        otherwise=lambda x: alpha * expm1(beta * x) + gamma * sin(omega * x),
    )


__all__ = [name for name, value in globals().items() if isinstance(value, Formula)]
