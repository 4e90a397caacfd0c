"""Prints a program as a C++ translation unit, which needs no header but the standard library's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from zeta import runtime
from zeta.codegen.printer import OPERATORS, Dialect, identifier
from zeta.codegen.trace import Program, refusals

_STORAGE = {"float16": "Half", "bfloat16": "BFloat", "float32": "float", "float64": "double"}


@refusals()
def source(program: Program, dtype: str, columns: bool, pairs: bool = False) -> str:
    """The whole translation unit.

    Args:
        program: what to compute at an element.
        dtype: the tensors', "float16", "bfloat16", "float32" or "float64".
        columns: whether parameters vary along the innermost dimension.
        pairs: whether the program's two inputs lie in turn in memory, and their gradients too.
    """
    return f"""\
{_prelude(dtype)}
constexpr int elements = {len(program.elements)}, parameters = {len(program.parameters)};
constexpr int stores = {len(program.stores)}, sums = {len(program.sums)};
constexpr bool backward = {_bool(program.backward)}, columns = {_bool(columns)};
constexpr bool pairs = {_bool(pairs)};

INLINE void evaluate(const V* x, const V* p, V* out, V* terms) {{
{_indented(_evaluate(program))}
}}

INLINE void finish(const Number* const* p, int64_t channel, double* totals) {{
{_indented(_finish(program))}
}}

}}  // namespace formula
{header("storage.h")}
{header("loops.h")}"""


@refusals()
def softmax_source(value: Program, slope: Program, dtype: str, logs: bool) -> str:
    """The whole translation unit of a formula's softmax, forward and backward.

    Args:
        value, slope: programs of the pre-activation, and of its derivatives by x and by every
            parameter.
        dtype: the tensors', as in :func:`source`.
        logs: whether it is the softmax's logarithm.
    """
    return f"""\
{_prelude(dtype)}
constexpr bool logs = {_bool(logs)};
{_value_and_slope(value, slope)}
{header("storage.h")}
{header("softmax.h")}"""


@refusals()
def mixture_source(value: Program, slope: Program, dtype: str) -> str:
    """The whole translation unit of a softmax head's rows.

    Args:
        value, slope: of the formula between logits and softmax, as in :func:`softmax_source`.
        dtype: the logits', as in :func:`source`.
    """
    return f"""\
{_prelude(dtype)}
{_value_and_slope(value, slope)}
{header("storage.h")}
{header("mixture.h")}"""


def _value_and_slope(value: Program, slope: Program) -> str:
    """A formula of one input as functions, and the end of their namespace."""
    return f"""\
constexpr int parameters = {len(value.parameters)};

INLINE V value(V element, const V* p) {{
    const V* x = &element;
    V out[1];
{_indented(_evaluate(value))}
    return rounded(out[0]);  // the same number in every pass, whatever it is subtracted from there
}}

INLINE V slope(V element, const V* p, V* terms) {{
    const V* x = &element;
    V out[1];
{_indented(_evaluate(slope))}
    return out[0];
}}

INLINE void finish(const Number* const* p, int64_t channel, double* totals) {{
{_indented(_finish(slope))}
}}

}}  // namespace formula"""


def _prelude(dtype: str) -> str:
    """The primitives, and the types of this kernel."""
    return f"""\
{header("primitives.h")}
namespace formula {{

using Storage = {_STORAGE[dtype]};
using V = {"Double" if dtype == "float64" else "Float"};
using Number = Scalar<V>;"""


@cache
def header(name: str) -> str:
    """The text of a hand-written C++ file."""
    return (Path(runtime.__file__).parent / "cpp" / name).read_text(encoding="utf-8")


def _bool(value: bool) -> str:
    return str(value).lower()


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _evaluate(program: Program) -> Iterable[str]:
    for i, name in enumerate(program.elements):
        yield f"const V {identifier('element', name)} = x[{i}];"
    for i, name in enumerate(program.parameters):
        yield f"const V {identifier('parameter', name)} = p[{i}];"
    results = {f"out[{k}]": node for k, node in enumerate(program.stores)}
    results |= {f"terms[{k}]": sum_.term for k, sum_ in enumerate(program.sums)}
    yield from CPP.statements(results)


def _finish(program: Program) -> Iterable[str]:
    factors = [sum_.factor for sum_ in program.sums]
    needed = frozenset().union(*(factor.operands for factor in factors))
    for i, name in enumerate(program.parameters):
        if name in needed:
            yield f"const V {identifier('parameter', name)} = splat<V>(p[{i}][channel]);"
    yield from CPP.statements({f"const V factor{k}": factor for k, factor in enumerate(factors)})
    for k in range(len(factors)):
        yield f"totals[{k}] *= factor{k}[0];"


def _number(value: float) -> str:
    if math.isfinite(value):
        return f"Number({value!r})"
    return "Number(NAN)" if math.isnan(value) else f"Number({'-' * (value < 0)}INFINITY)"


CPP = Dialect(
    statement="{} = {};",
    vector="const V {}",
    mask="const auto {}",
    number=_number,
    splat="splat<V>({})",
    rounded="rounded({})",
    templates=OPERATORS
    | {
        "indicator": "indicator<V>({})",
        "where": "{} ? {} : {}",
        "finite_below": "at_least({}, -std::numeric_limits<Number>::max())",
        "finite_above": "at_most({}, std::numeric_limits<Number>::max())",
    },
)
