"""The softmax of a formula as one kernel each way, on CPU tensors.

Kept for backward are the input and the probabilities, of which only the slope of the formula is
still to be formed. Half types keep two numbers per distribution instead, the maximum of the
formula's values and the sum of e^(value - maximum): their rounded probabilities have lost digits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from zeta._formula import Formula
from zeta.kernels import cpu
from zeta.kernels.build import DTYPES, constant, softmax_cpp
from zeta.kernels.function import apply
from zeta.kernels.support import is_plain, takes_kernels

# softmax(formula(x, *parameters), dim) by plain, differentiable operations: x, dim, parameters.
Plain = Callable[[Tensor, int, tuple[float, ...]], Tensor]


def fused(
    formula: Formula, x: Tensor, parameters: tuple[float, ...], dim: int, plain: Plain
) -> Tensor | None:
    """softmax(formula(x, *parameters), dim) by a kernel; None if plain operations must do.

    Args:
        formula: the pre-activation.
        x: the input, of whatever type.
        parameters: numbers, in the formula's order.
        dim: a dimension of x.
        plain: the same by plain operations, for a double backward.
    """
    if not takes_kernels() or not is_plain(x) or not x.is_cpu:
        return None
    dims = x.dim()
    if x.numel() == 0 or not -dims <= dim < dims:  # PyTorch knows what is an error here
        return None
    call = _call(formula, x.dtype, parameters, dim % dims, plain)
    if call.run is None:
        return None
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = apply(call, x)
        return y
    return call.forward((x,))[0]


class _Softmax:
    """The kernel and what it is told beside tensors; shared by all calls that are alike."""

    def __init__(
        self,
        formula: Formula,
        dtype: torch.dtype,
        parameters: tuple[float, ...],
        dim: int,
        plain: Plain,
    ) -> None:
        self.run = softmax_cpp(formula, dtype)
        self.parameters, self.dim, self._plain = parameters, dim, plain
        self.arithmetic = DTYPES[dtype][1]
        self.keeps_y = dtype == self.arithmetic
        self.values = [constant(value, dtype, torch.device("cpu")) for value in parameters]
        self.pointers = [value.data_ptr() for value in self.values]
        self.pack = struct.Struct(f"{8 + len(parameters)}Q").pack

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The probabilities, and what is kept for backward beside x."""
        (x,) = tensors
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        kept = y if self.keeps_y else self._statistics(x)
        self._launch(x, 0, y, kept)
        return y, (kept,)

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        upstream: Tensor,
        needed: tuple[bool, ...],
    ) -> Sequence[Tensor]:
        """The gradient by x."""
        (x,) = tensors
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        upstream = upstream.contiguous()
        self._launch(x, upstream.data_ptr(), dx, *kept)
        return (dx,)

    def plain(self, tensors: Sequence[Tensor]) -> Tensor:
        """The probabilities by plain, differentiable operations."""
        (x,) = tensors
        return self._plain(x, self.dim, self.parameters)

    def _statistics(self, x: Tensor) -> Tensor:
        outer, _, inner = self._extents(x)
        return x.new_empty((2, outer, inner), dtype=self.arithmetic)

    def _extents(self, x: Tensor) -> tuple[int, int, int]:
        """x as (outer, classes, inner)."""
        sizes = x.shape
        classes = sizes[self.dim]
        inner = math.prod(sizes[self.dim + 1 :])
        return x.numel() // (classes * inner), classes, inner

    def _launch(self, x: Tensor, upstream: int, y: Tensor, kept: Tensor) -> None:
        x = x.contiguous()
        arguments = self.pack(
            x.data_ptr(),
            upstream,
            y.data_ptr(),
            kept.data_ptr(),
            *self._extents(x),
            cpu.parallel_for,
            *self.pointers,
        )
        assert self.run is not None
        if self.run(arguments):
            raise MemoryError("no memory for the buffers of a softmax")


_call = lru_cache(maxsize=256)(_Softmax)
