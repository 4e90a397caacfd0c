"""Launches a formula's kernels on CPU tensors, on PyTorch's own threads."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.kernels import compiler
from zeta.kernels.fingerprint import fingerprint
from zeta.kernels.operands import Layout, Parameter, are_one, extents, in_shape

# Takes the packed `Arguments` of loops.h; nonzero if memory ran out.
Run = Callable[[bytes], int]

# Name for the code generator, and the dtype that arithmetic runs in.
DTYPES = {
    torch.float16: ("float16", torch.float32),
    torch.bfloat16: ("bfloat16", torch.float32),
    torch.float32: ("float32", torch.float32),
    torch.float64: ("float64", torch.float64),
}


class _Packers(dict[int, Callable[..., bytes]]):
    """How a kernel's arguments are packed, by the number of its parameters."""

    def __missing__(self, count: int) -> Callable[..., bytes]:
        self[count] = struct.Struct(f"{9 + count}Q").pack
        return self[count]


_PACK = _Packers()
# Held while a kernel is made; a fork replaces it.
compiling = threading.Lock()


class NoMemoryError(Exception):
    """A parameter's number is not in memory: PyTorch's zeros that are not stored, say."""


def kernel(
    formula: Formula,
    dtype: torch.dtype,
    parameters: Sequence[Parameter | None],
    layout: Layout | None,
    wanted: tuple[str, ...],
) -> Run | None:
    """The kernel for these gradients, or for the value if none are wanted; None if it cannot be.

    A number that is 1 is compiled in: with exo's alpha, two exponentials become one.

    Args:
        formula: the formula.
        dtype: of the input.
        parameters: in the formula's order; of interest are those that are numbers.
        layout: how the parameters lie along the input; None if each is one value.
        wanted: "x" (first) for the input, and names of parameters that are tensors.
    """
    kernels: dict[object, Run | None] = vars(formula).setdefault("_cpu_kernels", {})
    key = (dtype, layout is not None and layout.columns, are_one(parameters), wanted)
    try:
        return kernels[key]
    except KeyError:
        with compiling:
            if key not in kernels:
                kernels[key] = _compiled(formula, *key)
            return kernels[key]


def forward(run: Run, x: Tensor, parameters: Sequence[Parameter], layout: Layout | None) -> Tensor:
    """The value at ``x``, whose elements fill one run of memory (`zeta.kernels.operands.dense`)."""
    y = torch.empty_like(x)
    _launch(run, x, None, y, None, parameters, layout)
    return y


def backward(
    run: Run,
    x: Tensor,
    parameters: Sequence[Parameter],
    layout: Layout | None,
    upstream: Tensor,
    wants_x: bool,
    learned: Sequence[Parameter],
) -> list[Tensor]:
    """The gradients by the input, if it wants one, and by the learned parameters.

    Args:
        run: the kernel for these gradients.
        x: as in :func:`forward`.
        parameters: as in :func:`kernel`.
        layout: as in :func:`kernel`.
        upstream: the gradient by the value, of the shape and dtype of ``x``.
        wants_x: whether the input's gradient is wanted.
        learned: the parameters whose gradients are wanted.
    """
    if any(upstream.stride()) and upstream.stride() != x.stride():
        upstream = torch.empty_like(x).copy_(upstream)
    into_x = torch.empty_like(x) if wants_x else None
    sums = None
    if learned:
        shape = (len(learned),) if layout is None else (len(learned), layout.row)
        sums = x.new_zeros(shape, dtype=DTYPES[x.dtype][1])
    _launch(run, x, upstream, into_x, sums, parameters, layout)
    gradients = [] if into_x is None else [into_x]
    if sums is not None:
        totals = zip(sums.unbind(), learned, strict=True)
        gradients += [in_shape(total, parameter, layout) for total, parameter in totals]
    return gradients


def _launch(
    run: Run,
    x: Tensor,
    upstream: Tensor | None,
    y: Tensor | None,
    sums: Tensor | None,
    parameters: Sequence[Parameter],
    layout: Layout | None,
) -> None:
    size = x.numel()
    if size == 0:
        return
    dtype = DTYPES[x.dtype][1]
    values = [p for p in parameters if isinstance(p, Tensor) and p.dtype == dtype]
    if layout is not None or len(values) < len(parameters):
        kept = zip(parameters, are_one(parameters), strict=True)
        values = [_value(p, dtype, layout) for p, one in kept if not one]
    addresses = [value.data_ptr() for value in values]
    if 0 in addresses:
        raise NoMemoryError
    out_of_memory = run(
        _PACK[len(values)](
            x.data_ptr(),
            0 if upstream is None else upstream.data_ptr(),
            0 if y is None else y.data_ptr(),
            0 if sums is None else sums.data_ptr(),
            *extents(layout, size),
            upstream is not None and not any(upstream.stride()),
            parallel_for,
            *addresses,
        )
    )
    if out_of_memory:
        raise MemoryError("no memory for the partial sums of parameter gradients")


def _value(parameter: Parameter, dtype: torch.dtype, layout: Layout | None) -> Tensor:
    """The parameter as memory that a kernel reads."""
    if type(parameter) is float:
        value = number(parameter, dtype)
    else:
        assert isinstance(parameter, Tensor)
        value = parameter if parameter.dtype == dtype else parameter.to(dtype)
    return value if layout is None else layout.spread(value.detach())


@lru_cache(maxsize=256)
def number(value: float, dtype: torch.dtype) -> Tensor:
    """A number as memory that a kernel reads."""
    return torch.tensor(value, dtype=dtype, device="cpu")  # whatever the default device is


def _compiled(
    formula: Formula,
    dtype: torch.dtype,
    columns: bool,
    ones: tuple[bool, ...],
    wanted: tuple[str, ...],
) -> Run | None:
    constants = {name: 1.0 for name, one in zip(formula.parameters, ones, strict=True) if one}
    variant = (DTYPES[dtype][0], columns)

    def source() -> str:
        from zeta.codegen import cpp, trace

        if wanted:
            program = trace.gradient_program(formula, constants, wanted)
        else:
            program = trace.value_program(formula, constants)
        return cpp.source(program, *variant)

    content = fingerprint(formula)
    key = content and repr((content, variant, ones, wanted)).encode()
    try:
        run = compiler.load(key, source).zeta_kernel
    except compiler.KernelError as error:
        compiler.warn_once(f"zeta: {formula.name} runs as plain PyTorch operations: {error}")
        return None
    except NoKernelError as error:
        compiler.warn_without_kernel(formula, error)
        return None
    run.argtypes = [ctypes.c_char_p]
    run.restype = ctypes.c_int
    checked: Run = run
    return checked


def _find_parallel_for() -> int:
    """The address of PyTorch's own parallel loop; 0, for this thread alone, if it has none."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        if (folder / name).exists():
            function = getattr(ctypes.CDLL(str(folder / name)), "torch_parallel_for", None)
            return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0
    return 0


def _after_fork() -> None:
    """The threads of a pool do not survive a fork: a forked worker computes in its own thread."""
    global parallel_for, compiling
    parallel_for = 0
    compiling = threading.Lock()


parallel_for = _find_parallel_for()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
