"""Prints a program as a Triton kernel: the same expressions as the C++, on float32 blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable

from zeta.codegen.graph import Node
from zeta.codegen.printer import OPERATORS, Dialect, identifier
from zeta.codegen.trace import Program, refusals

# A tensor is seen as (outer, channels, inner), where a step along `outer` is each operand's own. A
# unit of work is a tile of ROWS × WIDTH elements: rows along `outer`; with COLUMNS, where inner is
# 1, columns along the channels, otherwise along `inner` within one channel. A parameter has one
# value per channel. The sums of a tile go to `partial`, (sums, row blocks · column blocks,
# channels), which the host adds up in a fixed order.
_KERNEL = """\
import triton
import triton.language as tl

from zeta.runtime.triton.primitives import *


@triton.jit
def kernel(
    {pointers}, upstream_ptr, partial_ptr,
    {strides}, outer, channels, inner, size, row_blocks, column_blocks,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):
    unit = tl.program_id(0).to(tl.int64)
    column_block = unit % column_blocks
    row_block = unit // column_blocks % row_blocks
    segment = unit // column_blocks // row_blocks
    rows = row_block * ROWS + tl.arange(0, ROWS)[:, None]
    columns = column_block * WIDTH + tl.arange(0, WIDTH)[None, :]
    if COLUMNS:
        within, width, channel = columns, channels, columns
        block, blocks = row_block, row_blocks
    else:
        within, width = segment * inner + columns, inner
        channel = segment + tl.zeros((1, 1), tl.int64)
        block, blocks = row_block * column_blocks + column_block, row_blocks * column_blocks
    known = channel < channels
    at = rows * channels * inner + within
    inside = (rows < outer) & (columns < width) & (at < size)
{body}
"""


@refusals()
def source(program: Program, pairs: bool = False) -> str:
    """The Python source of a module whose ``kernel`` computes the program.

    Args:
        program: what to compute at an element.
        pairs: as in `zeta.codegen.cpp.source`.
    """
    operands = [*_elements(program), *_stores(program)]
    parameters = [identifier("parameter", name) for name in program.parameters]
    return _KERNEL.format(
        pointers=", ".join(f"{name}_ptr" for name in (*operands, *parameters)),
        strides=", ".join(f"{name}_stride" for name in operands),
        body="\n".join(f"    {line}" for line in _body(program, pairs)),
    )


# One formula for the tiles of hand-written kernels; what is not asked for, the compiler leaves out.
_FUNCTIONS = """\
import triton
import triton.language as tl

from zeta.runtime.triton.primitives import *


@triton.jit
def value({element}, parameters_ptr):
    channel = {element}
{value}
    return result


@triton.jit
def slope({element}, parameters_ptr):
    channel = {element}
{slope}
    return result


@triton.jit
def term({element}, parameters_ptr, WHICH: tl.constexpr):
    channel = {element}
{terms}
    return result
"""


@refusals()
def functions_source(value: Program, slope: Program) -> str:
    """The Python source of a module with ``value``, ``slope`` and ``term`` of a formula.

    Args:
        value, slope: as in `zeta.codegen.cpp.softmax_source`.
    """
    read = [
        f"{identifier('parameter', name)} = tl.load(parameters_ptr + {i})"
        for i, name in enumerate(value.parameters)
    ]
    terms: dict[str, Node] = {}
    for k, sum_ in enumerate(slope.sums):
        terms |= {f"term{k}": sum_.term, f"factor{k}": sum_.factor}
    chosen = [
        f"if WHICH == {k}:\n        result = term{k} * factor{k}" for k in range(len(terms) // 2)
    ]
    zero = "result = splat(0.0, channel)"
    bodies = {
        "value": [*read, *_TRITON.statements({"result": value.stores[0]})],
        "slope": [*read, *_TRITON.statements({"result": slope.stores[0]})],
        "terms": [*read, *_TRITON.statements(terms), zero, *chosen],
    }
    return _FUNCTIONS.format(
        element=identifier("element", value.elements[0]),
        **{name: "\n".join(f"    {line}" for line in lines) for name, lines in bodies.items()},
    )


def _elements(program: Program) -> list[str]:
    return [identifier("element", name) for name in program.elements]


def _stores(program: Program) -> list[str]:
    return [f"out{k}" for k in range(len(program.stores))]


def _body(program: Program, pairs: bool) -> Iterable[str]:
    place = "{0}_ptr + rows * {0}_stride + {1} * within"
    read, write = (2 if pairs else 1), (2 if pairs and len(program.stores) == 2 else 1)
    for name in _elements(program):
        loaded = f"tl.load({place.format(name, read)}, mask=inside, other=0.0)"
        yield f"{name} = {loaded}.to(tl.float32)"
    for name in program.parameters:
        operand = identifier("parameter", name)
        yield f"{operand} = tl.load({operand}_ptr + channel, mask=known, other=1.0)"
    results = dict(zip(_stores(program), program.stores, strict=True))
    for k, sum_ in enumerate(program.sums):
        results |= {f"term{k}": sum_.term, f"factor{k}": sum_.factor}
    yield from _TRITON.statements(results)
    if program.backward:
        yield "upstream = tl.load(upstream_ptr + at, mask=inside, other=0.0).to(tl.float32)"
    for name in _stores(program):
        value = f"(upstream * {name})" if program.backward else name
        rounded = f"{value}.to({name}_ptr.dtype.element_ty)"
        yield f"tl.store({place.format(name, write)}, {rounded}, mask=inside)"
    for k in range(len(program.sums)):
        yield f"term = tl.where(inside, upstream * term{k}, 0.0)"
        yield f"into = partial_ptr + ({k} * blocks + block) * channels + channel"
        yield f"tl.store(into, total(term, COLUMNS) * factor{k}, mask=known)"


_TRITON = Dialect(
    statement="{} = {}",
    vector="{}",
    mask="{}",
    number=lambda value: repr(value) if math.isfinite(value) else f"float({str(value)!r})",
    splat="splat({}, channel)",
    rounded="{}",
    templates=OPERATORS
    | {
        "indicator": "{}.to(tl.float32)",
        "where": "tl.where({}, {}, {})",
        "finite_below": "at_least({}, -3.4028234663852886e38)",
        "finite_above": "at_most({}, 3.4028234663852886e38)",
    },
)
