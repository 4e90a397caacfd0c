"""Launches a formula's Triton kernels on CUDA tensors.

The kernels are printed from the same programs as the C++ ones and compute in float32; float64
tensors take the plain formula. Under Triton's interpreter they run on CPU tensors, as in the
tests.
"""

from __future__ import annotations

import hashlib
import linecache
import threading
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.kernels import compiler
from zeta.kernels.operands import Layout, Parameter, are_one, extents, in_shape

# A Triton kernel, launched as run[grid](*arguments).
Run = Any

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

# Elements along memory in a tile: eight to a thread of four warps.
_RUN = 1024
# Rows and columns of a tile whose columns are channels: wide enough for whole memory
# transactions, high enough that the sums' partial results are small beside the tensor.
_ROWS, _COLUMNS = 64, 64

_compiling = threading.Lock()


@cache
def available() -> bool:
    """Whether Triton is installed."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def kernel(
    formula: Formula,
    dtype: torch.dtype,
    parameters: Sequence[Parameter | None],
    layout: Layout | None,
    wanted: tuple[str, ...],
) -> Run | None:
    """As :func:`zeta.kernels.cpu.kernel`; one kernel serves all dtypes and layouts."""
    if dtype not in DTYPES or not available():
        return None
    kernels: dict[object, Run | None] = vars(formula).setdefault("_gpu_kernels", {})
    key = (are_one(parameters), wanted)
    if key not in kernels:
        with _compiling:
            kernels[key] = kernels.get(key) or _compiled(formula, *key)
    return kernels[key]


def forward(run: Run, x: Tensor, parameters: Sequence[Parameter], layout: Layout | None) -> Tensor:
    """As :func:`zeta.kernels.cpu.forward`."""
    y = torch.empty_like(x)
    _launch(run, x, x, y, 0, parameters, layout)
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
    """As :func:`zeta.kernels.cpu.backward`."""
    if upstream.stride() != x.stride():
        upstream = torch.empty_like(x).copy_(upstream)
    into_x = torch.empty_like(x) if wants_x else x
    totals = _launch(run, x, upstream, into_x, len(learned), parameters, layout)
    gradients = [into_x] if wants_x else []
    for total, parameter in zip(totals, learned, strict=True):
        assert isinstance(parameter, Tensor)
        gradients.append(in_shape(total, parameter, layout))
    return gradients


def _launch(
    run: Run,
    x: Tensor,
    upstream: Tensor,
    y: Tensor,
    sums: int,
    parameters: Sequence[Parameter],
    layout: Layout | None,
) -> Tensor:
    """Fill ``y``; the sums by parameter, (sums,), or with a layout by channel too."""
    size = x.numel()
    values = [_value(p, x.device, layout) for p in parameters if not (type(p) is float and p == 1)]
    columns = layout is not None and layout.columns
    outer, channels, inner = extents(layout, size)
    outer = -(-outer // channels) if columns else outer  # rows, the last one perhaps shorter
    width = channels if columns else inner
    tile_width = min(_COLUMNS if columns else _RUN, next_power_of_2(width))
    tile_rows = _ROWS if columns else min(_RUN // tile_width, next_power_of_2(outer))
    row_blocks, column_blocks = -(-outer // tile_rows), -(-width // tile_width)
    partial = torch.empty(
        (sums, row_blocks * (1 if columns else column_blocks), channels),
        dtype=torch.float32,
        device=x.device,
    )
    if size:
        units = row_blocks * column_blocks * (1 if columns else channels)
        with torch.cuda.device_of(x):
            run[(units,)](
                x,
                upstream,
                y,
                partial,
                *values,
                outer,
                channels,
                inner,
                size,
                row_blocks,
                column_blocks,
                COLUMNS=columns,
                ROWS=tile_rows,
                WIDTH=tile_width,
            )
    totals = partial.sum(1, dtype=torch.float64).to(torch.float32)
    return totals if layout is not None else totals.squeeze(1)


def _value(parameter: Parameter, device: torch.device, layout: Layout | None) -> Tensor:
    if isinstance(parameter, Tensor):
        value = parameter.detach().to(torch.float32)
    else:
        value = _number(parameter, device)
    return value if layout is None else layout.spread(value)


@lru_cache(maxsize=256)
def _number(value: float, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device=device)


def _compiled(formula: Formula, ones: tuple[bool, ...], wanted: tuple[str, ...]) -> Run | None:
    from zeta.codegen import trace, triton

    constants = {name: 1.0 for name, one in zip(formula.parameters, ones, strict=True) if one}
    try:
        if wanted:
            program = trace.gradient_program(formula, constants, wanted)
        else:
            program = trace.value_program(formula, constants)
        source = triton.source(program)
    except NoKernelError as error:
        compiler.warn_without_kernel(formula, error)
        return None
    # Triton reads a kernel's source through its file; this one exists in linecache alone.
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"<zeta kernel {formula.name} {digest}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace = {"__name__": "zeta.kernels.generated"}
    exec(compile(source, name, "exec"), namespace)
    return namespace["kernel"]


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is not below n; 1 for 0."""
    return 1 << max(0, n - 1).bit_length()
