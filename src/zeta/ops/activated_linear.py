"""A linear map of an activation that is formed again in backward, not kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from zeta._backends.torch_plain import joined
from zeta._formula import Formula
from zeta._gated import Order
from zeta.kernels import dispatch
from zeta.kernels.function import apply
from zeta.kernels.operands import Packing
from zeta.kernels.support import is_eager, is_plain
from zeta.ops.gated import Reuse, checked_packing, of_packed


def activated_linear(
    *inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    formula: Formula,
    layout: Order = "halves",
    gate_first: bool = True,
    reuse: Reuse = None,
    **parameters: float | Tensor,
) -> Tensor:
    """``F.linear(formula(*inputs, **parameters), weight, bias)`` that keeps the inputs alone.

    The weight's gradient takes the activation, which ``F.linear`` keeps for that from forward to
    backward: as much memory as an input. Here it is computed a second time, by the same kernel, so
    that a block saves the formula's inputs and the weight; so does one without a kernel, whose
    plain operations are all run again. Under `torch.compile`, whose compiler decides what to form
    again, and of tensors of another kind (quantized, sharded) this is the plain expression.

    Args:
        inputs: as many as the formula has, of one shape (…, in); or for a gate one tensor
            (…, 2·in) that holds both, see :func:`zeta.ops.gated`.
        weight: (out, in).
        bias: (out,).
        formula: a formula of any number of inputs.
        layout, gate_first, reuse: of one tensor, as in :func:`zeta.ops.gated`.
        parameters: the formula's; gradients flow to those that are tensors.

    Returns:
        (…, out), of the dtype that ``F.linear`` gives, autocast included.

    Raises:
        TypeError, ValueError: as the formula, :func:`zeta.ops.gated` and ``F.linear``.

    Example:
        >>> import torch
        >>> from zeta.activations import swiglu
        >>> from zeta.ops import activated_linear
        >>> gate, value = torch.ones(2, 3, 4)
        >>> activated_linear(gate, value, weight=torch.ones(5, 4), formula=swiglu).shape
        torch.Size([3, 5])
    """
    if not isinstance(formula, Formula):
        raise TypeError(f"a formula must be a Formula, got {type(formula).__name__}")
    packing, count = None, len(formula.inputs)
    if len(inputs) != count and (count, len(inputs)) != (2, 1):
        shown = f"{count} ({', '.join(formula.inputs)})" if count > 1 else "1"
        raise TypeError(f"{formula!r}: inputs must be {shown}, got {len(inputs)}")
    if len(inputs) < count:
        packing = checked_packing(formula, inputs[0], -1, layout, gate_first, reuse)
    elif reuse:
        raise ValueError('reuse="inputs" is for one tensor that holds the inputs of a gate')
    values = joined(formula, formula.bind(**parameters), inputs[0])
    operands = [*inputs, *(v for v in values.values() if isinstance(v, Tensor))]
    tensors = [weight, *operands] if bias is None else [weight, bias, *operands]
    if not (torch.is_grad_enabled() and _is_one_operation(tensors)):
        return F.linear(_activation(formula, inputs, values, packing), weight, bias)
    numbers = {k: None if isinstance(v, Tensor) else v for k, v in values.items()}
    dtype = _autocast_dtype(weight, inputs[0])
    call = _ActivatedLinear(formula, packing, len(inputs), numbers, bias is not None, dtype)
    y: Tensor = apply(call, *tensors)
    return y


def _is_one_operation(tensors: Sequence[Any]) -> bool:
    """Whether nothing must see the two steps, and autograd may keep these tensors."""
    if not is_eager() or forward_ad._current_level >= 0:
        return False
    return all(is_plain(t) and not t.is_inference() for t in tensors)


def _autocast_dtype(*tensors: Tensor) -> torch.dtype | None:
    """What autocast has ``F.linear`` compute in; None for the tensors' own."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device) or any(t.dtype == torch.float64 for t in tensors):
        return None
    return torch.get_autocast_dtype(device)


def _activation(
    formula: Formula,
    inputs: Sequence[Tensor],
    values: Mapping[str, Any],
    packing: Packing | None,
) -> Tensor:
    if packing:
        return of_packed(formula, inputs[0], packing, values)
    y: Tensor = formula(*inputs, **values)
    return y


class _ActivatedLinear:
    """The two steps as one operation, of the weight, the bias, the inputs and the parameters."""

    def __init__(
        self,
        formula: Formula,
        packing: Packing | None,
        inputs: int,
        numbers: Mapping[str, float | None],
        has_bias: bool,
        dtype: torch.dtype | None,
    ) -> None:
        self.formula = formula
        self.packing = packing
        self.inputs = inputs
        self.numbers = numbers
        self.first = 1 + has_bias
        self.dtype = dtype

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[()]]:
        """The value; nothing is kept but the tensors."""
        return self.plain(tensors), ()

    def plain(self, tensors: Sequence[Tensor]) -> Tensor:
        """The value by differentiable operations."""
        y = _activation(self.formula, *self._arguments(tensors), self.packing)
        linear = [y, *tensors[: self.first]]
        # As autocast did in forward: it is off where this is run again in backward.
        return F.linear(*(t.to(self.dtype or t.dtype) for t in linear))

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        upstream: Tensor,
        needed: tuple[bool, ...],
    ) -> Sequence[Tensor] | None:
        """The gradients of the tensors that need one; None if the formula has no kernel."""
        found = dispatch.prepared(self.formula, *self._arguments(tensors), self.packing)
        if found is None:
            return None
        call, operands = found
        weight, x = tensors[0], operands[0]
        rows = upstream.reshape(math.prod(upstream.shape[:-1]), upstream.shape[-1])
        gradients = []
        if needed[0]:
            y = call.forward(operands)[0].to(rows.dtype)
            gradients.append((rows.T @ y.reshape(len(rows), y.shape[-1])).to(weight.dtype))
        if self.first == 2 and needed[1]:
            gradients.append(rows.sum(0).to(tensors[1].dtype))
        if not any(needed[self.first :]):
            return gradients
        by_y = (upstream @ weight.to(upstream.dtype)).to(x.dtype)
        numbers = [*self.numbers.values()]
        needed = dispatch.for_prepared(needed[self.first :], numbers, self.inputs)
        slopes = call.backward(operands, (), by_y, needed)
        return None if slopes is None else [*gradients, *slopes]

    def _arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """The formula's inputs and its parameters."""
        last = self.first + self.inputs
        learned = iter(tensors[last:])
        values = {k: next(learned) if n is None else n for k, n in self.numbers.items()}
        return tuple(tensors[self.first : last]), values
