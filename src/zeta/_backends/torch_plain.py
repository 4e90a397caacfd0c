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
    unstack=torch.unbind,
    numbers=(numbers.Real, torch.SymInt, torch.SymFloat),
)
check_input = ARRAYS.check_input
compute_dtype = ARRAYS.compute_dtype


def joined(formula: Formula, parameters: dict[str, Any], x: Tensor) -> dict[str, Any]:
    """The parameters, where a vector given as a tuple with tensors in it is one tensor."""
    return {
        name: _stacked(value, x) if isinstance(value, tuple) else value
        for name, value in parameters.items()
    }


def _stacked(vector: tuple[Any, ...], x: Tensor) -> Any:
    """The tuple itself where it holds no tensor, or what does not fit together."""
    first = next((value for value in vector if isinstance(value, Tensor)), None)
    if first is None:
        return vector
    like: dict[str, Any] = {"device": first.device, "dtype": compute_dtype(x.dtype)}
    try:
        each = [v if isinstance(v, Tensor) else torch.tensor(v, **like) for v in vector]
        return torch.stack(torch.broadcast_tensors(*each))
    except (RuntimeError, TypeError):  # the tuple's check says what is wrong
        return vector


def evaluate_plain(formula: Formula, x: Tensor, parameters: dict[str, Any]) -> Tensor:
    """The formula by plain PyTorch operations, in float32 for half types."""
    return ARRAYS.evaluate(formula, (x,), parameters)
