"""A gate on one tensor that holds both of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from zeta._backends.torch_plain import check_input, joined
from zeta._formula import Formula
from zeta._gated import Order, check_two_inputs, checked_dim
from zeta.kernels import dispatch
from zeta.kernels.operands import Packing

Reuse = Literal["inputs"] | None


def gated(
    formula: Formula,
    packed: Tensor,
    dim: int = -1,
    *,
    layout: Order = "halves",
    gate_first: bool = True,
    reuse: Reuse = None,
    **parameters: float | Tensor,
) -> Tensor:
    """A formula of two inputs, which lie in one tensor and are read there: nothing is copied.

    ``gated(swiglu, packed) = swiglu(gate, value)`` with ``gate, value = packed.chunk(2, dim)``; the
    gradient is one tensor that lies as ``packed`` does. ``F.glu`` is ``gated(glu, packed,
    gate_first=False)``. A copy is made where parameters vary along a dimension inside ``dim``, or
    outside it and the inputs in turn.

    Args:
        formula: with two inputs, the gate first.
        packed: any shape of an even size along ``dim``; float16, bfloat16, float32 or float64.
        dim: the dimension that holds both inputs.
        layout: ``"halves"``, one after the other, or ``"interleaved"``, in turn.
        gate_first: whether the gate comes before the value.
        reuse: ``"inputs"`` writes the gradient over ``packed`` in backward, which is faster and
            takes no memory: for a tensor that nothing reads after its gradient has been asked for.
            What autograd has saved elsewhere, or needs for a second backward, it then refuses.
            Where no kernel runs it changes nothing.
        parameters: numbers, or tensors that broadcast to the result; gradients flow to them.

    Returns:
        A tensor of half the size along ``dim``, in the dtype of ``packed``.

    Raises:
        TypeError: the formula has another number of inputs, the tensor is not floating point, or a
            parameter is unknown.
        ValueError: the size along ``dim`` is odd, the layout unknown, or a tensor to be written
            over is a leaf, a model's parameter say, or a view of one.
        IndexError: there is no such dimension.

    Example:
        >>> import torch
        >>> from zeta.activations import swiglu
        >>> from zeta.ops import gated
        >>> gated(swiglu, torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([2.1932, 7.0464])
        >>> gated(swiglu, torch.tensor([1.0, 3.0, 2.0, 4.0]), layout="interleaved")
        tensor([2.1932, 7.0464])
    """
    packing = checked_packing(formula, packed, dim, layout, gate_first, reuse)
    values = joined(formula, formula.bind(**parameters), packed)
    return of_packed(formula, packed, packing, values)


def of_packed(
    formula: Formula, packed: Tensor, packing: Packing, values: Mapping[str, Any]
) -> Tensor:
    """The formula of what lies so in the tensor, at every parameter's value."""
    y = dispatch.fused(formula, (packed,), values, packing)
    if y is None:
        y = formula(*packing.views(packed), **values)
    return y


def checked_packing(
    formula: Formula, packed: Any, dim: int, layout: Order, gate_first: bool, reuse: Reuse = None
) -> Packing:
    """How two inputs lie in the tensor; see :func:`gated` for what is raised."""
    check_two_inputs(formula)
    check_input(packed, formula.name, "packed")
    dim = checked_dim(formula, packed.shape, dim, layout)
    if reuse not in (None, "inputs"):
        raise ValueError(f'reuse must be None or "inputs", got {reuse!r}')
    if reuse and packed.requires_grad and any(map(_is_parameter, (packed, packed._base))):
        raise ValueError(
            f'{formula.name}: reuse="inputs" would write a gradient over a leaf, a parameter say; '
            "give what was computed, not a leaf or a view of one"
        )
    return Packing(dim, layout == "interleaved", 0 if gate_first else 1, bool(reuse))


def _is_parameter(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_leaf and tensor.requires_grad
