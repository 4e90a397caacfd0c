"""PyTorch while `torch.onnx.export` looks on: primitives from operators that ONNX has.

ONNX has neither expm1, log1p nor erfc, and the exporter writes them out as their definitions,
e^x - 1 and the like, which lose every digit where they are needed; its log-sigmoid, log(sigmoid),
is -inf at -88. ONNX Runtime's own Sigmoid is off by 1 % at -12. What is written here instead keeps
float32's digits; its erfc has no more of them in float64 either.
"""

import torch
from torch import Tensor

from zeta._backends.minimax import ERFC_DENOMINATOR, ERFC_NUMERATOR, polynomial


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    e = torch.exp(-x.abs())
    return torch.where(x > 0, 1.0, e) / (1 + e)


def expm1(x: Tensor) -> Tensor:
    """e^x - 1."""
    return torch.tanh(x / 2) * (torch.exp(x) + 1)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x)."""
    y = 1 + x
    lost = torch.where((y > 0) & (y < torch.inf), (x - (y - 1)) / y, 0.0)
    return torch.log(y) + lost


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return x.clamp(min=0) + log1p(torch.exp(-x.abs()))


def erfc(x: Tensor) -> Tensor:
    """1 - erf(x)."""
    a = x.abs().clamp(max=10.2)  # where float32 has underflowed
    high = torch.round(a * 16) / 16  # its square is exact
    gauss = torch.exp(-high * high) * torch.exp((high - a) * (high + a))
    upper = gauss * (polynomial(ERFC_NUMERATOR, a) / polynomial(ERFC_DENOMINATOR, a))
    return torch.where(x < 0, 2 - upper, upper)
