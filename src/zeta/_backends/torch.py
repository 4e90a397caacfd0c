"""PyTorch: the primitives on tensors, each differentiable twice."""

import math
import numbers
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.masked import MaskedTensor
from torch.overrides import handle_torch_function, has_torch_function

from zeta._backends import constant_while_compiling, torch_onnx
from zeta._formula import Formula
from zeta.kernels import dispatch

NUMBERS = (numbers.Real, torch.SymInt, torch.SymFloat)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Primitive = Callable[[Tensor], Tensor]


@constant_while_compiling
def _is_for_onnx() -> bool:
    # Asked of torch.onnx alone, the question would import it.
    return "torch.onnx" in sys.modules and torch.onnx.is_in_onnx_export()


def _or_for_onnx(primitive: Primitive, exported: Primitive) -> Primitive:
    """A primitive, as ``exported`` writes it while `torch.onnx.export` looks on."""
    return lambda x: (exported if _is_for_onnx() else primitive)(x)


def _sigmoid(x: Tensor) -> Tensor:
    # torch.sigmoid is 0 where e^-x overflows, though the result is no underflow yet; that far
    # down, e^x is the sigmoid to the last bit.
    return torch.where(x < -40, torch.exp(torch.clamp(x, max=-40)), torch.sigmoid(x))


def _softplus(x: Tensor) -> Tensor:
    # F.softplus returns x itself above its threshold: here where neither it nor its slope, 1, can
    # be told from the truth. DTensor and nested tensors know it, and not F.logsigmoid.
    return F.softplus(x, threshold=2 - math.log(torch.finfo(x.dtype).eps))


exp = torch.exp
expm1 = _or_for_onnx(torch.expm1, torch_onnx.expm1)
log = torch.log
log1p = _or_for_onnx(torch.log1p, torch_onnx.log1p)
sqrt = torch.sqrt
atan = torch.atan
tanh = torch.tanh
erf = torch.erf
erfc = _or_for_onnx(torch.erfc, torch_onnx.erfc)
sigmoid = _or_for_onnx(_sigmoid, torch_onnx.sigmoid)
softplus = _or_for_onnx(_softplus, torch_onnx.softplus)


def clip(x: Any, low: Any, high: Any) -> Tensor:
    # torch.clamp's gradient at the bounds is 1.
    x, low, high = _tensors(x, low, high)
    x = torch.where(x <= low, low, x)
    return torch.where(x >= high, high, x)


def sin(x: Tensor) -> Tensor:
    return torch.sin(_finite(x))


def cos(x: Tensor) -> Tensor:
    return torch.cos(_finite(x))


def minimum(x: Any, y: Any) -> Tensor:
    return torch.minimum(*_tensors(x, y))


def maximum(x: Any, y: Any) -> Tensor:
    return torch.maximum(*_tensors(x, y))


def piecewise(
    x: Tensor, positive: Callable[[Tensor], Any], otherwise: Callable[[Tensor], Any]
) -> Tensor:
    branches = (positive(torch.clamp(x, min=0)), otherwise(torch.clamp(x, max=0)))
    # A constant branch would swallow NaN.
    above, below = (y if isinstance(y, Tensor) else torch.where(x.isnan(), x, y) for y in branches)
    return torch.where(x > 0, above, below)


def evaluate(formula: Formula, x: Any, parameters: dict[str, Any]) -> Tensor:
    """The formula: one fused kernel where that is possible, else plain operations."""
    if is_symbol(x):
        node: Any = formula
        symbolic: Tensor = handle_torch_function(node, (x,), x, **parameters)
        return symbolic
    y = dispatch.fused(formula, (x,), parameters, evaluate_plain)
    if y is None and isinstance(x, MaskedTensor):
        return _Masked.apply(evaluate(formula, x.to_tensor(0), parameters), x.get_mask())
    return evaluate_plain(formula, x, parameters) if y is None else y


def is_symbol(x: Any) -> bool:
    """Whether it stands for a tensor to come, as what `torch.fx` traces with does."""
    return not isinstance(x, Tensor) and has_torch_function((x,))


class _Masked(torch.autograd.Function):
    """Values with a mask; what is masked out has no part in gradients.

    MaskedTensor itself knows few operations, and the gradients of fewer.
    """

    @staticmethod
    def forward(ctx: Any, data: Tensor, mask: Tensor) -> Tensor:
        ctx.mask = mask
        return MaskedTensor(data.detach(), mask)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        data = upstream.get_data() if isinstance(upstream, MaskedTensor) else upstream
        return data.masked_fill(~ctx.mask, 0), None


def evaluate_plain(formula: Formula, x: Tensor, parameters: dict[str, Any]) -> Tensor:
    """The formula by plain PyTorch operations, in float32 for half types."""
    check_input(x, formula.name)
    dtype = compute_dtype(x.dtype)
    values = {
        name: _checked_parameter(formula.name, name, value, x, dtype)
        for name, value in parameters.items()
    }
    try:
        y = formula.function(_limits_defined(formula, x.to(dtype)), **values)
    except RuntimeError as error:
        if "Boolean value of Tensor" not in str(error):
            raise
        raise TypeError(
            f"formula {formula.name!r} asks of all of x at once what differs from element to "
            "element: write zeta.math.maximum(x, 0) for max(x, 0), minimum for min, and "
            "zeta.math.piecewise(x, positive=…, otherwise=…) for an if"
        ) from error
    if not isinstance(y, Tensor) or y.shape != x.shape:
        came = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"formula {formula.name!r} must return one value per element of x, "
            f"shape {tuple(x.shape)}; it returned {came}"
        )
    return y.to(x.dtype)


def check_input(x: Any, function: str, argument: str = "input") -> None:
    """Raise TypeError unless ``x`` is a tensor of a supported floating-point dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{function}: {argument} must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        accepted = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(
            f"{function}: {argument} must be a floating-point tensor ({accepted}), got {x.dtype}"
        )


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that arithmetic runs in: float32 for the half types, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _checked_parameter(function: str, name: str, value: Any, x: Tensor, dtype: torch.dtype) -> Any:
    """A number as it is, a tensor in the dtype that the computation runs in."""
    if isinstance(value, NUMBERS):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{function}: {name} must be a number or a tensor, got {type(value).__name__}"
        )
    check_input(value, function, name)
    fits = value.dim() <= x.dim() and all(
        size in (1, whole)
        for size, whole in zip(reversed(value.shape), reversed(x.shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{function}: {name} of shape {tuple(value.shape)} does not broadcast to the input's "
            f"shape {tuple(x.shape)}; accepted: a number, a scalar tensor, or one value per "
            "channel with size 1 in every other dimension"
        )
    return value.to(dtype)


# Decided by mpmath at first use, which torch.compile and torch.export need not trace.
@constant_while_compiling
def _clamped_sides(formula: Formula) -> tuple[bool, bool]:
    return formula.clamped_sides


def _limits_defined(formula: Formula, x: Tensor) -> Tensor:
    below, above = _clamped_sides(formula)
    largest = torch.finfo(x.dtype).max
    # Not torch.clamp: ONNX's Clip, given one bound, keeps x finite on both sides.
    x = torch.where(x < -largest, -largest, x) if below else x
    return torch.where(x > largest, largest, x) if above else x


def _finite(x: Tensor) -> Tensor:
    largest = torch.finfo(x.dtype).max
    return torch.clamp(x, -largest, largest)


def _tensors(*values: Any) -> tuple[Tensor, ...]:
    like = next(value for value in values if isinstance(value, Tensor))
    return tuple(torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)
