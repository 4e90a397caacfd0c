"""Prints a program as a C++ translation unit, which needs no header but the standard library's."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import sympy
from sympy import Expr, Piecewise, Symbol
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from zeta.codegen.trace import Program, refusals

_STORAGE = {"float16": "Half", "bfloat16": "BFloat", "float32": "float", "float64": "double"}
# SymPy's class names that are not the primitive's own.
_NAMES = {"Abs": "abs"}
# Written out as products up to this exponent.
_LARGEST_PRODUCT = 4


@refusals()
def source(program: Program, dtype: str, columns: bool) -> str:
    """The whole translation unit.

    Args:
        program: what to compute at an element.
        dtype: the tensors', "float16", "bfloat16", "float32" or "float64".
        columns: whether parameters vary along the innermost dimension.
    """
    writes = program.value is not None or program.slope is not None
    backward = program.value is None
    body = "\n".join(f"    {line}" for line in _evaluate(program))
    finish = "\n".join(f"    {line}" for line in _finish(program))
    return f"""\
{_prelude(dtype)}
constexpr int parameters = {len(program.parameters)}, sums = {len(program.gradients)};
constexpr bool writes = {_bool(writes)}, backward = {_bool(backward)}, columns = {_bool(columns)};

INLINE void evaluate(V x, const V* p, V& out, V* terms) {{
{body}
}}

INLINE void finish(const Number* const* p, int64_t channel, double* totals) {{
{finish}
}}

}}  // namespace formula
{header("storage.h")}
{header("loops.h")}"""


@refusals()
def softmax_source(value: Program, slope: Program, dtype: str) -> str:
    """The whole translation unit of a formula's softmax, forward and backward.

    Args:
        value, slope: programs of the pre-activation and of its derivative by x.
        dtype: the tensors', as in :func:`source`.
    """
    functions = "\n\n".join(
        f"INLINE V {name}(V x, const V* p) {{\n    V out;\n"
        + "\n".join(f"    {line}" for line in _evaluate(program))
        + "\n    return out;\n}"
        for name, program in {"value": value, "slope": slope}.items()
    )
    return f"""\
{_prelude(dtype)}
constexpr int parameters = {len(value.parameters)};

{functions}

}}  // namespace formula
{header("storage.h")}
{header("softmax.h")}"""


def mixture_source(dtype: str) -> str:
    """The whole translation unit of a mixture of softmaxes' rows.

    Args:
        dtype: the logits', as in :func:`source`.
    """
    return f"""\
{_prelude(dtype)}

}}  // namespace formula
{header("storage.h")}
{header("mixture.h")}"""


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
    """The text of one of this package's C++ files."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _bool(value: bool) -> str:
    return str(value).lower()


def _evaluate(program: Program) -> Iterable[str]:
    below, above = program.clamped_sides
    if below:
        yield "x = at_least(x, -std::numeric_limits<Number>::max());"
    if above:
        yield "x = at_most(x, std::numeric_limits<Number>::max());"
    for i, name in enumerate(program.parameters):
        yield f"const V {_identifier(name)} = p[{i}];"
    printer = Printer(program)
    for symbol, expression in program.statements:
        if isinstance(expression, Boolean):
            yield f"const auto {symbol.name} = {printer.condition(expression)};"
        else:
            yield f"const V {symbol.name} = {printer.vector(expression)};"
    for output in (program.value, program.slope):
        if output is not None:
            yield f"out = {printer.vector(output)};"
    for k, gradient in enumerate(program.gradients):
        yield f"terms[{k}] = {printer.vector(gradient.term)};"


def _finish(program: Program) -> Iterable[str]:
    printer = Printer(program)
    needed = {s.name for gradient in program.gradients for s in gradient.factor.free_symbols}
    for i, name in enumerate(program.parameters):
        if name in needed:
            yield f"const V {_identifier(name)} = splat<V>(p[{i}][channel]);"
    for k, gradient in enumerate(program.gradients):
        if gradient.factor != 1:
            yield f"totals[{k}] *= ({printer.vector(gradient.factor)})[0];"


def _identifier(name: str) -> str:
    """A parameter's name as one that is no keyword and no name of ours."""
    return f"p_{name}"


class Printer:
    """Expressions as C++ on the vector type V."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = {s.name: s.name for s, _ in program.statements}
        self.names |= {name: _identifier(name) for name in program.parameters} | {"x": "x"}

    def vector(self, e: Expr) -> str:
        """As an expression of type V, also where it is a number."""
        return f"splat<V>({self.text(e)})" if e.is_number else self.text(e)

    def number(self, value: float) -> str:
        """A literal."""
        return f"Number({value!r})"

    def select(self, condition: str, value: str, otherwise: str) -> str:
        """One of two vectors, lane by lane."""
        return f"({condition} ? {value} : {otherwise})"

    def text(self, e: Expr) -> str:
        """As an expression of type V, or a Number if it is one; compound ones in parentheses."""
        if e.is_number:
            return self.number(float(e))
        if isinstance(e, Symbol):
            return self.names[e.name]
        if isinstance(e, Piecewise):
            return self._choice(e)
        if e.is_Add:
            first, *others = (self.text(term) for term in _numbers_last(e.args))
            return f"({first}{''.join(map(_added, others))})"
        if e.is_Mul:
            return f"({self._product(e)})"
        if e.is_Pow:
            return f"({self._power(e)})"
        name = _NAMES.get(type(e).__name__, type(e).__name__)
        return f"{name}({', '.join(self.vector(argument) for argument in e.args)})"

    def _product(self, e: Expr) -> str:
        coefficient, rest = e.as_coeff_Mul()
        if coefficient == -1:
            return f"-{self.text(rest)}"
        bounded, invariant, other = self.program.ordered_factors(e)
        if len(invariant) < 2 or not (bounded or other):
            return self._quotient(bounded + invariant + other)
        group = f"({self._quotient(invariant)})"
        first, last = self._quotient(bounded), self._quotient(other)
        return " * ".join(filter(None, (first, group, last)))

    def _quotient(self, factors: list[Expr]) -> str:
        if not factors:
            return ""
        over = [f for f in factors if f.is_Pow and f.exp.is_negative]
        upper = " * ".join(self.text(f) for f in factors if f not in over) or self.number(1.0)
        return " / ".join([upper, *(self.text(1 / f) for f in over)])

    def _power(self, e: Expr) -> str:
        base, exponent = e.args
        if exponent.is_negative:
            return f"{self.number(1.0)} / {self.text(1 / e)}"
        if exponent == sympy.Rational(1, 2):
            return f"sqrt({self.vector(base)})"
        if exponent.is_Integer and exponent <= _LARGEST_PRODUCT:
            return " * ".join([self.text(base)] * int(exponent))
        return f"power({self.vector(base)}, {self.vector(exponent)})"

    def _choice(self, e: Expr) -> str:
        *cases, (last, _) = e.args
        text = self.vector(last)
        for value, condition in reversed(cases):
            text = self.select(self.condition(condition), self.vector(value), text)
        return text

    def condition(self, condition: Boolean) -> str:
        """As a mask."""
        if isinstance(condition, Symbol):
            return condition.name
        if isinstance(condition, Relational):
            left, right = (self.vector(side) for side in condition.args)
            return f"{left} {condition.rel_op} {right}"
        operator = {"And": " & ", "Or": " | "}[type(condition).__name__]
        return f"({operator.join(f'({self.condition(c)})' for c in condition.args)})"


def _added(term: str) -> str:
    return f" - {term[2:-1]}" if term.startswith("(-") else f" + {term}"


def _numbers_last(terms: tuple[Expr, ...]) -> list[Expr]:
    return sorted(terms, key=lambda term: term.is_number)
