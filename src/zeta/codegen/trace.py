"""From a formula to a program: the formula is called once on nodes of an expression graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from zeta._backends import tracer
from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.codegen.graph import Graph, Node, gradients


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
class Gradient:
    """A parameter's derivative, ``factor`` · ``term``; only the term depends on x."""

    parameter: str
    factor: Node
    term: Node


@dataclass(frozen=True)
class Program:
    """What a kernel computes at one element.

    Attributes:
        parameters: the names that are read at run time.
        value: the formula's value, if it is wanted.
        slope: the derivative by x, if it is wanted.
        gradients: the wanted derivatives by parameters.
    """

    parameters: tuple[str, ...]
    value: Node | None
    slope: Node | None
    gradients: tuple[Gradient, ...]

    @property
    def result(self) -> Node | None:
        """What is computed for every element: the value or the slope."""
        return self.slope if self.value is None else self.value


def value_program(formula: Formula, constants: Mapping[str, float]) -> Program:
    """The formula's value; ``constants`` are parameters whose values are known now.

    Raises:
        NoKernelError: code cannot be generated, see :func:`refusals`.
        TypeError: it is computed with something else than arithmetic and `zeta.math`.
    """
    value, names = _traced(formula, constants)
    return Program(names, value, None, ())


def gradient_program(
    formula: Formula, constants: Mapping[str, float], wanted: tuple[str, ...]
) -> Program:
    """The derivatives by the names in ``wanted``; "x" stands for the input.

    Raises:
        NoKernelError, TypeError: as :func:`value_program`.
    """
    value, names = _traced(formula, constants)
    with refusals():
        found = gradients(value, [value.graph.input(name) for name in wanted])
        by_name = dict(zip(wanted, found, strict=True))
        slope = by_name.pop("x").product() if "x" in by_name else None
    sums = tuple(Gradient(name, found.factor, found.term) for name, found in by_name.items())
    return Program(names, None, slope, sums)


def _traced(formula: Formula, constants: Mapping[str, float]) -> tuple[Node, tuple[str, ...]]:
    graph = Graph()
    names = tuple(name for name in formula.parameters if name not in constants)
    values = {name: graph.input(name) for name in names} | dict(constants)
    formula.clamped_sides  # noqa: B018 - what it raises is the caller's to mend
    with refusals():
        value = tracer.evaluate(formula, graph.input("x"), values)
        return graph.node("add", value, 0), names  # a node, also where it is a number or a mask
