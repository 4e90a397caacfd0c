"""The expression graph: what a formula computes, as it was written, and its derivatives.

A node is made once per graph, so that equal parts are shared. Nothing is rearranged: a kernel
overflows where plain operations do. What there is to say of a primitive beside its name, its
derivative, stands in one place, `_RULES`; printers know the names.
"""

from __future__ import annotations

import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from zeta._errors import NoKernelError

# Of a program with its derivatives. A compiler takes seconds for so many, each a primitive.
LARGEST_GRAPH = 2_000

_COMPARISONS = {
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
}
_OPERANDS = ("element", "parameter")
_MASKS = frozenset({*_COMPARISONS, "and", "or", "not"})
# Nowhere more than 1 in size.
_BOUNDED = frozenset(
    {
        *("sin", "cos", "tanh", "erf", "gauss", "sign", "indicator", "sigmoid"),
        *("sigmoid_complement", "tanh_softplus", "sinc", "hypot_derivative"),
        *("tanh_derivative", "sigmoid_derivative", "tanh_softplus_derivative"),
    }
)
_ARITHMETIC = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}
# What leaves the other operand as it is: on either side, on the right side alone.
_NEUTRAL = {"add": 0.0, "multiply": 1.0}
_RIGHT_NEUTRAL = _NEUTRAL | {"subtract": 0.0, "divide": 1.0, "power": 1.0}


class Graph:
    """Nodes, each kept once."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str, tuple[int, ...]], Node] = {}

    def number(self, value: Any) -> Node:
        """A constant."""
        return self._kept("number", float(value), ())

    def element(self, name: str) -> Node:
        """An input, which differs from element to element."""
        return self._kept("element", name, ())

    def parameter(self, name: str) -> Node:
        """What elements share."""
        return self._kept("parameter", name, ())

    def node(self, op: str, *values: Any) -> Node:
        """An operation on nodes and numbers; a mask in arithmetic is 0 or 1."""
        args = tuple(v if isinstance(v, Node) else self.number(v) for v in values)
        if op not in ("and", "or", "not", "indicator"):
            first = args[:1] if op == "where" else ()
            args = (*first, *(a._as_number() for a in args[len(first) :]))
        simple = self._simplified(op, args)
        return self._kept(op, None, args) if simple is None else simple

    def _simplified(self, op: str, args: tuple[Node, ...]) -> Node | None:
        """What is exactly the same with less; what is the same but does not cancel."""
        first, last = args[0], args[-1]
        if op in _COMPARISONS and first.is_number and last.is_number:
            return self.number(_COMPARISONS[op](first.value, last.value))
        if op in _ARITHMETIC and first.is_number and last.is_number:
            return self.number(_ARITHMETIC[op](first.value, last.value))
        if op in _RIGHT_NEUTRAL and last.value == _RIGHT_NEUTRAL[op]:
            return first
        if op in _NEUTRAL and first.value == _NEUTRAL[op]:
            return last
        match op:
            case "divide" if first.is_number and last.is_number and last.value:
                return self.number(first.value / last.value)
            case "negate" if first.is_number:
                return self.number(-first.value)
            case "negate" if first.op == "negate":
                return first.args[0]
            case "less" | "greater" if first is last:
                return self.number(0)
            case "multiply" if last.value == -1:
                return -first
            case "multiply" if first.value == -1:
                return -last
            case "multiply" if first.is_number and last.op == "multiply" and last.args[0].is_number:
                # Exact for a power of two.
                is_exact = abs(math.frexp(first.value)[0]) == 0.5
                return first.value * last.args[0].value * last.args[1] if is_exact else None
            case "power" if last.value == 0:
                return self.number(1)
            case "power" if last.value == 0.5:
                return self.node("sqrt", first)
            case "subtract" if first.value == 1 and last.op == "sigmoid":
                return self.node("sigmoid_complement", *last.args)
            case "tanh" if first.op == "softplus":
                return self.node("tanh_softplus", *first.args)
            case "minimum" | "maximum" if first is last:
                return first
            case "where" if first.is_number:
                return args[1] if first.value else last
            case "where" if args[1] is last:
                return last
            case "where" if args[1].op == "where" and args[1].args[2] is last:
                inner, value, _ = args[1].args
                return self.node("where", first & inner, value, last)
            case "where" if last.op == "where" and last.args[1] is args[1]:
                return self.node("where", first | last.args[0], args[1], last.args[2])
        return None

    def _kept(self, op: str, value: Any, args: tuple[Node, ...]) -> Node:
        # A number by its text: 0 and -0 differ, and NaN is itself.
        key = (op, repr(value), tuple(map(id, args)))
        node = self._nodes.get(key)
        if node is None:
            if len(self._nodes) >= LARGEST_GRAPH:
                raise NoKernelError(f"it has more than {LARGEST_GRAPH:,} operations")
            operands = [a.operands for a in args] if op not in _OPERANDS else [frozenset([value])]
            varies = op == "element" or any(a.varies for a in args)
            node = self._nodes[key] = Node(
                graph=self,
                op=op,
                args=args,
                value=value,
                operands=_union(operands),
                varies=varies,
                index=len(self._nodes),
                is_bounded=_is_bounded(op, value, args),
            )
        return node


def _is_bounded(op: str, value: Any, args: tuple[Node, ...]) -> bool:
    if op == "number":
        return abs(value) <= 1
    if op in ("negate", "multiply"):
        return all(a.is_bounded for a in args)
    if op == "with_gradient":
        return args[0].is_bounded
    return op in _BOUNDED


def _union(sets: Sequence[frozenset[Any]]) -> frozenset[Any]:
    largest = max(sets, key=len, default=frozenset())
    return largest if all(s <= largest for s in sets) else largest.union(*sets)


@dataclass(frozen=True, eq=False)
class Node:
    """A number, an operand or an operation: what a formula's function is called with.

    Attributes:
        op: "number", "element", "parameter", or a name that printers know.
        args: what it is computed from.
        value: the number, or the operand's name.
        operands: names of the elements and parameters that it depends on.
        varies: whether it differs from element to element.
        index: greater than that of each of ``args``.
        is_bounded: whether it is known to be at most 1 in size.
    """

    graph: Graph = field(repr=False)
    op: str
    args: tuple[Node, ...]
    value: Any
    operands: frozenset[str]
    varies: bool
    index: int
    is_bounded: bool

    # NumPy's numbers leave arithmetic with a node to the node.
    __array_ufunc__ = None

    @property
    def is_number(self) -> bool:
        """Whether its value is known."""
        return self.op == "number"

    @property
    def is_mask(self) -> bool:
        """Whether it is true or false."""
        return self.op in _MASKS

    def _as_number(self) -> Node:
        return self.graph.node("indicator", self) if self.is_mask else self

    def _with(self, op: str, *others: Any) -> Any:
        known = all(isinstance(other, Node | numbers.Real) for other in others)
        return self.graph.node(op, self, *others) if known else NotImplemented

    def _after(self, op: str, other: Any) -> Any:
        known = isinstance(other, numbers.Real)
        return self.graph.node(op, other, self) if known else NotImplemented

    def __add__(self, other: Any) -> Node:
        return self._with("add", other)

    def __radd__(self, other: Any) -> Node:
        return self._after("add", other)

    def __sub__(self, other: Any) -> Node:
        return self._with("subtract", other)

    def __rsub__(self, other: Any) -> Node:
        return self._after("subtract", other)

    def __mul__(self, other: Any) -> Node:
        return self._with("multiply", other)

    def __rmul__(self, other: Any) -> Node:
        return self._after("multiply", other)

    def __truediv__(self, other: Any) -> Node:
        return self._with("divide", other)

    def __rtruediv__(self, other: Any) -> Node:
        return self._after("divide", other)

    def __pow__(self, other: Any) -> Node:
        return self._with("power", other)

    def __rpow__(self, other: Any) -> Node:
        return self._after("power", other)

    def __neg__(self) -> Node:
        return self._with("negate")

    def __pos__(self) -> Node:
        return self._as_number()

    def __abs__(self) -> Node:
        return self._with("abs")

    def __lt__(self, other: Any) -> Node:
        return self._with("less", other)

    def __le__(self, other: Any) -> Node:
        return self._with("less_equal", other)

    def __gt__(self, other: Any) -> Node:
        return self._with("greater", other)

    def __ge__(self, other: Any) -> Node:
        return self._with("greater_equal", other)

    def __eq__(self, other: Any) -> Node:  # type: ignore[override]
        return self._with("equal", other)

    def __ne__(self, other: Any) -> Node:  # type: ignore[override]
        return self._with("not_equal", other)

    def _combined(self, op: str, other: Any) -> Any:
        masks = self.is_mask and isinstance(other, Node) and other.is_mask
        return self.graph.node(op, self, other) if masks else NotImplemented

    def __and__(self, other: Any) -> Node:
        return self._combined("and", other)

    def __or__(self, other: Any) -> Node:
        return self._combined("or", other)

    def __invert__(self) -> Node:
        return self.graph.node("not", self) if self.is_mask else NotImplemented

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise NoKernelError(
            "a kernel decides nothing for all elements at once; write zeta.math.piecewise(x, "
            "positive=…, otherwise=…), maximum or minimum for an `if`, `max` or `min`"
        )


def ordered(outputs: Iterable[Node]) -> list[Node]:
    """The nodes that these are computed from, and themselves, each after its arguments."""
    found = set(outputs)
    waiting = list(found)
    while waiting:
        new = [a for a in waiting.pop().args if a not in found]
        found.update(new)
        waiting += new
    return sorted(found, key=lambda node: node.index)


def without_surrogates(nodes: Sequence[Node]) -> list[Node]:
    """The same values, once they are differentiated."""
    new: dict[Node, Node] = {}
    for node in ordered(nodes):
        args = tuple(new[a] for a in node.args)
        is_value = node.op == "with_gradient"
        new[node] = args[0] if is_value else node.graph._kept(node.op, node.value, args)
    return [new[node] for node in nodes]


# ---- Derivatives ------------------------------------------------------------------------------

# Masks that are true, or false, wherever the derivative counts.
Guard = tuple[tuple[Node, bool], ...]


@dataclass(frozen=True)
class Adjoint:
    """The derivative of the output by a node: ``factor`` · ``term`` within the guard, else 0.

    Only the term varies, so that the factor may be taken out of a sum. It waits where the
    term cannot overflow without it: as long as that has one part that is not bounded. Outside of
    the guard both may be anything, NaN too: a branch that is not taken has no say.
    """

    guard: Guard
    factor: Node
    term: Node

    def times(self, node: Node) -> Adjoint:
        """By the chain rule."""
        if not node.varies:
            return Adjoint(self.guard, self.factor * node, self.term)
        if self.term.is_bounded or node.is_bounded:
            return Adjoint(self.guard, self.factor, self.term * node)
        return self.with_term(self.product() * node)

    def over(self, node: Node) -> Adjoint:
        """By the chain rule, where the derivative is a reciprocal."""
        if not node.varies:
            return Adjoint(self.guard, self.factor / node, self.term)
        return self.with_term(self.product() / node)

    def with_term(self, term: Node) -> Adjoint:
        """A derivative in one."""
        return Adjoint(self.guard, term.graph.number(1), term)

    def where(self, mask: Node, value: bool = True) -> Adjoint:
        """Only where the mask is that."""
        if mask.is_number:
            return self if bool(mask.value) == value else self.times(mask.graph.number(0))
        return Adjoint((*self.guard, (mask, value)), self.factor, self.term)

    def halved(self, mask: Node) -> Adjoint:
        """Half of it where the mask is true."""
        term = mask.graph.node("where", mask, 0.5 * self.term, self.term)
        return Adjoint(self.guard, self.factor, term)

    def product(self) -> Node:
        """Factor and term in one; the term first, since it may be 0 where the factor is huge."""
        return self.term * self.factor


def gradients(output: Node, wanted: Sequence[Node]) -> list[Adjoint]:
    """The derivatives by the wanted operands, without a guard.

    Accumulated from the output to the operands as automatic differentiation does, the gradient that
    comes from above multiplied by one derivative after the other: what is 0 stays 0.
    """
    one = output.graph.number(1)
    names = {node.value for node in wanted}
    reached: dict[Node, list[Adjoint]] = {output: [Adjoint((), one, one)]}
    for node in reversed(ordered([output])):
        if node.op not in _RULES or node not in reached:
            continue
        adjoint = _guarded_sum(reached.pop(node))
        for i, rule in enumerate(_RULES[node.op]):
            if rule and names & node.args[i].operands:
                reached.setdefault(node.args[i], []).append(rule(adjoint, node, *node.args))
    nothing = Adjoint((), one, output.graph.number(0))
    return [_unguarded(_merged(reached[w])) if w in reached else nothing for w in wanted]


def _guarded_sum(adjoints: Sequence[Adjoint]) -> Adjoint:
    """The sum, guarded by what lies within one of several guards at least."""
    total = _merged(adjoints)
    guards = {adjoint.guard[len(total.guard) :] for adjoint in adjoints}
    if _cover(guards):
        return total
    within = functools.reduce(operator.or_, map(_mask, guards))
    return Adjoint((*total.guard, (within, True)), total.factor, total.term)


def _cover(guards: Set[Guard]) -> bool:
    """Whether one of the guards holds everywhere, as far as their masks tell."""
    if () in guards:
        return True
    rest: dict[Node, dict[bool, set[Guard]]] = {}
    for (mask, value), *inner in guards:
        rest.setdefault(mask, {True: set(), False: set()})[value].add(tuple(inner))
    return any(_cover(by[True]) and _cover(by[False]) for by in rest.values())


def _mask(guard: Guard) -> Node:
    return functools.reduce(operator.and_, (mask if value else ~mask for mask, value in guard))


def _merged(adjoints: Sequence[Adjoint]) -> Adjoint:
    """The sum; of two opposite guards, a choice."""
    by_guard: dict[Guard, Adjoint] = {}

    def put(adjoint: Adjoint) -> None:
        there = by_guard.pop(adjoint.guard, None)
        by_guard[adjoint.guard] = _added(there, adjoint) if there else adjoint

    for adjoint in adjoints:
        put(adjoint)
    while len(by_guard) > 1:
        guard = max(by_guard, key=len)
        *outer, (mask, value) = guard
        adjoint = by_guard.pop(guard)
        opposite = by_guard.pop((*outer, (mask, not value)), None)
        put(_chosen(adjoint, opposite) if opposite else _without_last_guard(adjoint))
    return next(iter(by_guard.values()))


def _added(a: Adjoint, b: Adjoint) -> Adjoint:
    return a.with_term(a.product() + b.product())


def _chosen(a: Adjoint, b: Adjoint) -> Adjoint:
    *outer, (mask, value) = a.guard
    branches = (a.product(), b.product())
    true, false = branches if value else reversed(branches)
    term = mask.graph.node("where", mask, true, false)
    return Adjoint(tuple(outer), term.graph.number(1), term)


def _without_last_guard(a: Adjoint) -> Adjoint:
    zero, one = (a.term.graph.number(value) for value in (0, 1))
    return _chosen(a, Adjoint((), one, zero))


def _unguarded(a: Adjoint) -> Adjoint:
    while a.guard:
        a = _without_last_guard(a)
    return a


# ---- The primitives -----------------------------------------------------------------------------

# From a node's adjoint, itself and its arguments to the adjoint of one argument.
Rule = Callable[..., Adjoint]


def _times(op: str, constant: float = 1.0) -> tuple[Rule]:
    """A function whose derivative is another one."""
    return (lambda a, y, u: a.times(y.graph.node(op, u)).times(y.graph.number(constant)),)


def _finite_times(a: Adjoint, op: str, u: Node) -> Adjoint:
    """As `_times`; an argument that has overflowed is taken at the largest number, a constant."""
    return a.where(abs(u) == math.inf, False).times(u.graph.node(op, u))


def _by_base(a: Adjoint, y: Node, u: Node, v: Node) -> Adjoint:
    if v.is_number and v.value <= -1:  # the power of v - 1 underflows before this does
        return a.over(u).times(v * y)
    slope = v * u ** (v - 1)
    return a.times(y.graph.node("where", v == 0, 0, slope))


def _by_exponent(a: Adjoint, y: Node, u: Node, v: Node) -> Adjoint:
    if u.is_number and u.value > 0:
        return a.times(y).times(y.graph.number(math.log(u.value)))
    return a.times(y.graph.node("power_log", u, v))


def _minus_floor(y: Node, u: Node, v: Node) -> Node:
    """-floor(u / v), where y is the remainder; an infinite v is taken once or not at all."""
    whole = y.graph.node("round", (y - u) / v)
    return y.graph.node("where", abs(v) == math.inf, y != u, whole)


def _weight(a: Adjoint, y: Node, u: Node, v: Node) -> Adjoint:
    # Of two equal infinities too; of -inf there is nothing, whatever it was made of.
    return a.where(u == -math.inf, False).times(
        y.graph.node("sigmoid", y.graph.node("where", u == v, 0, u - v))
    )


# By each argument; None where it has no derivative. What is not here has none at all.
_RULES: dict[str, tuple[Rule | None, ...]] = {
    "negate": (lambda a, y, u: a.times(y.graph.number(-1)),),
    "add": (lambda a, y, u, v: a, lambda a, y, u, v: a),
    "subtract": (lambda a, y, u, v: a, lambda a, y, u, v: a.times(y.graph.number(-1))),
    "multiply": (lambda a, y, u, v: a.times(v), lambda a, y, u, v: a.times(u)),
    "divide": (
        lambda a, y, u, v: a.over(v),
        lambda a, y, u, v: (a.times(y / v) if v.varies else a.over(v).times(y)).times(
            y.graph.number(-1)
        ),
    ),
    "power": (_by_base, _by_exponent),
    "sqrt": (lambda a, y, u: a.over(2 * y),),
    "rsqrt": (lambda a, y, u: a.times(-0.5 * y).over(u),),
    "hypot": (
        lambda a, y, u, v: a.where(y == 0, False).times(y.graph.node("hypot_derivative", u, v)),
        lambda a, y, u, v: a.where(y == 0, False).times(y.graph.node("hypot_derivative", v, u)),
    ),
    "abs": _times("sign"),
    "exp": (lambda a, y, u: a.times(y),),
    "expm1": _times("exp"),
    "log": (lambda a, y, u: a.over(u),),
    "log1p": (lambda a, y, u: a.over(1 + u),),
    "sin": (lambda a, y, u: _finite_times(a, "cos", u),),
    "cos": (lambda a, y, u: _finite_times(a, "sin", u).times(y.graph.number(-1)),),
    "sinc": (lambda a, y, u: _finite_times(a, "sinc_derivative", u),),
    "atan": (lambda a, y, u: a.over(1 + u * u),),
    "asinh": (lambda a, y, u: a.over(y.graph.node("hypot", u, 1)),),
    "tanh": _times("tanh_derivative"),
    "erf": _times("gauss", 2 / math.sqrt(math.pi)),
    "erfc": _times("gauss", -2 / math.sqrt(math.pi)),
    "sigmoid": _times("sigmoid_derivative"),
    "sigmoid_complement": _times("sigmoid_derivative", -1),
    "softplus": _times("sigmoid"),
    "tanh_softplus": _times("tanh_softplus_derivative"),
    "logaddexp": (_weight, lambda a, y, u, v: _weight(a, y, v, u)),
    "remainder": (
        lambda a, y, u, v: a,
        lambda a, y, u, v: a.times(_minus_floor(y, u, v)),
    ),
    "with_gradient": (None, lambda a, y, u, v: a),
    # Of two equal ones each is taken by half, as in PyTorch and JAX.
    "minimum": (
        lambda a, y, u, v: a.halved(u == v).where(u > v, False),
        lambda a, y, u, v: a.halved(u == v).where(v > u, False),
    ),
    "maximum": (
        lambda a, y, u, v: a.halved(u == v).where(u < v, False),
        lambda a, y, u, v: a.halved(u == v).where(v < u, False),
    ),
    # At a bound it is the bound; at NaN it is u.
    "clip": (
        lambda a, y, u, low, high: a.where(_above(u, low, high), False).where(u <= low, False),
        lambda a, y, u, low, high: a.where(_above(u, low, high), False).where(u <= low),
        lambda a, y, u, low, high: a.where(_above(u, low, high)),
    ),
    "where": (
        None,
        lambda a, y, mask, u, v: a.where(mask),
        lambda a, y, mask, u, v: a.where(mask, False),
    ),
    "unless_nan": (
        lambda a, y, u, v: a.where(v == v),
        lambda a, y, u, v: a.where(v == v, False),
    ),
    "finite_below": (lambda a, y, u: a.where(u == -math.inf, False),),
    "finite_above": (lambda a, y, u: a.where(u == math.inf, False),),
}


def _above(u: Node, low: Node, high: Node) -> Node:
    """Whether the upper bound counts."""
    in_order = low.is_number and high.is_number and low.value < high.value
    return (u if in_order else u.graph.node("maximum", u, low)) >= high
