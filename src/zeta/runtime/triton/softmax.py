"""The softmax of a formula, or its logarithm, as Triton kernels.

The counterpart of ``cpp/softmax.h``. Arithmetic is in float32. The functions VALUE, SLOPE and TERM
are generated from the formula. Under Triton's interpreter the kernels run on CPU tensors, as in the
tests.

Each distribution is a row; rows lie in groups. Along the last dimension all are one group, and a
row's classes are neighbours; along another dimension each index before it is a group, and rows are
neighbours. A tile is (ROWS, BLOCK), some classes of some rows of a group. A program goes over its
rows twice, block by block; the first block stays in registers, so that short rows are read once.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta.runtime.triton.primitives import at_least, exp, finite, log

# Elements of a tile of several rows, and of one long row; a thread has eight.
_SEVERAL, _LONG = 1024, 4096
_WARP = 8 * 32
# Neighbouring rows of a tile, wide enough for whole memory transactions.
_NEIGHBOURS = 32


@triton.jit
def _place(rows, row_blocks, group_stride, row_stride, ROWS: tl.constexpr):
    """Which of a program's rows are there, their numbers, and where they begin in memory."""
    unit = tl.program_id(0).to(tl.int64)
    group = unit // row_blocks
    row = unit % row_blocks * ROWS + tl.arange(0, ROWS)[:, None]
    return row < rows, group * rows + row, group * group_stride + row * row_stride


@triton.jit
def _tile(begin, known, k, classes, stride):
    """Where the classes k of these rows are in memory, and which are there."""
    return begin + k * stride, known & (k < classes)


@triton.jit
def _value(x_ptr, parameters_ptr, at, inside, VALUE: tl.constexpr):
    """x and the formula of it."""
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    return x, VALUE(x, parameters_ptr)


@triton.jit
def _bounded(value, inside):
    """A formula may overflow, and inf - inf would be NaN; what is not inside counts for nothing."""
    return tl.where(inside, finite(value), float("-inf"))


@triton.jit
def _put(y_ptr, f, high, total, at, inside, LOGS: tl.constexpr):
    y = (f - high) - log(total) if LOGS else exp(f - high) / total
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _forward(
    x_ptr, y_ptr, kept_ptr, parameters_ptr,
    classes, rows, row_blocks, group_stride, row_stride, stride, count,
    VALUE: tl.constexpr, LOGS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    known, row, begin = _place(rows, row_blocks, group_stride, row_stride, ROWS)
    lane = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    at, inside = _tile(begin, known, lane, classes, stride)
    _, value = _value(x_ptr, parameters_ptr, at, inside, VALUE)
    first = _bounded(value, inside)
    high = at_least(tl.max(first, 1, keep_dims=True), -3.4028234663852886e38)
    total = tl.sum(exp(first - high), 1, keep_dims=True)
    for start in range(BLOCK, classes, BLOCK):
        there, here = _tile(begin, known, start + lane, classes, stride)
        _, value = _value(x_ptr, parameters_ptr, there, here, VALUE)
        f = _bounded(value, here)
        higher = at_least(tl.max(f, 1, keep_dims=True), high)
        total = total * exp(high - higher) + tl.sum(exp(f - higher), 1, keep_dims=True)
        high = higher
    tl.store(kept_ptr + row, high, mask=known)
    tl.store(kept_ptr + count + row, total, mask=known)
    _put(y_ptr, first, high, total, at, inside, LOGS)
    for start in range(BLOCK, classes, BLOCK):
        there, here = _tile(begin, known, start + lane, classes, stride)
        _, value = _value(x_ptr, parameters_ptr, there, here, VALUE)
        _put(y_ptr, _bounded(value, here), high, total, there, here, LOGS)


@triton.jit
def _recomputed(
    x_ptr, upstream_ptr, parameters_ptr, high, total, at, inside, VALUE: tl.constexpr
):  # fmt: skip
    """x, the formula of it, the probabilities and the upstream gradient."""
    x, value = _value(x_ptr, parameters_ptr, at, inside, VALUE)
    q = exp(_bounded(value, inside) - high) / total
    return x, value, q, tl.load(upstream_ptr + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _summed(upstream, q, LOGS: tl.constexpr):
    return tl.sum(upstream if LOGS else upstream * q, 1, keep_dims=True)


@triton.jit
def _put_gradient(
    dx_ptr, partial_ptr, parameters_ptr, x, value, q, upstream, sum, at, inside,
    SLOPE: tl.constexpr, TERM: tl.constexpr, PARAMETERS: tl.constexpr, LOGS: tl.constexpr,
):  # fmt: skip
    g = upstream - q * sum if LOGS else (upstream - sum) * q
    # An impossible class may have an infinite slope, and past an overflow there is none.
    counts = inside & (g != 0) & (tl.abs(value) != float("inf"))
    dx = tl.where(counts, g * SLOPE(x, parameters_ptr), 0.0)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    one = tl.arange(0, 1)[:, None]
    for t in tl.static_range(PARAMETERS):
        term = tl.where(counts, g * TERM(x, parameters_ptr, t), 0.0)
        part = tl.sum(tl.sum(term, 0, keep_dims=True), 1, keep_dims=True)
        tl.store(partial_ptr + t + one, part)


@triton.jit
def _backward(
    x_ptr, upstream_ptr, dx_ptr, kept_ptr, parameters_ptr, partial_ptr,
    classes, rows, row_blocks, group_stride, row_stride, stride, count,
    VALUE: tl.constexpr, SLOPE: tl.constexpr, TERM: tl.constexpr, PARAMETERS: tl.constexpr,
    LOGS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    known, row, begin = _place(rows, row_blocks, group_stride, row_stride, ROWS)
    high = tl.load(kept_ptr + row, mask=known, other=0.0)
    total = tl.load(kept_ptr + count + row, mask=known, other=1.0)
    partial_ptr += tl.program_id(0).to(tl.int64) * tl.cdiv(classes, BLOCK) * PARAMETERS
    lane = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    at, inside = _tile(begin, known, lane, classes, stride)
    x, value, q, upstream = _recomputed(
        x_ptr, upstream_ptr, parameters_ptr, high, total, at, inside, VALUE
    )
    sum = _summed(upstream, q, LOGS)
    for start in range(BLOCK, classes, BLOCK):
        there, here = _tile(begin, known, start + lane, classes, stride)
        _, _, p, u = _recomputed(
            x_ptr, upstream_ptr, parameters_ptr, high, total, there, here, VALUE
        )
        sum += _summed(u, p, LOGS)
    _put_gradient(
        dx_ptr, partial_ptr, parameters_ptr, x, value, q, upstream, sum, at, inside,
        SLOPE, TERM, PARAMETERS, LOGS,
    )  # fmt: skip
    for start in range(BLOCK, classes, BLOCK):
        there, here = _tile(begin, known, start + lane, classes, stride)
        z, f, p, u = _recomputed(
            x_ptr, upstream_ptr, parameters_ptr, high, total, there, here, VALUE
        )
        partial_ptr += PARAMETERS
        _put_gradient(
            dx_ptr, partial_ptr, parameters_ptr, z, f, p, u, sum, there, here,
            SLOPE, TERM, PARAMETERS, LOGS,
        )  # fmt: skip


def launch(
    functions: Any,
    x: Tensor,
    upstream: Tensor | None,
    y: Tensor,
    kept: Tensor,
    parameters: Tensor,
    extents: tuple[int, int, int],
    logs: bool,
    learns: bool,
) -> Tensor | None:
    """Fill y, and on the way forward what is kept of each row.

    Args:
        functions: VALUE, SLOPE and TERM by their names in small letters.
        x: contiguous, as all tensors here.
        upstream: the gradient by the result; None: forward.
        y: the result, or the gradient by x.
        kept: the maximum of each row, then each one's sum of e^(value - maximum).
        parameters: the formula's scalars, float32.
        extents: x as (outer, classes, inner).
        logs: whether the logarithm is wanted.
        learns: whether gradients by the parameters are.

    Returns:
        These, in float64, if they are.
    """
    outer, classes, inner = extents
    if inner == 1:
        groups, rows, strides, longest = 1, outer, (0, classes, 1), _LONG
    else:
        groups, rows, strides = outer, inner, (classes * inner, 1, inner)
        longest = _SEVERAL // min(triton.next_power_of_2(rows), _NEIGHBOURS)
    block = min(triton.next_power_of_2(classes), longest)
    row_block = min(triton.next_power_of_2(rows), max(1, _SEVERAL // block))
    row_blocks, blocks = triton.cdiv(rows, row_block), triton.cdiv(classes, block)
    sizes = (classes, rows, row_blocks, *strides, outer * inner)
    options = {
        "VALUE": functions["value"],
        "LOGS": logs,
        "ROWS": row_block,
        "BLOCK": block,
        "num_warps": max(1, row_block * block // _WARP),
        "enable_fp_fusion": False,  # the formula is the same number in every pass
    }
    units = groups * row_blocks
    with torch.cuda.device_of(x):
        if upstream is None:
            _forward[(units,)](x, y, kept, parameters, *sizes, **options)
            return None
        count = parameters.numel() if learns else 0
        partial = kept.new_empty(units, blocks, count)
        options |= {"SLOPE": functions["slope"], "TERM": functions["term"], "PARAMETERS": count}
        _backward[(units,)](x, upstream, y, kept, parameters, partial, *sizes, **options)
    return partial.sum((0, 1), dtype=torch.float64) if learns else None
