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


class _Whole(Function):
    """Kept whole, so that printers need not recognise it; ``symbol`` is its name in LaTeX."""

    is_real = True
    symbol = ""

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        power = f"^{{{exp}}}" if exp else ""
        arguments = ", ".join(map(printer._print, self.args))
        return rf"{self.symbol}{power}\left({arguments}\right)"


class sigmoid(_Whole):
    """The logistic function."""

    symbol = r"\sigma"

    def fdiff(self, argindex: int = 1) -> Expr:
        """s·(1 - s), with 1 - s as its own function: no cancellation."""
        (x,) = self.args
        return sigmoid(x) * sigmoid(-x)


class erfc(_Whole):
    """The complementary error function; SymPy's own turns erfc(-z) into 2 - erfc(z)."""

    symbol = r"\operatorname{erfc}"

    def fdiff(self, argindex: int = 1) -> Expr:
        """The Gaussian, -2/√π·e^(-x²)."""
        (x,) = self.args
        return -2 / sympy.sqrt(sympy.pi) * sympy.exp(-(x**2))


class softplus(_Whole):
    """log(1 + e^x)."""

    symbol = r"\operatorname{softplus}"

    def fdiff(self, argindex: int = 1) -> Expr:
        """The logistic function."""
        return sigmoid(self.args[0])


class clip(_Whole):
    """x kept within [low, high], two numbers."""

    symbol = r"\operatorname{clip}"

    def fdiff(self, argindex: int = 1) -> Expr:
        """1 strictly inside, else 0."""
        x, low, high = self.args
        return Piecewise((0, x <= low), (0, x >= high), (1, True))


class minimum(_Whole):
    """The smaller of two, whole since as a choice it would lose NaN, and nest badly."""

    symbol = r"\min"

    @classmethod
    def eval(cls, x: Expr, y: Expr) -> Expr | None:
        """Of two numbers, the number."""
        return sympy.Min(x, y) if x.is_number and y.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """1 for the argument that it is, else 0."""
        x, y = self.args
        return Piecewise((2 - argindex, x <= y), (argindex - 1, True))


class maximum(_Whole):
    """The larger of two, for the same reasons."""

    symbol = r"\max"

    @classmethod
    def eval(cls, x: Expr, y: Expr) -> Expr | None:
        """Of two numbers, the number."""
        return sympy.Max(x, y) if x.is_number and y.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """1 for the argument that it is, else 0."""
        x, y = self.args
        return Piecewise((2 - argindex, x >= y), (argindex - 1, True))


def piecewise(x: Expr, positive: Callable[[Expr], Any], otherwise: Callable[[Expr], Any]) -> Expr:
    return Piecewise((positive(x), x > 0), (otherwise(x), True))


def evaluate(formula: Formula, inputs: tuple[Expr, ...], parameters: dict[str, Any]) -> Expr:
    """The formula as an expression."""
    return formula.function(*inputs, **parameters)
