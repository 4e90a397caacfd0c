"""`match_variance`: initial weights with which an activation keeps a signal's size."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from zeta._errors import UserError
from zeta._formula import Formula
from zeta.evaluate.candidates import is_gate
from zeta.nn.init import calculate_gain

# For gates: points of N(0, 1), beyond which its density is below 1e-14, fifty to a standard
# deviation; a knot at a round number is among them.
_POINTS = np.linspace(-8, 8, 801)


def match_variance(
    network: nn.Module, activations: Sequence[nn.Module], gain: float, seed: int
) -> None:
    """Draw the weights of linear layers and convolutions anew, of N(0, g²/fan_in); no biases.

    With g = 1 before the first activation f, and g = 1/√E[f(z)²], z of N(0, 1), after it: then
    pre-activations have variance 1 in every layer, whatever f is. It is the initialisation of He
    et al. (2015), "Delving deep into rectifiers", whose √2 is this gain of ReLU. Equal seeds draw
    equal numbers for every activation; those of a layer are scaled alike.

    Args:
        network: its layers are taken in the order in which they were registered.
        activations: those of its modules that are activations.
        gain: of the activation, see :func:`matched_gain`.
        seed: draws the numbers.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zeta.evaluate.initialisation import match_variance
        >>> network = nn.Sequential(nn.Linear(100, 500), nn.ReLU(), nn.Linear(500, 500))
        >>> match_variance(network, [network[1]], gain=2**0.5, seed=0)
        >>> bool((network(torch.randn(100, 100)).std() - 1).abs() < 0.1)
        True
    """
    numbers = torch.Generator().manual_seed(seed)
    scale = 1.0
    for module in network.modules():
        if any(module is one for one in activations):
            scale = gain
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            _draw(module, scale, numbers)


@torch.no_grad()
def _draw(layer: nn.Linear | nn.Conv1d | nn.Conv2d, gain: float, numbers: torch.Generator) -> None:
    fan_in = layer.weight[0].numel()
    drawn = torch.randn(layer.weight.shape, generator=numbers)
    layer.weight.copy_(drawn * (gain / math.sqrt(fan_in)))
    if layer.bias is not None:
        layer.bias.zero_()


@lru_cache(maxsize=256)
def matched_gain(activation: str, formula: Formula) -> float:
    """1/√E[f(z)²] with the parameters' start values; of a gate, 1/√E[f(z, v)²], all of N(0, 1).

    An activation that a task makes a gate of, f(z)·v, has the gain of f, since E[v²] = 1.

    Args:
        activation: what to call the formula in an error.

    Raises:
        UserError: the expectation is 0 or infinite.

    Example:
        >>> from zeta.activations import relu, reglu
        >>> from zeta.evaluate.initialisation import matched_gain
        >>> round(matched_gain("relu", relu), 4), round(matched_gain("reglu", reglu), 4)
        (1.4142, 1.4142)
    """
    try:
        return _gain_of_gate(formula) if is_gate(formula) else calculate_gain(formula)
    except ValueError:
        raise UserError(
            f"{activation!r} has no variance-preserving initialisation: the mean of its square "
            "over N(0, 1) is 0, infinite or cannot be computed; it can be evaluated without "
            "--init matched"
        ) from None


def _gain_of_gate(formula: Formula) -> float:
    """By the rectangle rule.

    Raises:
        ValueError: it is no positive number.
    """
    density = np.exp(-(_POINTS**2) / 2)
    weights = density / density.sum()
    with np.errstate(all="ignore"):
        square = np.square(formula(_POINTS[:, None], _POINTS[None, :]))
        mean = float(weights @ square @ weights)
    if not 0 < mean < math.inf:
        raise ValueError
    return 1 / math.sqrt(mean)
