"""PyTorch's tensors, and formulas on them by plain operations, which kernels fall back on."""

import numbers
from typing import Any

import torch
from torch import Tensor

from zeta._backends.evaluate import Arrays
from zeta._formula import Formula

ARRAYS = Arrays(
    kind="a torch.Tensor",
    noun="tensor",
    types=(Tensor,),
    dtypes=dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float32)
    | {torch.float64: torch.float64},
    cast=lambda x, dtype: x.to(dtype),
    # No clamp: given one bound, ONNX's keeps x finite on both sides.
    at_least=lambda x, low: torch.where(x < low, low, x),
    at_most=lambda x, high: torch.where(x > high, high, x),
    largest=lambda dtype: torch.finfo(dtype).max,
    shape=lambda x: x.shape,
    numbers=(numbers.Real, torch.SymInt, torch.SymFloat),
)
check_input = ARRAYS.check_input
compute_dtype = ARRAYS.compute_dtype


def evaluate_plain(formula: Formula, x: Tensor, parameters: dict[str, Any]) -> Tensor:
    """The formula by plain PyTorch operations, in float32 for half types."""
    return ARRAYS.evaluate(formula, (x,), parameters)
