"""The documents' activations as PyTorch functions."""

from torch import Tensor

from zeta import activations
from zeta._modules import EXO, LAPLACE, SELU


def exo(input: Tensor, alpha: float | Tensor = EXO["alpha"]) -> Tensor:
    """Exo: a sigmoid gate between the identity and tanh, elementwise.

    ``exo(x) = g·x + (1 - g)·tanh(x)`` with ``g = sigmoid(alpha·x)``. It is linear for x → +∞
    and, for alpha > 0, tends to -1 for x → -∞.

    Args:
        input: any shape; float16, bfloat16, float32 or float64.
        alpha: a number, or a tensor that broadcasts to the input's shape; gradients flow to it.

    Returns:
        A tensor of the input's shape and dtype.

    Raises:
        TypeError: the input is not a floating-point tensor.
        ValueError: alpha does not broadcast to the input's shape.

    Example:
        >>> import torch
        >>> from zeta.ops import exo
        >>> exo(torch.tensor([-2.0, 0.0, 2.0]), alpha=0.5)
        tensor([-1.2426,  0.0000,  1.7214])

    Source: the Exo document of Zeta.
    """
    return activations.exo(input, alpha)


def learnable_selu_variation(
    input: Tensor,
    lambda_: float | Tensor = SELU["lambda_"],
    alpha: float | Tensor = SELU["alpha"],
    beta: float | Tensor = SELU["beta"],
    gamma: float | Tensor = SELU["gamma"],
    omega: float | Tensor = SELU["omega"],
) -> Tensor:
    """SELU with a sine on its negative side, elementwise.

    ``f(x) = lambda_·x`` for x > 0, else
    ``lambda_·(alpha·(e^(beta·x) - 1) + gamma·sin(omega·x))``. For x → -∞ it oscillates within
    ``lambda_·(-alpha ± gamma)``: there is no limit, and -inf gives a value within that band.

    Args:
        input: any shape; float16, bfloat16, float32 or float64.
        lambda_, alpha, beta, gamma, omega: numbers, or tensors that broadcast to the input's
            shape; gradients flow to them.

    Returns:
        A tensor of the input's shape and dtype.

    Raises:
        TypeError: the input is not a floating-point tensor.
        ValueError: a parameter does not broadcast to the input's shape.

    Example:
        >>> import torch
        >>> from zeta.ops import learnable_selu_variation
        >>> learnable_selu_variation(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([-1.4406,  0.0000,  2.1014])

    Source: Apoorv 2024, LearnableSELUVariation.
    """
    return activations.learnable_selu_variation(input, lambda_, alpha, beta, gamma, omega)


def laplace(
    input: Tensor, mu: float | Tensor = LAPLACE["mu"], sigma: float | Tensor = LAPLACE["sigma"]
) -> Tensor:
    """The Laplace activation: the normal distribution function, elementwise.

    ``laplace(x) = 0.5·(1 + erf((x - mu) / (sigma·√2)))``, computed as ``0.5·erfc(-z)`` so that
    the lower tail keeps its digits.

    Args:
        input: any shape; float16, bfloat16, float32 or float64.
        mu: mean; a number, or a tensor that broadcasts to the input's shape.
        sigma: standard deviation, likewise; not 0.

    Returns:
        A tensor of the input's shape and dtype, in [0, 1].

    Raises:
        TypeError: the input is not a floating-point tensor.
        ValueError: mu or sigma does not broadcast to the input's shape.

    Example:
        >>> import torch
        >>> from zeta.ops import laplace
        >>> laplace(torch.tensor([0.0, 0.707107, 2.0]))
        tensor([0.0061, 0.5000, 1.0000])

    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """
    return activations.laplace(input, mu, sigma)
