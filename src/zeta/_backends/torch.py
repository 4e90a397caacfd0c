"""PyTorch: the primitives on tensors, each differentiable twice."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.masked import MaskedTensor
from torch.overrides import handle_torch_function, has_torch_function

from zeta._backends import constant_while_compiling, torch_onnx
from zeta._backends.composed import Composed
from zeta._backends.torch_plain import ARRAYS, joined
from zeta._formula import Formula
from zeta.kernels import dispatch, operator, softmax as _softmax

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


def remainder(x: Any, y: Any) -> Tensor:
    return torch.remainder(*_tensors(x, y))


# Detached: 0 times an infinite derivative from within would be NaN.
def sign(x: Tensor) -> Tensor:
    x = x.detach()
    return torch.where(x.isnan(), x, torch.sign(x))


def round(x: Tensor) -> Tensor:
    return torch.round(x.detach())


def floor(x: Tensor) -> Tensor:
    return torch.floor(x.detach())


def piecewise(
    x: Tensor, knots: Sequence[Any], branches: Sequence[Callable[[Tensor], Any]]
) -> Tensor:
    y: Any = None
    for low, high, branch in zip((None, *knots), (*knots, None), branches, strict=True):
        value = branch(_within(x, low, high))
        if not (isinstance(value, Tensor) and value.shape == x.shape and x.dim()):
            value = torch.where(x.isnan(), x, value)  # a branch without x would swallow NaN
        y = value if low is None else torch.where(x > low, value, y)
    return y


def _within(x: Tensor, low: Any, high: Any) -> Tensor:
    # Not torch.clamp, whose gradient is 1 at 0 for either branch, and 0 at NaN.
    if low is not None:
        x = torch.where(x > low, x, _constant(low))
    return x if high is None else torch.where(x > high, _constant(high), x)


def _constant(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def with_gradient(value: Any, surrogate: Any) -> Tensor:
    value, surrogate = torch.broadcast_tensors(*_tensors(value, surrogate))
    if _is_for_onnx():
        return value
    # No autograd.Function: compiled, exported or within transforms it loses its derivative. The
    # difference is +0, which taken from any number leaves the same bits; of infinities it is NaN.
    zero = surrogate.detach() - surrogate
    return value.detach() - torch.where(zero == 0, zero, 0)


def stop_gradient(x: Tensor) -> Tensor:
    return x.detach()


def softmax(
    formula: Formula, x: Tensor, parameters: dict[str, Any], dim: int, logs: bool
) -> Tensor:
    """The softmax of the formula, or its logarithm; as :func:`evaluate`."""
    if is_symbol(x):
        method: Any = formula.log_softmax if logs else formula.softmax
        symbolic: Tensor = handle_torch_function(method, (x,), x, dim=dim, **parameters)
        return symbolic
    parameters = joined(formula, parameters, x)
    y = _softmax.fused(formula, x, parameters, dim, logs)
    if y is not None:
        return y
    ARRAYS.check(formula, (x,), parameters)
    return _softmax.plain(formula, x, parameters, dim, logs)


def evaluate(formula: Formula, inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Tensor:
    """The formula: one fused kernel where that is possible, else plain operations."""
    if formula.vectors:
        parameters = joined(formula, parameters, inputs[0])
    if torch.compiler.is_compiling():
        y = operator.traced(formula, inputs, parameters)
    else:
        y = dispatch.fused(formula, inputs, parameters)
    if y is not None:
        return y
    if any(map(is_symbol, inputs)):
        node: Any = formula
        symbolic: Tensor = handle_torch_function(node, inputs, *inputs, **parameters)
        return symbolic
    if isinstance(inputs[0], MaskedTensor) and len(inputs) == 1:
        x = inputs[0]
        return _Masked.apply(evaluate(formula, (x.to_tensor(0),), parameters), x.get_mask())
    plain: Tensor = ARRAYS.evaluate(formula, inputs, parameters)
    return plain


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


def _finite(x: Tensor) -> Tensor:
    # Not torch.clamp: its gradient at NaN is 0.
    largest = torch.finfo(x.dtype).max
    return torch.where(x < -largest, -largest, torch.where(x > largest, largest, x))


def _tensors(*values: Any) -> tuple[Tensor, ...]:
    tensors = [value for value in values if isinstance(value, Tensor)]
    like = next((t for t in tensors if t.is_floating_point()), tensors[0])
    return tuple(torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)


_COMPOSED = Composed(
    where=torch.where,
    finite=_finite,
    with_gradient=with_gradient,
    round=round,
    sqrt=sqrt,
    log=log,
    log1p=log1p,
    sin=sin,
    softplus=softplus,
)
asinh = _COMPOSED.asinh
rsqrt = _COMPOSED.rsqrt
sinc = _COMPOSED.sinc


def hypot(x: Any, y: Any) -> Tensor:
    return _COMPOSED.hypot(*_tensors(x, y))


def logaddexp(x: Any, y: Any) -> Tensor:
    return _COMPOSED.logaddexp(*_tensors(x, y))
