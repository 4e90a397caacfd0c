"""Prints a program as a Triton kernel: the same expressions as the C++, on float32 blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable

from zeta.codegen.printer import OPERATORS, Dialect
from zeta.codegen.trace import Program, refusals

# x is seen as (outer, channels, inner). A unit of work is a tile of ROWS × WIDTH elements: rows
# along `outer`; with COLUMNS, where inner is 1, columns along the channels, otherwise along
# `inner` within one channel. A parameter has one value per channel. The sums of a tile go to
# `partial`, (sums, row blocks · column blocks, channels), which the host adds up in a fixed order.
_KERNEL = """\
import triton
import triton.language as tl

from zeta.runtime.triton.primitives import *


@triton.jit
def kernel(
    x_ptr, upstream_ptr, y_ptr, partial_ptr, {pointers}outer, channels, inner,
    size, row_blocks, column_blocks,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):
    unit = tl.program_id(0).to(tl.int64)
    column_block = unit % column_blocks
    row_block = unit // column_blocks % row_blocks
    segment = unit // column_blocks // row_blocks
    rows = row_block * ROWS + tl.arange(0, ROWS)[:, None]
    columns = column_block * WIDTH + tl.arange(0, WIDTH)[None, :]
    if COLUMNS:
        at, width, channel = rows * channels + columns, channels, columns
        block, blocks = row_block, row_blocks
    else:
        at, width = (rows * channels + segment) * inner + columns, inner
        channel = segment + tl.zeros((1, 1), tl.int64)
        block, blocks = row_block * column_blocks + column_block, row_blocks * column_blocks
    known = channel < channels
    inside = (rows < outer) & (columns < width) & (at < size)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
{body}
"""


@refusals()
def source(program: Program) -> str:
    """The Python source of a module whose ``kernel`` computes the program."""
    pointers = "".join(f"{_pointer(name)}, " for name in program.parameters)
    body = "\n".join(f"    {line}" for line in _body(program))
    return _KERNEL.format(pointers=pointers, body=body)


def _body(program: Program) -> Iterable[str]:
    for name in program.parameters:
        yield f"p_{name} = tl.load({_pointer(name)} + channel, mask=known, other=1.0)"
    results = {} if program.result is None else {"out": program.result}
    for k, gradient in enumerate(program.gradients):
        results |= {f"term{k}": gradient.term, f"factor{k}": gradient.factor}
    yield from _TRITON.statements(results)
    store = "tl.store(y_ptr + at, {}.to(y_ptr.dtype.element_ty), mask=inside)"
    if program.value is not None:
        yield store.format("out")
        return
    yield "upstream = tl.load(upstream_ptr + at, mask=inside, other=0.0).to(tl.float32)"
    if program.slope is not None:
        yield store.format("(upstream * out)")
    for k in range(len(program.gradients)):
        yield f"term = tl.where(inside, upstream * term{k}, 0.0)"
        yield f"into = partial_ptr + ({k} * blocks + block) * channels + channel"
        yield f"tl.store(into, total(term, COLUMNS) * factor{k}, mask=known)"


def _pointer(name: str) -> str:
    return f"p_{name}_ptr"


_TRITON = Dialect(
    statement="{} = {}",
    vector="{}",
    mask="{}",
    identifier=lambda name: name if name == "x" else f"p_{name}",
    number=lambda value: repr(value) if math.isfinite(value) else f"float({str(value)!r})",
    splat="splat({}, channel)",
    templates=OPERATORS
    | {
        "indicator": "{}.to(tl.float32)",
        "where": "tl.where({}, {}, {})",
        "finite_below": "at_least({}, -3.4028234663852886e38)",
        "finite_above": "at_most({}, 3.4028234663852886e38)",
    },
)
