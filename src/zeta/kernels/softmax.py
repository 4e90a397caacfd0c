"""The softmax of a formula as one kernel each way, on CPU tensors.

Kept for backward are the input and the probabilities, of which only the slope of the formula is
still to be formed. Half types keep two numbers per distribution instead, the maximum of the
formula's values and the sum of e^(value - maximum): their rounded probabilities have lost digits.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.kernels import compiler, cpu, dispatch
from zeta.kernels.fingerprint import fingerprint

# softmax(formula(x, *parameters), dim) by plain, differentiable operations: x, dim, parameters.
Plain = Callable[[Tensor, int, tuple[float, ...]], Tensor]

_kernels: dict[tuple[Formula, torch.dtype], cpu.Run | None] = {}


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
    if not dispatch.takes_kernels() or not dispatch.is_plain(x) or not x.is_cpu:
        return None
    dims = x.dim()
    if x.numel() == 0 or not -dims <= dim < dims:  # PyTorch knows what is an error here
        return None
    call = _call(formula, x.dtype, parameters, dim % dims, plain)
    if call.run is None:
        return None
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _apply(call, x)
        return y
    return call.forward(x)[0]


class _Call:
    """The kernel and what it is told beside tensors; shared by all calls that are alike."""

    def __init__(
        self,
        formula: Formula,
        dtype: torch.dtype,
        parameters: tuple[float, ...],
        dim: int,
        plain: Plain,
    ) -> None:
        self.run = _kernel(formula, dtype)
        self.parameters, self.dim, self.plain = parameters, dim, plain
        self.arithmetic = cpu.DTYPES[dtype][1]
        self.keeps_y = dtype == self.arithmetic
        self.values = [cpu.number(value, self.arithmetic) for value in parameters]
        self.pointers = [value.data_ptr() for value in self.values]
        self.pack = struct.Struct(f"{8 + len(parameters)}Q").pack

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities, and what is kept for backward beside x."""
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        kept = y if self.keeps_y else self._statistics(x)
        self._launch(x, 0, y, kept)
        return y, kept

    def backward(self, x: Tensor, kept: Tensor, upstream: Tensor) -> Tensor:
        """The gradient by x."""
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        upstream = upstream.contiguous()
        self._launch(x, upstream.data_ptr(), dx, kept)
        return dx

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


_call = lru_cache(maxsize=256)(_Call)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor) -> Tensor:
        y, kept = call.forward(x)
        ctx.call = call
        ctx.save_for_backward(x, kept)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[None, Tensor | None]:
        if upstream is None:
            return None, None
        call: _Call = ctx.call
        x, kept = ctx.saved_tensors
        plain = torch.is_grad_enabled() or not dispatch.takes_kernels()
        if plain or not dispatch.is_plain(upstream):
            return None, _plain_gradient(call, x, upstream)
        return None, call.backward(x, kept, upstream)


# Function.apply itself first looks for functorch transforms, as `takes_kernels` has done.
_apply = super(torch.autograd.Function, _Fused).apply


def _plain_gradient(call: _Call, x: Tensor, upstream: Tensor) -> Tensor:
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        view = x.view_as(x)
        y = call.plain(view, call.dim, call.parameters)
    return torch.autograd.grad(y, view, upstream, create_graph=create_graph)[0]


def _kernel(formula: Formula, dtype: torch.dtype) -> cpu.Run | None:
    key = (formula, dtype)
    if key not in _kernels:
        with cpu.compiling:
            if key not in _kernels:
                _kernels[key] = _compiled(formula, dtype)
    return _kernels[key]


def _compiled(formula: Formula, dtype: torch.dtype) -> cpu.Run | None:
    name = cpu.DTYPES[dtype][0]

    def source() -> str:
        from zeta.codegen import cpp, trace

        value = trace.value_program(formula, {})
        slope = trace.gradient_program(formula, {}, ("x",))
        return cpp.softmax_source(value, slope, name)

    content = fingerprint(formula)
    key = content and repr(("softmax", content, name)).encode()
    try:
        run = compiler.load(key, source).zeta_kernel
    except compiler.KernelError as error:
        compiler.warn_once(f"zeta: softmax of {formula.name} runs as plain operations: {error}")
        return None
    except NoKernelError as error:
        compiler.warn_without_kernel(formula, error)
        return None
    run.argtypes, run.restype = [ctypes.c_char_p], ctypes.c_int
    checked: cpu.Run = run
    return checked
