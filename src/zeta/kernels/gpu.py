"""Launches Triton kernels on CUDA tensors.

The kernels are printed from the same programs as the C++ ones and compute in float32; float64
tensors take the plain formula. Under Triton's interpreter they run on CPU tensors, as in the
tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zeta._formula import Formula
from zeta.kernels.build import Run, elementwise_triton, has_triton
from zeta.kernels.operands import Layout, Parameter, Places, extents

READS_ONE_UPSTREAM = False
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

# Elements along memory in a tile: eight to a thread of four warps.
_RUN = 1024
# Rows and columns of a tile whose columns are channels: wide enough for whole memory
# transactions, high enough that the sums' partial results are small beside the tensor.
_ROWS, _COLUMNS = 64, 64


def kernel(
    formula: Formula,
    dtype: torch.dtype,
    parameters: Sequence[Parameter],
    layout: Layout | None,
    wanted: tuple[str, ...],
    pairs: bool = False,
) -> Run | None:
    """As :func:`zeta.kernels.build.elementwise_cpp`; one kernel serves all dtypes and layouts."""
    if dtype not in DTYPES or not has_triton():
        return None
    return elementwise_triton(formula, parameters, wanted, pairs)


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
    """As :func:`zeta.kernels.cpu.launch`."""
    x = elements[0]
    size = x.numel() if places is None else places.size
    values = [_value(p, layout) for p in parameters]
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
        operands = [*elements, *stores]
        steps: Sequence[int] = [channels * inner] * len(operands)
        if places is not None:
            parts = zip(operands, places.offsets, strict=False)
            steps = places.steps[: len(operands)]
            operands = [t.as_strided((1,), (1,), t.storage_offset() + n) for t, n in parts]
        units = row_blocks * column_blocks * (1 if columns else channels)
        with torch.cuda.device_of(x):
            run[(units,)](
                *operands,
                *values,
                x if upstream is None else upstream,
                partial,
                *steps,
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
    if not sums:
        return None
    totals = partial.sum(1, dtype=torch.float64).to(torch.float32)
    return totals if layout is not None else totals.squeeze(1)


def _value(parameter: Tensor, layout: Layout | None) -> Tensor:
    value = parameter.detach().to(torch.float32)
    return value if layout is None else layout.spread(value)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is not below n; 1 for 0."""
    return 1 << max(0, n - 1).bit_length()
