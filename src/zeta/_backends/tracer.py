"""Nodes of the expression graph: the primitives as what kernels are generated from."""

from collections.abc import Callable
from typing import Any

from zeta._backends.evaluate import applied
from zeta._formula import Formula
from zeta.codegen.graph import Node


def _primitive(op: str) -> Callable[..., Node]:
    def call(*values: Any) -> Node:
        graph = next(value.graph for value in values if isinstance(value, Node))
        return graph.node(op, *values)

    return call


exp = _primitive("exp")
expm1 = _primitive("expm1")
log = _primitive("log")
log1p = _primitive("log1p")
sqrt = _primitive("sqrt")
sin = _primitive("sin")
cos = _primitive("cos")
atan = _primitive("atan")
tanh = _primitive("tanh")
erf = _primitive("erf")
erfc = _primitive("erfc")
sigmoid = _primitive("sigmoid")
softplus = _primitive("softplus")
minimum = _primitive("minimum")
maximum = _primitive("maximum")
clip = _primitive("clip")


def piecewise(x: Node, positive: Callable[[Node], Any], otherwise: Callable[[Node], Any]) -> Node:
    # Nothing is clamped: what is not chosen has no part in the value or in a gradient.
    above, below = positive(x), otherwise(x)
    if not (isinstance(below, Node) and below.varies):  # it would swallow NaN
        below = x.graph.node("unless_nan", below, x)
    return x.graph.node("where", x > 0, above, below)


def evaluate(formula: Formula, inputs: tuple[Node, ...], parameters: dict[str, Any]) -> Any:
    """The formula as nodes."""
    return applied(_finite, formula, inputs, parameters)


def _finite(x: Node, below: bool, above: bool) -> Node:
    x = x.graph.node("finite_below", x) if below else x
    return x.graph.node("finite_above", x) if above else x
