"""SymPy: the primitives on expressions, for derivatives, code generation and LaTeX."""

from collections.abc import Callable
from typing import Any

import sympy
from sympy import Expr, Function, Piecewise
from sympy.codegen import cfunctions

from zeta._formula import Formula

exp = sympy.exp
expm1 = cfunctions.expm1
log = sympy.log
log1p = cfunctions.log1p
sqrt = sympy.sqrt
sin = sympy.sin
cos = sympy.cos
atan = sympy.atan
tanh = sympy.tanh
erf = sympy.erf


class sigmoid(Function):
    """The logistic function, kept whole so that printers need not recognise it."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> Expr:
        """s·(1 - s), with 1 - s as its own function: no cancellation."""
        (x,) = self.args
        return sigmoid(x) * sigmoid(-x)

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _operator(r"\sigma", self, printer, exp)


class erfc(Function):
    """The complementary error function; SymPy's own turns erfc(-z) into 2 - erfc(z)."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> Expr:
        """The Gaussian, -2/√π·e^(-x²)."""
        (x,) = self.args
        return -2 / sympy.sqrt(sympy.pi) * sympy.exp(-(x**2))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _operator(r"\operatorname{erfc}", self, printer, exp)


class softplus(Function):
    """log(1 + e^x), kept whole for the same reason."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> Expr:
        """The logistic function."""
        return sigmoid(self.args[0])

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _operator(r"\operatorname{softplus}", self, printer, exp)


class clip(Function):
    """x kept within [low, high], two numbers."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> Expr:
        """1 strictly inside, else 0."""
        x, low, high = self.args
        return Piecewise((0, x <= low), (0, x >= high), (1, True))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _operator(r"\operatorname{clip}", self, printer, exp)


class minimum(Function):
    """The smaller of two, kept whole: as a choice it would lose NaN, and nest badly."""

    is_real = True

    @classmethod
    def eval(cls, x: Expr, y: Expr) -> Expr | None:
        """Of two numbers, the number."""
        return sympy.Min(x, y) if x.is_number and y.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """1 for the argument that it is, else 0."""
        x, y = self.args
        return Piecewise((2 - argindex, x <= y), (argindex - 1, True))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _operator(r"\min", self, printer, exp)


class maximum(Function):
    """The larger of two, kept whole for the same reasons."""

    is_real = True

    @classmethod
    def eval(cls, x: Expr, y: Expr) -> Expr | None:
        """Of two numbers, the number."""
        return sympy.Max(x, y) if x.is_number and y.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """1 for the argument that it is, else 0."""
        x, y = self.args
        return Piecewise((2 - argindex, x >= y), (argindex - 1, True))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _operator(r"\max", self, printer, exp)


def piecewise(x: Expr, positive: Callable[[Expr], Any], otherwise: Callable[[Expr], Any]) -> Expr:
    return Piecewise((positive(x), x > 0), (otherwise(x), True))


def evaluate(formula: Formula, inputs: tuple[Expr, ...], parameters: dict[str, Any]) -> Expr:
    """The formula as an expression."""
    return formula.function(*inputs, **parameters)


def _operator(name: str, function: Function, printer: Any, exponent: str | None) -> str:
    power = f"^{{{exponent}}}" if exponent else ""
    arguments = ", ".join(printer._print(argument) for argument in function.args)
    return rf"{name}{power}\left({arguments}\right)"
