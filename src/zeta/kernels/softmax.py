"""The softmax of a formula as one kernel each way, on CPU tensors.

Saved for backward are the input, and two numbers per distribution: the maximum of the formula's
values and the sum of e^(value - maximum). Probabilities are formed again from these.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeta._formula import Formula
from zeta.kernels import compiler, cpu, dispatch
from zeta.kernels.fingerprint import fingerprint

# softmax(formula(x), dim) by plain, differentiable operations.
Plain = Callable[[Tensor], Tensor]

_kernels: dict[tuple[Formula, torch.dtype], cpu.Run | None] = {}


def fused(
    formula: Formula, x: Tensor, parameters: Sequence[float], dim: int, plain: Plain
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
    if x.numel() == 0 or not -x.dim() <= dim < x.dim():  # PyTorch knows what is an error here
        return None
    run = _kernel(formula, x.dtype)
    if run is None:
        return None
    call = _Call(run, tuple(parameters), dim % x.dim(), plain)
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _Fused.apply(call, x)
        return y
    return call.launch(x.contiguous(), None, call.statistics(x))


class _Call:
    """One softmax: the kernel and what it is told beside tensors."""

    def __init__(self, run: cpu.Run, parameters: tuple[float, ...], dim: int, plain: Plain) -> None:
        self.run, self.parameters, self.dim, self.plain = run, parameters, dim, plain

    def shape(self, x: Tensor) -> tuple[int, int, int]:
        """x as (outer, classes, inner)."""
        sizes = x.shape
        return (
            math.prod(sizes[: self.dim]),
            sizes[self.dim],
            math.prod(sizes[self.dim + 1 :]),
        )

    def statistics(self, x: Tensor) -> Tensor:
        """Room for two numbers per distribution."""
        outer, _, inner = self.shape(x)
        return torch.empty((2, outer, inner), dtype=cpu.DTYPES[x.dtype][1])

    def launch(self, x: Tensor, upstream: Tensor | None, statistics: Tensor) -> Tensor:
        """The probabilities, filling the statistics; or, given an upstream gradient, dx."""
        y = torch.empty_like(x)
        values = [cpu.number(value, statistics.dtype) for value in self.parameters]
        arguments = (
            x.data_ptr(),
            0 if upstream is None else upstream.data_ptr(),
            y.data_ptr(),
            statistics.data_ptr(),
            *self.shape(x),
            cpu.parallel_for,
            *(value.data_ptr() for value in values),
        )
        if self.run(struct.pack(f"{len(arguments)}Q", *arguments)):
            raise MemoryError("no memory for the buffers of a softmax")
        return y


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor) -> Tensor:
        statistics = call.statistics(x)
        ctx.call = call
        ctx.save_for_backward(x, statistics)
        ctx.set_materialize_grads(False)
        return call.launch(x.contiguous(), None, statistics)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[None, Tensor | None]:
        if upstream is None:
            return None, None
        x, statistics = ctx.saved_tensors
        plain = torch.is_grad_enabled() or not dispatch.takes_kernels()
        if plain or not dispatch.is_plain(upstream):
            with torch.enable_grad():
                view = x.view_as(x)
                y = ctx.call.plain(view)
            create_graph = torch.is_grad_enabled()
            return None, torch.autograd.grad(y, view, upstream, create_graph=create_graph)[0]
        return None, ctx.call.launch(x.contiguous(), upstream.contiguous(), statistics)


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
    run.argtypes, run.restype = [ctypes.c_char_p], ctypes.c_int
    checked: cpu.Run = run
    return checked
