"""From a formula to expressions: the value and its derivatives, with shared subexpressions.

The formula is called once on SymPy symbols. What a kernel needs of it is differentiated by the
chain rule, written with primitives that do not cancel (a `sigmoid_derivative` rather than
s·(1 - s)), and shared. Printers turn the resulting `Program` into source code; they need to know
the primitives' names, and nothing about formulas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import sympy
from sympy import Add, Dummy, Expr, Float, Function, Mul, Piecewise, Pow, Symbol
from sympy.core.parameters import distribute
from sympy.core.relational import Gt
from sympy.logic.boolalg import Boolean
from sympy.simplify.cse_main import tree_cse

from zeta._backends.sympy import (
    clip,
    erfc,
    expm1,
    log1p,
    maximum,
    minimum,
    sigmoid,
    softplus,
)
from zeta._errors import NoKernelError
from zeta._formula import Formula

X = Symbol("x", real=True)


class _Primitive(Function):
    """A function that printers know by its name, beside those of `zeta.math`."""

    is_real = True


class sigmoid_complement(_Primitive):
    """sigmoid(-x)."""


class sigmoid_derivative(_Primitive):
    """sigmoid(x)·sigmoid(-x)."""


class tanh_derivative(_Primitive):
    """1 - tanh(x)²."""


class tanh_softplus(_Primitive):
    """tanh(softplus(x)), which needs neither a logarithm nor a second exponential."""


class tanh_softplus_derivative(_Primitive):
    """Its derivative."""


class gauss(_Primitive):
    """e^(-x²)."""


class unless_nan(_Primitive):
    """The first, but NaN where the second is."""


class power_log(_Primitive):
    """b^e·log(b), the derivative of b^e by e; 0 where b is 0 and e is not negative."""


_DERIVATIVES: dict[type[Function], Callable[[Expr], Expr]] = {
    sympy.exp: sympy.exp,
    expm1: sympy.exp,
    sympy.log: lambda u: 1 / u,
    log1p: lambda u: 1 / (1 + u),
    sympy.sin: sympy.cos,
    sympy.cos: lambda u: -sympy.sin(u),
    sympy.atan: lambda u: 1 / (1 + u**2),
    sympy.tanh: tanh_derivative,
    sympy.erf: lambda u: Float(2 / math.sqrt(math.pi)) * gauss(u),
    erfc: lambda u: Float(-2 / math.sqrt(math.pi)) * gauss(u),
    sigmoid: sigmoid_derivative,
    sigmoid_complement: lambda u: -sigmoid_derivative(u),
    softplus: sigmoid,
    tanh_softplus: tanh_softplus_derivative,
    sympy.Abs: sympy.sign,
}

# Every function that printers know.
_KNOWN = frozenset({*_DERIVATIVES, clip, minimum, maximum, sympy.sign, Piecewise})

# Parts of an expression, repeated ones counted: far beyond, SymPy takes minutes and all memory.
LARGEST_EXPRESSION = 10_000


_NO_COMPARISON = (
    "comparisons have no kernel; write zeta.math.piecewise(x, positive=…, otherwise=…), "
    "maximum or minimum"
)
# What Python and SymPy say where a comparison is calculated with, or decides an `if`.
_COMPARED = re.compile(r"truth value of|'(Strict)?(Greater|Less)Than'|'(And|Or|Not)'")


@contextmanager
def refusals() -> Iterator[None]:
    """What goes wrong with a formula as a NoKernelError that says why, whatever it was.

    A formula is its author's own function, and may do anything with a symbol.
    """
    try:
        yield
    except NoKernelError:
        raise
    except RecursionError as error:
        raise NoKernelError("its operations are nested too deeply") from error
    except Exception as error:
        said = " ".join(str(error).split())
        why = f"on symbols it raises {type(error).__name__}: {said}"
        raise NoKernelError(_NO_COMPARISON if _COMPARED.search(said) else why) from error


# Functions whose values cannot overflow unless the result does.
_BOUNDED = (
    sympy.exp,
    expm1,
    sympy.sin,
    sympy.cos,
    sympy.atan,
    sympy.tanh,
    sympy.erf,
    sympy.sign,
    erfc,
    sigmoid,
    clip,
    sigmoid_complement,
    sigmoid_derivative,
    tanh_derivative,
    tanh_softplus,
    tanh_softplus_derivative,
    gauss,
)


@dataclass(frozen=True)
class Gradient:
    """A parameter's derivative, ``factor`` · ``term``; only the term depends on x."""

    parameter: str
    factor: Expr
    term: Expr


@dataclass(frozen=True)
class Program:
    """What a kernel computes at one element.

    Attributes:
        parameters: the names that are read at run time.
        statements: shared subexpressions, each a symbol and what it stands for, in order.
        value: the formula's value, if it is wanted.
        slope: the derivative by x, if it is wanted.
        gradients: the wanted derivatives by parameters.
        clamped_sides: whether x is to be kept finite below and above, see `Formula`.
    """

    parameters: tuple[str, ...]
    statements: tuple[tuple[Symbol, Expr], ...]
    value: Expr | None
    slope: Expr | None
    gradients: tuple[Gradient, ...]
    clamped_sides: tuple[bool, bool]

    def ordered_factors(self, product: Expr) -> tuple[list[Expr], list[Expr], list[Expr]]:
        """The factors in the order to multiply them: bounded, independent of x, any other.

        So 0 · huge · huge is 0 and never 0 · inf, and what the loop need not do stays together.
        """
        definitions = dict(self.statements)

        def depends(e: Expr) -> bool:
            return any(s == X or depends(definitions.get(s, zero)) for s in e.free_symbols)

        zero = sympy.Integer(0)
        factors = Mul.make_args(product)
        varying = [e for e in factors if depends(e)]
        return (
            [e for e in varying if _is_bounded(e, definitions)],
            [e for e in factors if e not in varying],
            [e for e in varying if not _is_bounded(e, definitions)],
        )


def value_program(formula: Formula, constants: Mapping[str, float]) -> Program:
    """The formula's value; ``constants`` are parameters whose values are known now.

    Raises:
        NoKernelError: code cannot be generated, see :func:`refusals`.
        TypeError: it is computed with something else than arithmetic and `zeta.math`.
    """
    clamped_sides = formula.clamped_sides
    with refusals():
        value, names = _traced(formula, constants)
        statements, (shared,) = _shared([_without_cancellation(_keep_nan(value))])
    return Program(names, statements, shared, None, (), clamped_sides)


def gradient_program(
    formula: Formula, constants: Mapping[str, float], wanted: tuple[str, ...]
) -> Program:
    """The derivatives by the names in ``wanted``; "x" stands for the input.

    Raises:
        NoKernelError, TypeError: as :func:`value_program`.
    """
    clamped_sides = formula.clamped_sides
    by_parameter = tuple(name for name in wanted if name != "x")
    with refusals():
        value, names = _traced(formula, constants)
        slope = _without_cancellation(_derivative(value, X)) if "x" in wanted else None
        derivatives = [_derivative(value, _symbol(name)) for name in by_parameter]
        split = [_split(_without_cancellation(derivative)) for derivative in derivatives]
        statements, shared = _shared([slope or sympy.Integer(0), *(term for _, term in split)])
    gradients = tuple(
        Gradient(name, factor, term)
        for name, (factor, _), term in zip(by_parameter, split, shared[1:], strict=True)
    )
    return Program(
        names,
        statements,
        None,
        None if slope is None else shared[0],
        gradients,
        clamped_sides,
    )


def _symbol(name: str) -> Symbol:
    return Symbol(name, real=True)


def _traced(formula: Formula, constants: Mapping[str, float]) -> tuple[Expr, tuple[str, ...]]:
    _check_equality(formula)
    names = tuple(name for name in formula.parameters if name not in constants)
    known = {name: sympy.nsimplify(value) for name, value in constants.items()}
    arguments = known | {name: _symbol(name) for name in names}
    with sympy.evaluate(False):  # nothing is simplified, so that this takes no time
        _check_size(formula.function(X, **arguments))
    with distribute(False):  # (x + 3)/6 is exactly 0 at -3; x/6 + 1/2 is not
        value = sympy.sympify(formula.function(X, **arguments))
    _check_functions(value)
    _check_comparisons(value)
    value = value.replace(
        lambda e: isinstance(e, sympy.tanh) and isinstance(e.args[0], softplus),
        lambda e: tanh_softplus(e.args[0].args[0]),
    )
    return value, names


def _check_size(value: Any) -> None:
    if isinstance(value, Expr) and _size(value, {}) > LARGEST_EXPRESSION:
        raise NoKernelError(f"written out, it has more than {LARGEST_EXPRESSION:,} parts")


def _check_functions(value: Expr) -> None:
    names = {known.__name__ for known in _KNOWN}
    unknown = {type(function).__name__ for function in value.atoms(Function)} - names
    if unknown:
        raise NoKernelError(f"kernels do not know {', '.join(sorted(unknown))}")


class _Unequalled(np.ndarray):
    """A number that is not to be compared: SymPy answers x == 0 by how the two are written."""

    def __eq__(self, other: object) -> NoReturn:
        raise NoKernelError(_NO_COMPARISON)

    __ne__ = __eq__


def _check_equality(formula: Formula) -> None:
    x = np.array([-0.5, 0.5]).view(_Unequalled)
    values = {k: np.array(v).view(_Unequalled) for k, v in formula.parameters.items()}
    with np.errstate(all="ignore"):
        formula.function(x, **values)


def _check_comparisons(e: Expr) -> None:
    """A comparison chooses a branch, and is no number itself."""
    if isinstance(e, Boolean) and not isinstance(e, Symbol):
        raise NoKernelError(_NO_COMPARISON)
    is_choice = isinstance(e, Piecewise)
    for part in (branch for branch, _ in e.args) if is_choice else e.args:
        _check_comparisons(part)


def _size(e: Expr, known: dict[int, int]) -> int:
    """The parts of an expression as a tree; ``known``, by identity, spares walking through it."""
    if id(e) not in known:
        known[id(e)] = 1 + sum(_size(part, known) for part in e.args)
    return known[id(e)]


def _without_cancellation(e: Expr) -> Expr:
    """1 - sigmoid(z) as sigmoid(-z)."""

    def complement(total: Expr) -> Expr:
        for term in total.args:
            if isinstance(-term, sigmoid):
                return total - 1 - term + sigmoid_complement(*(-term).args)
        return total

    return e.replace(lambda u: u.is_Add and 1 in u.args, complement)


def _keep_nan(e: Expr) -> Expr:
    """A branch that does not depend on x would turn NaN into a number."""

    def keep(choice: Expr) -> Expr:
        (positive, condition), (otherwise, _) = choice.args[0], choice.args[-1]
        if not isinstance(condition, Gt) or otherwise.has(X):
            return choice
        # SymPy takes x > 0 and x <= 0 to cover everything, so a third branch would not last.
        return Piecewise((positive, condition), (unless_nan(otherwise, condition.lhs), True))

    return e.replace(lambda u: isinstance(u, Piecewise) and len(u.args) == 2, keep)


def _derivative(e: Expr, by: Symbol) -> Expr:
    """The derivative, with the structure of the formula kept: nothing is expanded."""
    if not e.has(by):
        return sympy.Integer(0)
    if isinstance(e, Piecewise):
        return Piecewise(*((_derivative(branch, by), condition) for branch, condition in e.args))
    if isinstance(e, minimum | maximum):
        a, b = e.args
        first = a <= b if isinstance(e, minimum) else a >= b
        return Piecewise((_derivative(a, by), first), (_derivative(b, by), True))
    if isinstance(e, clip):
        return e.fdiff() * _derivative(e.args[0], by)
    if isinstance(e, Function):
        (u,) = e.args
        return _DERIVATIVES[type(e)](u) * _derivative(u, by)
    if _is_power(e):
        return _power_derivative(e, by)
    names = {part: Dummy(real=True) for part in _outermost_functions(e)}
    parts = {name: part for part, name in names.items()}
    outer = e.xreplace(names)
    total = sympy.diff(outer, by).xreplace(parts)
    for name, part in parts.items():
        total += sympy.diff(outer, name).xreplace(parts) * _derivative(part, by)
    return total


def _is_power(e: Expr) -> bool:
    """Whether it is a power whose exponent is computed."""
    return isinstance(e, Pow) and not e.exp.is_number


def _power_derivative(e: Pow, by: Symbol) -> Expr:
    """By base and exponent; SymPy's own b^e·e/b is 0/0 at b = 0."""
    base, exponent = e.args
    log = power_log(base, exponent) if not base.is_number else e * sympy.log(base)
    by_base = exponent * base ** (exponent - 1) * _derivative(base, by)
    return by_base + log * _derivative(exponent, by)


def _outermost_functions(e: Expr) -> list[Expr]:
    if isinstance(e, Function | Piecewise) or _is_power(e):
        return [e]
    found = (part for argument in e.args for part in _outermost_functions(argument))
    return list(dict.fromkeys(found))


def _split(e: Expr) -> tuple[Expr, Expr]:
    """The factor that does not depend on x, and the one that does."""
    factor, term = e.as_independent(X, as_Add=False)
    if isinstance(term, Piecewise):
        branches = [branch for branch, _ in term.args if branch != 0]
        if len(branches) == 1:
            inner, rest = _split(branches[0])
            choice = Piecewise(*((rest if b != 0 else b, c) for b, c in term.args))
            return factor * inner, choice
    return factor, term


def _shared(expressions: list[Expr]) -> tuple[tuple[tuple[Symbol, Expr], ...], list[Expr]]:
    """Common subexpressions named; products are not regrouped, their order matters."""
    names = (Symbol(f"t{i}", real=True) for i in range(10**6))
    statements, shared = tree_cse(expressions, names)
    return tuple(statements), shared


def _is_bounded(e: Expr, definitions: Mapping[Symbol, Expr]) -> bool:
    if e in definitions:
        return _is_bounded(definitions[e], definitions)
    if isinstance(e, Piecewise):
        return all(_is_bounded(branch, definitions) for branch, _ in e.args)
    if isinstance(e, Add | Mul):
        return all(_is_bounded(part, definitions) for part in e.args)
    if isinstance(e, Pow):
        return bool(e.exp.is_positive) and _is_bounded(e.base, definitions)
    return e.is_Number or isinstance(e, _BOUNDED)
