"""Whether a module's code multiplies by what an attribute of its own computes, ``act(x) * y``."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any


def why_no_product(module: Any, attribute: str, base: type) -> str:
    """Why results of ``module.attribute(…)`` are not factors of products alone; empty if they are.

    What is read are the functions of the module, of its class, and of the classes between that and
    ``base``. A result may have a local name in between.
    """
    reader, where = _Reader(attribute), f"the code of {type(module).__name__}"
    for function in _functions(module, base):
        try:
            lines = textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError):
            if attribute in function.__code__.co_names:
                return f"{where} cannot be read"
            continue
        if f".{attribute}" in lines:
            reader.visit(ast.parse(lines))
    if not reader.products:
        return f"{where} multiplies nothing by it"
    return f"{where} also uses it where nothing is multiplied" if reader.others else ""


def _functions(module: Any, base: type) -> Iterator[FunctionType]:
    """The functions that its methods were written as."""
    own = [vars(c) for c in type(module).__mro__ if c not in base.__mro__]
    overridden: set[str] = set()
    for namespace in ({"forward": vars(module).get("forward")}, *own):
        for name, method in namespace.items():
            function = _as_written(method)
            if name in overridden or not isinstance(function, FunctionType):
                continue
            yield function
            if "super" not in function.__code__.co_names:
                overridden.add(name)


def _as_written(method: Any) -> Any:
    """What a decorator, a partial or a bound method has underneath."""
    method = inspect.unwrap(method) if callable(method) else method
    return inspect.unwrap(method.__func__) if inspect.ismethod(method) else method


class _Reader(ast.NodeVisitor):
    """Counts, statement by statement, what becomes of the results of ``self.attribute(…)``.

    Attributes:
        products: how often one is a factor.
        others: how often it is used otherwise.
    """

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute
        self.products = self.others = 0
        self._names: set[str] = set()  # that hold a result

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._names.clear()
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        match node.targets:
            case [ast.Name(name)] if self._is_result(node.value):
                self._look_into(node.value)
                self._names.add(name)
            case _:
                self.visit(node.value)
                for target in node.targets:
                    self.visit(target)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.others += node.id in self._names
        else:
            self._names.discard(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        self._count_factor(node.target, node.op, node.value)
        self.visit(node.target)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for operand, other in ((node.left, node.right), (node.right, node.left)):
            if self._is_result(operand):
                self._count_factor(operand, node.op, other)
                self._look_into(operand)
            else:
                self.visit(operand)

    def _count_factor(self, operand: ast.expr, operator: ast.operator, other: ast.expr) -> None:
        is_product = isinstance(operator, ast.Mult) and not isinstance(other, ast.Constant)
        self.products += is_product and self._is_result(operand)
        self.others += not is_product and self._is_result(operand)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.others += self._is_activation(node)
        self.generic_visit(node)

    def _look_into(self, result: ast.expr) -> None:
        """At what a call is given."""
        if isinstance(result, ast.Call):
            for argument in (*result.args, *result.keywords):
                self.visit(argument)

    def _is_result(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(name):
                return name in self._names
            case ast.Call(function):
                return self._is_activation(function)
        return False

    def _is_activation(self, node: ast.expr) -> bool:
        match node:
            case ast.Attribute(ast.Name("self"), attribute, ast.Load()):
                return attribute == self.attribute
        return False
