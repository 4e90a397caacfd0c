"""Which framework a value belongs to, found by its type without importing any framework.

A backend is one module of this package. It defines every primitive of `zeta.math` for its
framework, and ``evaluate(formula, x, parameters)``: the checks, the dtype the computation runs
in, and the rounding of the result. To add a framework, write its module and name its packages
here.
"""

import numbers
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# The package that defines a value's type -> the backend module in this package.
_BACKEND_OF_PACKAGE = {
    "torch": "torch",
    "numpy": "numpy",
    "sympy": "sympy",
    "mpmath": "mpmath",
    "jax": "jax",
    "jaxlib": "jax",
    "tensorflow": "tensorflow",
}


def backend_for(*values: Any) -> ModuleType:
    """The backend of the first value that is not a plain Python number.

    Raises:
        TypeError: the value belongs to no framework that Zeta knows.
    """
    for value in values:
        name = _backend_name(type(value))
        if name != "number":
            break
    return _load(name)


def _load(name: str) -> ModuleType:
    # Plain import statements: the one dynamic thing that torch.compile traces.
    match name:
        case "torch":
            from zeta._backends import torch

            return torch
        case "numpy":
            from zeta._backends import numpy

            return numpy
        case "sympy":
            from zeta._backends import sympy

            return sympy
        case "mpmath":
            from zeta._backends import mpmath

            return mpmath
        case "jax":
            from zeta._backends import jax

            return jax
        case "tensorflow":
            from zeta._backends import tensorflow

            return tensorflow
        case "tracer":
            from zeta._backends import tracer

            return tracer
        case _:
            from zeta._backends import number

            return number


def constant_while_compiling(function: F) -> F:
    """Mark a function whose result never changes for the same arguments: not traced, but called.

    The same as torch.compiler.assume_constant_result, which imports the compiler, one second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


_NAME_OF_TYPE: dict[type, str] = {}


@constant_while_compiling
def _backend_name(cls: type) -> str:
    name = _NAME_OF_TYPE.get(cls)
    if name is None:
        name = _NAME_OF_TYPE[cls] = _find_backend_name(cls)
    return name


def _find_backend_name(cls: type) -> str:
    if cls.__module__ == "zeta.codegen.graph":
        return "tracer"
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if package in _BACKEND_OF_PACKAGE:
            return _BACKEND_OF_PACKAGE[package]
    if issubclass(cls, numbers.Real):
        return "number"
    raise TypeError(
        f"expected a number or an array of {', '.join(_BACKEND_OF_PACKAGE)}; "
        f"got {cls.__module__}.{cls.__qualname__}"
    )
