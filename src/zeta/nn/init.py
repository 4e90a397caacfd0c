"""Initial scales of weights, from the formula of the activation that follows."""

import math

import numpy as np

from zeta import activations
from zeta._formula import Formula
from zeta._modules import check_one_input, starting_values

__all__ = ["calculate_gain"]

# Beyond, the density of N(0, 1) is 0 in float64. The parts, each of 21 points and more, make that
# what is a hundredth wide is not stepped over; 0 is where `piecewise` has its kink.
_LIMIT = 38.0
_SPLITS = np.linspace(-8, 8, 129)


def calculate_gain(formula: Formula | str, **parameters: float) -> float:
    r"""The gain that keeps the second moment of signals through a layer and its activation.

    ``gain = 1 / √E[f(z)²]`` with ``z ~ N(0, 1)``: weights of variance ``gain²/fan_in`` then turn
    inputs ``f(z)`` into pre-activations of variance 1 again. For ReLU this is He's √2, for SELU 1,
    its fixed point. The expectation is integrated numerically to ten digits and more; what is
    narrower than a hundredth, a spike, may be missed.

    `torch.nn.init.calculate_gain` takes PyTorch's own names only, and some of its values come from
    elsewhere: its 5/3 for tanh and 3/4 for SELU are not this equation, which gives 1.5925 and 1.

    Args:
        formula: a formula, or a name of the catalogue.
        **parameters: values of the formula's parameters; its defaults where left out.

    Returns:
        The gain, as ``nn.init.xavier_normal_(weight, gain)`` takes it; for He's initialisation, a
        standard deviation of ``gain / √fan_in``.

    Raises:
        TypeError: something else than a formula of one input or a name, or an unknown parameter.
        ValueError: an unknown name, or an expectation that is 0, infinite or too irregular to
            integrate.

    Example:
        >>> from zeta.nn.init import calculate_gain
        >>> round(calculate_gain("relu"), 10)
        1.4142135624
        >>> round(calculate_gain("exo", alpha=0.5), 4)
        1.2291

    Source: He et al. 2015, Delving Deep into Rectifiers; Klambauer et al. 2017.
    """
    from scipy import integrate

    found = activations.get(formula) if isinstance(formula, str) else formula
    if not isinstance(found, Formula):
        raise TypeError(
            "calculate_gain: formula must be a Formula or a name of the catalogue, got "
            f"{type(found).__name__}"
        )
    check_one_input(found, "calculate_gain")
    values = starting_values(found, parameters)

    def weighted(z: float) -> float:
        with np.errstate(over="ignore"):
            return float(np.square(found(z, **values))) * math.exp(-z * z / 2)

    integral, error, *_ = integrate.quad(
        weighted, -_LIMIT, _LIMIT, points=_SPLITS, epsabs=0, epsrel=1e-13, limit=1000, full_output=1
    )
    if not (0 < integral < math.inf and error <= 1e-10 * integral):
        raise ValueError(
            f"calculate_gain: E[f(z)²] of {found!r} cannot be computed "
            f"(got {integral / math.sqrt(2 * math.pi):g}); accepted: formulas whose square has a "
            "positive, finite mean over N(0, 1)"
        )
    return math.sqrt(math.sqrt(2 * math.pi) / integral)
