"""A linear map of an activation that is formed again in backward, not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta._formula import Formula
from zeta.kernels.support import is_eager
from zeta.ops.gated import Order, gated


def activated_linear(
    *inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    formula: Formula,
    layout: Order = "halves",
    gate_first: bool = True,
    **parameters: float | Tensor,
) -> Tensor:
    """``F.linear(formula(*inputs, **parameters), weight, bias)`` that keeps the inputs alone.

    The weight's gradient takes the activation, which ``F.linear`` keeps for that from forward to
    backward: as much memory as an input. Here it is computed a second time, by the same kernel, so
    that a block saves the formula's inputs and the weight. A formula without a kernel saves what
    plain operations do, the activation excepted. Under `torch.compile`, whose compiler decides what
    to form again, this is the plain expression.

    Args:
        inputs: as many as the formula has, of one shape (…, in); or for a gate one tensor
            (…, 2·in) that holds both, see :func:`zeta.ops.gated`.
        weight: (out, in).
        bias: (out,).
        formula: a formula of any number of inputs.
        layout, gate_first: how gate and value lie in one tensor.
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

    device = inputs[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def activation() -> Tensor:
        if len(inputs) == 1 and len(formula.inputs) == 2:
            arguments: dict[str, Any] = {"layout": layout, "gate_first": gate_first, **parameters}
            y = gated(formula, inputs[0], **arguments)
        else:
            y = formula(*inputs, **parameters)
        return y if dtype is None else y.to(dtype)

    y = activation()
    if not is_eager() or not torch.is_grad_enabled():
        return F.linear(y, weight, bias)
    tensors = [t for t in (*inputs, *parameters.values()) if isinstance(t, Tensor)]
    again = _Again(activation, y.untyped_storage().data_ptr(), tensors)
    with torch.autograd.graph.saved_tensors_hooks(again.pack, again.unpack):
        return F.linear(y, weight, bias)


class _View(NamedTuple):
    """How the activation is seen by the operation that would have kept it."""

    size: torch.Size
    strides: tuple[int, ...]


class _Again:
    """What autograd keeps, but for the activation."""

    def __init__(
        self, activation: Callable[[], Tensor], address: int, tensors: Sequence[Tensor]
    ) -> None:
        self.activation, self.address, self.tensors = activation, address, tensors
        self.versions = _versions(tensors)

    def pack(self, tensor: Tensor) -> Any:
        """The tensor, or how the activation is seen."""
        if tensor.untyped_storage().data_ptr() != self.address:
            return tensor
        return _View(tensor.size(), tensor.stride())

    def unpack(self, kept: Any) -> Tensor:
        """What was packed; autograd knows itself what it was computed from."""
        if not isinstance(kept, _View):
            found: Tensor = kept
            return found
        if _versions(self.tensors) != self.versions:
            raise RuntimeError(
                "an input of activated_linear has been modified by an inplace operation, and the "
                "activation is to be formed of it again"
            )
        with torch.no_grad():
            return self.activation().as_strided(*kept)


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    return [t._version for t in tensors if not t.is_inference()]
