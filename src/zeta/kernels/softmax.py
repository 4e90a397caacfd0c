"""The softmax of a formula, or its logarithm, as one kernel each way, on CPU tensors.

Kept for backward are the input and the result, of which only the slope of the formula is still to
be formed. Half types keep two numbers per distribution instead, the maximum of the formula's values
and the sum of e^(value - maximum): their rounded probabilities have lost digits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta._backends.torch_plain import compute_dtype, evaluate_plain
from zeta._formula import Formula
from zeta.kernels import cpu
from zeta.kernels.build import DTYPES, constant, softmax_cpp
from zeta.kernels.function import apply
from zeta.kernels.operands import Number
from zeta.kernels.support import is_plain, takes_kernels


def fused(
    formula: Formula, x: Tensor, parameters: Mapping[str, Any], dim: int, logs: bool
) -> Tensor | None:
    """softmax(formula(x), dim), or its logarithm, by a kernel; None if plain operations must do.

    Args:
        formula: the pre-activation.
        x: the input, of whatever type.
        parameters: every parameter's value by name.
        dim: a dimension of x.
        logs: whether the logarithm is wanted.
    """
    if not takes_kernels() or not is_plain(x) or not x.is_cpu:
        return None
    dims = x.dim()
    if x.numel() == 0 or not -dims <= dim < dims:  # PyTorch knows what is an error here
        return None
    numbers: list[Number] = []
    tensors = [x]
    for name, value in parameters.items():
        shape = (formula.vectors[name],) if name in formula.vectors else ()
        if isinstance(value, float | int):
            numbers.append(float(value))
        elif isinstance(value, tuple) and all(isinstance(number, float | int) for number in value):
            numbers.append(value)
        elif not isinstance(value, Tensor):
            return None
        elif is_plain(value) and value.is_cpu and value.shape == shape:
            numbers.append(None)
            tensors.append(value)
        else:
            return None
    call = _call(formula, x.dtype, tuple(numbers), dim % dims, logs)
    if call.run is None:
        return None
    if torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
        y: Tensor = apply(call, *tensors)
        return y
    return call.forward(tensors)[0]


def plain(
    formula: Formula, x: Tensor, parameters: Mapping[str, Any], dim: int, logs: bool
) -> Tensor:
    """The same by plain, differentiable operations."""
    dtype = compute_dtype(x.dtype)
    value = evaluate_plain(formula, x.to(dtype), dict(parameters))
    # A formula may overflow to inf, and inf - inf is NaN inside the softmax.
    largest = torch.finfo(dtype).max
    return (F.log_softmax if logs else F.softmax)(value.clamp(-largest, largest), dim).to(x.dtype)


class _Softmax:
    """The kernel and what it is told beside tensors; shared by all calls that are alike."""

    def __init__(
        self,
        formula: Formula,
        dtype: torch.dtype,
        numbers: tuple[Number, ...],
        dim: int,
        logs: bool,
    ) -> None:
        self.run = softmax_cpp(formula, dtype, logs)
        self.formula, self.dim, self.logs = formula, dim, logs
        self.arithmetic = DTYPES[dtype][1]
        self.keeps_y = dtype == self.arithmetic
        here = torch.device("cpu")
        self.numbers = numbers
        self.values = [None if n is None else constant(n, dtype, here) for n in numbers]
        self.counts = [formula.vectors.get(name, 1) for name in formula.parameters]
        self.pack = struct.Struct(f"{9 + len(formula.scalars)}Q").pack

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The probabilities, and what is kept for backward beside x."""
        x = tensors[0]
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        kept = y if self.keeps_y else self._statistics(x)
        self._launch(tensors, None, y, kept)
        return y, (kept,)

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        upstream: Tensor,
        needed: tuple[bool, ...],
    ) -> Sequence[Tensor]:
        """The gradients by x and by the parameters that are tensors."""
        x, *parameters = tensors
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        gradients = None
        if any(needed[1:]):
            gradients = torch.zeros(sum(self.counts), dtype=torch.float64, device="cpu")
        self._launch(tensors, upstream.contiguous(), dx, kept[0], gradients)
        if gradients is None:
            return (dx,)
        each = zip(gradients.split(self.counts), self.numbers, strict=True)
        of_tensors = [gradient for gradient, number in each if number is None]
        pairs = zip(of_tensors, parameters, needed[1:], strict=True)
        learned = [g.view(p.shape).to(p.dtype) for g, p, need in pairs if need]
        return (dx, *learned) if needed[0] else learned

    def plain(self, tensors: Sequence[Tensor]) -> Tensor:
        """The probabilities by plain, differentiable operations."""
        x, *rest = tensors
        given = iter(rest)
        values = (next(given) if n is None else n for n in self.numbers)
        parameters = dict(zip(self.formula.parameters, values, strict=True))
        return plain(self.formula, x, parameters, self.dim, self.logs)

    def _statistics(self, x: Tensor) -> Tensor:
        outer, _, inner = self._extents(x)
        return x.new_empty((2, outer, inner), dtype=self.arithmetic)

    def _extents(self, x: Tensor) -> tuple[int, int, int]:
        """x as (outer, classes, inner)."""
        sizes = x.shape
        classes = sizes[self.dim]
        inner = math.prod(sizes[self.dim + 1 :])
        return x.numel() // (classes * inner), classes, inner

    def _launch(
        self,
        tensors: Sequence[Tensor],
        upstream: Tensor | None,
        y: Tensor,
        kept: Tensor,
        gradients: Tensor | None = None,
    ) -> None:
        x = tensors[0].contiguous()
        given = iter(tensors[1:])
        values = [
            next(given).to(self.arithmetic).contiguous() if v is None else v for v in self.values
        ]
        width = self.arithmetic.itemsize
        arguments = self.pack(
            x.data_ptr(),
            0 if upstream is None else upstream.data_ptr(),
            y.data_ptr(),
            kept.data_ptr(),
            0 if gradients is None else gradients.data_ptr(),
            *self._extents(x),
            cpu.parallel_for,
            *[v.data_ptr() + i * width for v in values for i in range(v.numel())],
        )
        assert self.run is not None
        if self.run(arguments):
            raise MemoryError("no memory for the buffers of a softmax")


_call = lru_cache(maxsize=256)(_Softmax)
