"""PyTorch while `torch.onnx.export` looks on: primitives from operators that ONNX has.

ONNX has neither expm1, log1p nor erfc, and the exporter writes them out as their definitions,
e^x - 1 and the like, which lose every digit where they are needed; its log-sigmoid, log(sigmoid),
is -inf at -88. ONNX Runtime's own Sigmoid is off by 1 % at -12. What is written here instead keeps
float32's digits; its erfc has no more of them in float64 either.
"""

import torch
from torch import Tensor

# e^(a²)·erfc(a) on [0, 10.2] as in codegen/primitives.h, by rising powers of a.
_ERFC_NUMERATOR = (1.0, 1.2392618993360802, 0.7324966656327021, 0.2296445077350157,
                   0.03288597662202359)  # fmt: skip
_ERFC_DENOMINATOR = (1.0, 2.3676416557359388, 2.404084683404268, 1.3270347985267574,
                     0.4070602858172196, 0.0582881913573758)  # fmt: skip


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
    upper = gauss * (_polynomial(_ERFC_NUMERATOR, a) / _polynomial(_ERFC_DENOMINATOR, a))
    return torch.where(x < 0, 2 - upper, upper)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    y = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        y = (y + coefficient) * x
    return y + coefficients[0]
