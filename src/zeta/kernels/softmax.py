"""The softmax of a formula, or its logarithm, as one kernel each way.

C++ does it on CPU, Triton on CUDA (`zeta.runtime.triton.softmax`). C++ keeps for backward the input
and the result, of which only the slope of the formula is still to be formed. Of half types it keeps
two numbers per distribution instead, the maximum of the formula's values and the sum of
e^(value - maximum): their rounded probabilities have lost digits. Triton does so always, and reads
one tensor less.
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
from zeta.kernels import cpu, gpu, native
from zeta.kernels.build import (
    DTYPES,
    Run,
    constant,
    functions_triton,
    has_triton,
    softmax_cpp,
)
from zeta.kernels.function import apply, gradients
from zeta.kernels.operands import Number


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
    if not native.takes(x):
        return None
    dims = x.dim()
    if x.numel() == 0 or not -dims <= dim < dims:  # PyTorch knows what is an error here
        return None
    device = x.device
    values: list[float | tuple[float, ...] | Tensor] = []
    for name, value in parameters.items():
        shape = (formula.vectors[name],) if name in formula.vectors else ()
        if isinstance(value, float | int):
            values.append(float(value))
        elif isinstance(value, tuple):
            if not all(isinstance(number, float | int) for number in value):
                return None
            values.append(value)
        elif native.takes(value) and value.device == device and value.shape == shape:
            values.append(value)
        else:
            return None
    launched = _launched(formula, x, values, dim % dims, logs)
    if launched is not None:
        return launched
    numbers = tuple([None if isinstance(value, Tensor) else value for value in values])
    tensors = [x, *[value for value in values if isinstance(value, Tensor)]]
    call = _call(formula, device, x.dtype, numbers, dim % dims, logs)
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


def _launched(
    formula: Formula,
    x: Tensor,
    values: Sequence[float | tuple[float, ...] | Tensor],
    dim: int,
    logs: bool,
) -> Tensor | None:
    """The result by the launcher in C++; None if it is not there, or does not take the tensors."""
    if native.extension is None:
        native.count()
        return None
    dtype, device = x.dtype, x.device
    call = _call(formula, device, dtype, (None,) * len(values), dim, logs)
    if call.plan is None:
        told = call.told()
        call.plan = native.extension.plan(*told) if told else 0
    if not call.plan:
        return None
    # Numbers as tensors, so that calls with another number are alike.
    tensors = [v if isinstance(v, Tensor) else constant(v, dtype, device) for v in values]
    y: Tensor | None = native.extension.launch(call.plan, x, *tensors)
    return y


class _Softmax:
    """The kernel in C++, and what it is told beside tensors; shared by all calls that are alike.

    Attributes:
        run: the kernel; None if there is none.
        plan: what the launcher in C++ knows these calls by; 0 if it does not take them.
    """

    plan: int | None = None
    KEEPS_Y = True  # for backward, where it has not lost digits

    def __init__(
        self,
        formula: Formula,
        device: torch.device,
        dtype: torch.dtype,
        numbers: tuple[Number, ...],
        dim: int,
        logs: bool,
    ) -> None:
        self.formula, self.dtype, self.dim, self.logs = formula, dtype, dim, logs
        self.run = self._kernel()
        self.arithmetic = DTYPES[dtype][1]
        self.keeps_y = self.KEEPS_Y and dtype == self.arithmetic
        self.numbers = numbers
        self.values = [None if n is None else constant(n, dtype, device) for n in numbers]
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
        above, statistics = upstream.contiguous(), kept[0].contiguous()
        sums = self._launch(tensors, above, dx, statistics, any(needed[1:]))
        if sums is None:
            return (dx,)
        each = zip(sums.split(self.counts), self.numbers, strict=True)
        of_tensors = [gradient for gradient, number in each if number is None]
        pairs = zip(of_tensors, parameters, needed[1:], strict=True)
        learned = [g.view(p.shape).to(p.dtype) for g, p, need in pairs if need]
        return (dx, *learned) if needed[0] else learned

    def gradients(
        self, saved: Sequence[Tensor], upstream: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """As `_Elementwise.gradients`; what is kept comes last, and has none."""
        *tensors, kept = saved
        return *gradients(self, tensors, (kept,), upstream, needed[:-1]), None

    def told(self) -> tuple[Any, ...] | None:
        """What `native.cpp` is told of calls whose parameters are all tensors; None: takes none."""
        if not self.run or len(self.numbers) > native.MOST_PARAMETERS:
            return None
        lengths = tuple([self.formula.vectors.get(name, 0) for name in self.formula.parameters])
        is_double = self.dtype == torch.float64
        return self, native.address(self.run), 1, lengths, is_double, False, None, self.dim

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

    def _kernel(self) -> Run | None:
        return softmax_cpp(self.formula, self.dtype, self.logs)

    def _launch(
        self,
        tensors: Sequence[Tensor],
        upstream: Tensor | None,
        y: Tensor,
        kept: Tensor,
        learns: bool = False,
    ) -> Tensor | None:
        """Run the kernel; if it learns, the gradients by the formula's scalars, in float64."""
        given = iter(tensors[1:])
        values = [
            next(given).to(self.arithmetic).contiguous() if v is None else v for v in self.values
        ]
        return self._run(tensors[0].contiguous(), upstream, y, kept, values, learns)

    def _run(
        self,
        x: Tensor,
        upstream: Tensor | None,
        y: Tensor,
        kept: Tensor,
        values: Sequence[Tensor],
        learns: bool,
    ) -> Tensor | None:
        """As :meth:`_launch`, of contiguous tensors and the parameters' values."""
        gradients = None
        if learns:
            gradients = torch.zeros(sum(self.counts), dtype=torch.float64, device="cpu")
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
        return gradients


class _TritonSoftmax(_Softmax):
    """The same by Triton."""

    KEEPS_Y = False

    def told(self) -> None:
        """The launcher in C++ is that of CPU kernels."""

    def _kernel(self) -> Run | None:
        if self.dtype not in gpu.DTYPES or not has_triton():
            return None
        return functions_triton(self.formula)

    def _run(
        self,
        x: Tensor,
        upstream: Tensor | None,
        y: Tensor,
        kept: Tensor,
        values: Sequence[Tensor],
        learns: bool,
    ) -> Tensor | None:
        from zeta.runtime.triton import softmax as softmax_triton

        scalars = torch.cat([kept.new_empty(0), *[v.flatten() for v in values]])
        return softmax_triton.launch(
            self.run, x, upstream, y, kept, scalars, self._extents(x), self.logs, learns
        )


@lru_cache(maxsize=256)
def _call(
    formula: Formula,
    device: torch.device,
    dtype: torch.dtype,
    numbers: tuple[Number, ...],
    dim: int,
    logs: bool,
) -> _Softmax:
    kind = _Softmax if device.type == "cpu" else _TritonSoftmax
    return kind(formula, device, dtype, numbers, dim, logs)
