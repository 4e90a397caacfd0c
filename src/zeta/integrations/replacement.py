"""What stands in the place of an activation: how new modules are made, whatever the framework."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from zeta import activations
from zeta._formula import Formula
from zeta._modules import CLASSES, IsMatched, check_one_input
from zeta.integrations.names import GATES, activation_name


@dataclass(frozen=True)
class Maker:
    """Makes one framework's modules.

    Attributes:
        namespace: ``zeta.nn``, ``zeta.flax`` or ``zeta.keras``.
        general: the class there that takes any formula.
        module_type: what every module is an instance of.
        kind: the same in words, ``"an nnx.Module"``.
    """

    namespace: ModuleType
    general: type
    module_type: type
    kind: str

    def of_formula(self, formula: Formula) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The class for a formula, and its keyword arguments."""
        if activations.CATALOGUE.get(formula.name) is formula and formula.name in CLASSES:
            return getattr(self.namespace, CLASSES[formula.name]), {}
        return self.general, {"formula": formula}

    def factory(self, replacement: str | Formula | Callable[..., Any]) -> Callable[..., Any]:
        """What makes the new modules.

        Raises:
            UnknownNameError: no such name in the catalogue.
            TypeError: a formula of several inputs; one module, which cannot stand in several
                places; nothing callable.
        """
        if isinstance(replacement, str):
            replacement = activations.get(replacement)
        if isinstance(replacement, Formula):
            check_one_input(replacement, "the place of an activation")
            build, arguments = self.of_formula(replacement)
            return functools.partial(build, **arguments)
        if isinstance(replacement, self.module_type) or not callable(replacement):
            raise TypeError(
                "the replacement must be a name of the catalogue, a formula, or a class or "
                f"function that makes a new module for every place; got {replacement!r}"
            )
        return replacement

    def one(self, make: Callable[[], Any], old: Any) -> Any:
        """One new module for the place of ``old``.

        Raises:
            TypeError: ``make`` fails without arguments, or what it makes is no module.
            ValueError: ``old`` is a gate, and what takes its place is elementwise.
        """
        try:
            module = make()
        except TypeError as error:
            raise TypeError(
                f"calling the replacement {make!r} without arguments failed ({error}); "
                "give a function that makes the module"
            ) from error
        if not isinstance(module, self.module_type):
            raise TypeError(
                f"the replacement {make!r} must make {self.kind}, not {type(module).__name__}"
            )
        name = activation_name(old)
        halves = name in GATES and not isinstance(old, IsMatched)
        if halves and isinstance(module, self.general):
            raise ValueError(
                f"{name} halves the width of its input: {activation_name(module)}, which keeps it, "
                "cannot take its place"
            )
        return module


def check_distinct(modules: Iterable[Any], make: Callable[[], Any], number: int) -> None:
    """Every place needs a module of its own.

    Raises:
        TypeError: there are fewer than ``number`` different modules.
    """
    if len(set(map(id, modules))) < number:
        raise TypeError(f"the replacement {make!r} makes the same module again and again")
