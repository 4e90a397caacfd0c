"""Nodes of the expression graph: the primitives as what kernels are generated from."""

from collections.abc import Callable, Sequence
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
rsqrt = _primitive("rsqrt")
hypot = _primitive("hypot")
sin = _primitive("sin")
cos = _primitive("cos")
sinc = _primitive("sinc")
atan = _primitive("atan")
asinh = _primitive("asinh")
tanh = _primitive("tanh")
erf = _primitive("erf")
erfc = _primitive("erfc")
sigmoid = _primitive("sigmoid")
softplus = _primitive("softplus")
logaddexp = _primitive("logaddexp")
round = _primitive("round")
floor = _primitive("floor")
remainder = _primitive("remainder")
minimum = _primitive("minimum")
maximum = _primitive("maximum")
clip = _primitive("clip")
with_gradient = _primitive("with_gradient")


def sign(x: Node) -> Node:
    return stop_gradient(x.graph.node("unless_nan", x.graph.node("sign", x), x))


def piecewise(x: Node, knots: Sequence[Any], branches: Sequence[Callable[[Node], Any]]) -> Node:
    # Nothing is clamped: what is not chosen has no part in the value or in a gradient.
    y: Any = branches[0](x)
    if not (isinstance(y, Node) and y.varies):  # it would swallow NaN
        y = x.graph.node("unless_nan", y, x)
    for knot, branch in zip(knots, branches[1:], strict=True):
        y = x.graph.node("where", x > knot, branch(x), y)
    return y


def stop_gradient(x: Node) -> Node:
    return with_gradient(x, 0)


def evaluate(formula: Formula, inputs: tuple[Node, ...], parameters: dict[str, Any]) -> Any:
    """The formula as nodes."""
    return applied(_finite, formula, inputs, parameters)


def _finite(x: Node, below: bool, above: bool) -> Node:
    x = x.graph.node("finite_below", x) if below else x
    return x.graph.node("finite_above", x) if above else x
