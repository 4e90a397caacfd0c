"""Formulas drawn at random from all that a formula may be written with."""

import random

import zeta.math as zm
from zeta import Formula

PARAMETERS = {"a": 0.75, "b": -1.25}
UNARY = [
    *("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "atan", "tanh", "erf", "erfc"),
    *("sigmoid", "softplus", "asinh", "sinc", "rsqrt", "sign", "round", "floor"),
    "stop_gradient",
]
POSITIVE = ("log", "log1p", "sqrt", "rsqrt")
NUMBERS = [0.5, 1, 2, 3, -1, -0.3, 1.7, 6]


def random_formula(seed: int, depth: int = 6) -> Formula:
    """A formula of x, a and b; its name is how it is written."""
    draw = random.Random(seed)
    text = expression(draw, depth)
    while "x" not in text.replace("exp", "").replace("max", ""):
        text = expression(draw, depth)
    return written(text)


def written(text: str) -> Formula:
    """The formula of x, a and b that is written so."""
    function = eval(f"lambda x, a, b: {text}", vars(zm) | {"__builtins__": {"abs": abs}})
    function.__name__ = function.__qualname__ = text
    return Formula(function, PARAMETERS)


def expression(draw: random.Random, depth: int) -> str:
    """Text of at most so many levels."""
    if depth == 0 or draw.random() < 0.1:
        return draw.choice(["x", "x", "x", "a", "b", str(draw.choice(NUMBERS))])
    part = lambda: expression(draw, depth - 1)
    # Of a tensor: PyTorch's plain operations do not take a number alone.
    tensor = lambda: f"(x + {part()})" if draw.random() < 0.3 else f"(x * {part()})"
    number = lambda: str(draw.choice(NUMBERS))
    kinds = [*"+-**/", "unary", "unary", "unary", "power", "choice", "sign", "binary"]
    kind = draw.choice(kinds)
    if kind in ("+", "-", "*", "/"):
        return f"({part()} {kind} {part()})"
    if kind == "unary":
        name = draw.choice(UNARY)
        inner = tensor()
        # Logarithms and roots of what is positive, most of the time.
        return f"{name}({f'abs({inner})' if name in POSITIVE else inner})"
    if kind == "power":
        exponent = draw.choice(["2", "3", "4", "5", "-1", "-2", "0.5", "1.5", "abs(a)", "abs(b)"])
        base = tensor()
        return f"({base if exponent in '2345' else f'abs({base})'} ** {exponent})"
    if kind == "sign":
        return draw.choice(
            [f"-{tensor()}", f"abs({tensor()})", f"({tensor()} > {part()}) * {part()}"]
        )
    if kind == "binary":
        second = draw.choice([part, number])()
        return f"{draw.choice(['hypot', 'logaddexp', 'remainder'])}({tensor()}, {second})"
    match draw.choice(["minimum", "maximum", "clip", "piecewise", "knots", "with_gradient"]):
        case "with_gradient":
            return f"with_gradient({part()}, {tensor()})"
        case "knots":
            branches = ", ".join(f"lambda x: {part()}" for _ in range(3))
            return f"piecewise({tensor()}, (b, {draw.choice(['a', '0.5'])}), {branches})"
        case "clip":
            return (
                f"clip({tensor()}, {draw.choice(['-1', '-0.5', 'b'])}, {draw.choice(['2', 'a'])})"
            )
        case "piecewise":
            inner = expression(draw, depth - 1)
            return (
                f"piecewise({tensor()}, positive=lambda x: {part()}, otherwise=lambda x: {inner})"
            )
        case extremum:
            return f"{extremum}({tensor()}, {draw.choice([part, number])()})"
