"""The walk over a graph that all printers share; a language is a table of templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from zeta.codegen.graph import Node, ordered

# Of one or two operands, of which at most one is a number: literals need no type of a vector.
OPERATORS = {
    "negate": "-{}",
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "not": "~{}",
}
# Written out as products up to this exponent: each factor may cost half a unit in the last place.
_LARGEST_PRODUCT = 8
# A compiler would round a sum of products once, some of the time.
_SUMS = frozenset({"add", "subtract"})
_PRODUCTS = frozenset({"multiply", "negate", "power"})


@dataclass(frozen=True)
class Dialect:
    """How a language writes nodes: one statement each, from which its compiler makes what it likes.

    Attributes:
        statement: an assignment, of a target and an expression.
        vector, mask: the target that declares a variable.
        number: a literal.
        splat: a literal as a vector.
        rounded: a product that is an operand of a sum.
        templates: of operations; any other is a function of that name, of vectors.
    """

    statement: str
    vector: str
    mask: str
    number: Callable[[float], str]
    splat: str
    rounded: str
    templates: Mapping[str, str]

    def statements(self, results: Mapping[str, Node]) -> Iterator[str]:
        """Whatever computes the results, each of which is assigned to its target."""
        names: dict[Node, str] = {}
        for node in ordered(results.values()):
            if node.op in ("element", "parameter"):
                names[node] = identifier(node.op, node.value)
            elif not node.is_number:
                name = f"t{len(names)}"
                target = (self.mask if node.is_mask else self.vector).format(name)
                yield self.statement.format(target, self._expression(node, names))
                names[node] = name
        for target, node in results.items():
            yield self.statement.format(target, self._vector(node, names))

    def _expression(self, node: Node, names: Mapping[Node, str]) -> str:
        if node.op == "power" and _is_product(node.args[1].value):
            return self._product(names[node.args[0]], node.args[1].value)
        if node.op in OPERATORS:
            operands = [self._operand(a, names) for a in node.args]
            if node.op in _SUMS:
                products = [a.op in _PRODUCTS for a in node.args]
                pairs = zip(operands, products, strict=True)
                operands = [self.rounded.format(o) if is_product else o for o, is_product in pairs]
            return self.templates[node.op].format(*operands)
        vectors = [self._vector(argument, names) for argument in node.args]
        if node.op in self.templates:
            return self.templates[node.op].format(*vectors)
        return f"{node.op}({', '.join(vectors)})"

    def _product(self, base: str, exponent: float) -> str:
        # Of reciprocals, which underflow by and by where a power's reciprocal would be 0 at once.
        one = self.number(1.0)
        factor = base if exponent > 0 else f"({one} / {base})"
        factors = [_repeated(factor, int(abs(exponent)))] if abs(exponent) >= 1 else []
        if not exponent.is_integer():
            factors.append(f"sqrt({base})" if exponent > 0 else f"({one} / sqrt({base}))")
        return " * ".join(factors)

    def _operand(self, node: Node, names: Mapping[Node, str]) -> str:
        return self.number(node.value) if node.is_number else names[node]

    def _vector(self, node: Node, names: Mapping[Node, str]) -> str:
        return self.splat.format(self.number(node.value)) if node.is_number else names[node]


def identifier(role: str, name: str) -> str:
    """The variable of an operand, which is no keyword and no name of ours."""
    return f"{role}_{name}"


def _repeated(factor: str, count: int) -> str:
    """A whole power of at least 1 by squares, which the compiler forms once."""
    if count == 1:
        return factor
    half = _repeated(factor, count // 2)
    return f"({half} * {half}{f' * {factor}' * (count % 2)})"


def _is_product(exponent: float | str | None) -> bool:
    if not isinstance(exponent, float):
        return False
    return (2 * exponent).is_integer() and abs(exponent) <= _LARGEST_PRODUCT
