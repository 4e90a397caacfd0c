"""SymPy: the primitives on expressions, for derivatives, code generation and LaTeX."""

from collections.abc import Callable, Sequence
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
asinh = sympy.asinh
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


class logaddexp(_Whole):
    """log(e^x + e^y)."""

    symbol = r"\operatorname{logaddexp}"

    def fdiff(self, argindex: int = 1) -> Expr:
        """The share of the argument in the sum."""
        x, y = self.args
        return sigmoid(x - y) if argindex == 1 else sigmoid(y - x)


class _Step(_Whole):
    """A function that is constant between its steps."""

    def fdiff(self, argindex: int = 1) -> Expr:
        """0."""
        return sympy.Integer(0)


class sign(_Step):
    """SymPy's own has the derivative 2δ."""

    symbol = r"\operatorname{sgn}"


class round(_Step):
    """The nearest integer."""

    symbol = r"\operatorname{round}"


class floor(_Step):
    """The next integer below."""

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        power = f"^{{{exp}}}" if exp else ""
        return rf"\left\lfloor{{{printer._print(self.args[0])}}}\right\rfloor{power}"


def rsqrt(x: Expr) -> Expr:
    return 1 / sympy.sqrt(x)


def hypot(x: Any, y: Any) -> Expr:
    return sympy.sqrt(sympy.sympify(x) ** 2 + sympy.sympify(y) ** 2)


def sinc(x: Expr) -> Expr:
    return sympy.sinc(sympy.pi * x)


def remainder(x: Any, y: Any) -> Expr:
    return x - y * floor(x / y)


def piecewise(x: Expr, knots: Sequence[Any], branches: Sequence[Callable[[Expr], Any]]) -> Expr:
    choices = [(branches[0](x), True)]
    for knot, branch in zip(knots, branches[1:], strict=True):
        choices.insert(0, (branch(x), x > knot))
    return Piecewise(*choices)


class with_gradient(_Whole):
    """A value with another function's derivative, which an expansion leaves out."""

    @classmethod
    def eval(cls, value: Expr, surrogate: Expr) -> Expr | None:
        """A condition is 0 or 1."""
        is_mask = isinstance(value, sympy.logic.boolalg.Boolean)
        return cls(Piecewise((1, value), (0, True)), surrogate) if is_mask else None

    def _eval_derivative(self, symbol: Expr) -> Expr:
        return self.args[1].diff(symbol)

    def _eval_expand_func(self, **hints: Any) -> Expr:
        return self.args[0]


def stop_gradient(x: Expr) -> Expr:
    return with_gradient(x, 0)


def evaluate(formula: Formula, inputs: tuple[Expr, ...], parameters: dict[str, Any]) -> Expr:
    """The formula as an expression."""
    return formula.function(*inputs, **parameters)
