"""Launches C++ kernels on CPU tensors, on PyTorch's own threads."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zeta.kernels.build import DTYPES, Run, elementwise_cpp
from zeta.kernels.operands import Layout, Places, extents

kernel = elementwise_cpp
# Whether an upstream gradient may be one number, expanded.
READS_ONE_UPSTREAM = True


class _Packers(dict[int, Callable[..., bytes]]):
    """How so many words are packed."""

    def __missing__(self, count: int) -> Callable[..., bytes]:
        self[count] = struct.Struct(f"{count}Q").pack
        return self[count]


_PACK = _Packers()
_address = Tensor.data_ptr


def launch(
    run: Run,
    elements: Sequence[Tensor],
    stores: Sequence[Tensor],
    upstream: Tensor | None,
    sums: int,
    parameters: Sequence[Tensor],
    layout: Layout | None,
    places: Places | None = None,
) -> Tensor | None:
    """Fill what is stored; the sums, (sums,), or with a layout (sums, row); None if there are none.

    Args:
        run: the kernel.
        elements: the inputs, dense and alike.
        stores: what is written, which lies as the inputs do.
        upstream: the gradient by the value, alike too, or one number expanded; None for the value.
        sums: how many parameters' gradients are wanted.
        parameters: those that the kernel reads, numbers by :func:`number`.
        layout: how they lie along the inputs; None if each is one value.
        places: where inputs and stores lie; None if each is a dense tensor.
    """
    x = elements[0]
    size = x.numel() if places is None else places.size
    dtype = DTYPES[x.dtype][1]
    totals = None
    if sums:
        totals = x.new_zeros((sums,) if layout is None else (sums, layout.row), dtype=dtype)
    if size == 0:
        return totals
    for p in parameters:
        if layout is not None or p.dtype != dtype:
            parameters = [_value(p, dtype, layout) for p in parameters]
            break
    outer, channels, inner = (1, 1, size) if layout is None else extents(layout, size)
    operands = [*map(_address, (*elements, *stores))]
    if places is None:
        steps: Sequence[int] = [channels * inner] * len(operands)
    else:
        steps, width = places.steps, x.element_size()
        operands = [o + width * n for o, n in zip(operands, places.offsets, strict=False)]
    words = (
        0 if upstream is None else upstream.data_ptr(),
        0 if totals is None else totals.data_ptr(),
        outer,
        channels,
        inner,
        upstream is not None and not any(upstream.stride()),
        parallel_for,
        *operands,
        *steps[: len(operands)],
        *map(_address, parameters),
    )
    if run(_PACK[len(words)](*words)):
        raise MemoryError("no memory for the partial sums of parameter gradients")
    return totals


def _value(parameter: Tensor, dtype: torch.dtype, layout: Layout | None) -> Tensor:
    """The parameter as memory that a kernel reads."""
    value = parameter if parameter.dtype == dtype else parameter.to(dtype)
    return value if layout is None else layout.spread(value.detach())


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
    global parallel_for
    parallel_for = 0


parallel_for = _find_parallel_for()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
