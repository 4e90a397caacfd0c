"""From a formula to a program: the formula is called once on nodes of an expression graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from zeta._backends import tracer
from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.codegen.graph import Graph, Node, gradients, without_surrogates


@contextmanager
def refusals() -> Iterator[None]:
    """What goes wrong with a formula as a NoKernelError that says why, whatever it was.

    A formula is its author's own function, and may do anything with a node.
    """
    try:
        yield
    except NoKernelError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise NoKernelError(f"on symbols it raises {type(error).__name__}: {said}") from error


@dataclass(frozen=True)
class Sum:
    """A parameter's derivative, ``factor`` · ``term``; only the term differs between elements."""

    parameter: str
    factor: Node
    term: Node


@dataclass(frozen=True)
class Program:
    """What a kernel computes at one element.

    Attributes:
        elements: names of the operands that have a value per element, the formula's inputs.
        parameters: names of those that elements share, one value or one per channel; a vector's
            numbers have a name each.
        stores: what is written for every element: the value, or derivatives by inputs.
        sums: derivatives by parameters, each summed over the elements that share its value.
        backward: whether these are derivatives, to be multiplied by an upstream gradient.
    """

    elements: tuple[str, ...]
    parameters: tuple[str, ...]
    stores: tuple[Node, ...]
    sums: tuple[Sum, ...]
    backward: bool


def value_program(formula: Formula, constants: Mapping[str, float]) -> Program:
    """The formula's value; ``constants`` are parameters whose values are known now.

    Raises:
        NoKernelError: code cannot be generated, see :func:`refusals`.
        TypeError: it is computed with something else than arithmetic and `zeta.math`.
    """
    value, parameters = _traced(formula, constants)
    (value,) = without_surrogates([value])
    return Program(formula.inputs, tuple(parameters), (value,), (), backward=False)


def gradient_program(
    formula: Formula, constants: Mapping[str, float], wanted: tuple[str, ...]
) -> Program:
    """The derivatives by the inputs and :attr:`Formula.scalars` in ``wanted``.

    Raises:
        NoKernelError, TypeError: as :func:`value_program`.
    """
    value, parameters = _traced(formula, constants)
    graph = value.graph
    with refusals():
        operands = {name: graph.element(name) for name in formula.inputs} | parameters
        found = gradients(value, [operands[name] for name in wanted])
        by_name = dict(zip(wanted, found, strict=True))
        slopes = [by_name.pop(name).product() for name in formula.inputs if name in by_name]
        stores = tuple(without_surrogates(slopes))
        sums = tuple(
            Sum(name, *without_surrogates([found.factor, found.term]))
            for name, found in by_name.items()
        )
    return Program(formula.inputs, tuple(parameters), stores, sums, backward=True)


def _traced(formula: Formula, constants: Mapping[str, float]) -> tuple[Node, dict[str, Node]]:
    """The value, and the parameters that are no constants."""
    graph = Graph()
    parameters = {p: graph.parameter(p) for p in formula.scalars if p not in constants}
    formula.clamped_sides  # noqa: B018 - what it raises is the caller's to mend
    with refusals():
        inputs = tuple(graph.element(name) for name in formula.inputs)
        value = tracer.evaluate(formula, inputs, formula.grouped({**parameters, **constants}))
        # A node, also where it is a number or a mask.
        return graph.node("add", value, 0), parameters
