"""Which framework a value belongs to, found by its type without importing any framework.

A backend is one module of this package, see `zeta._backends.protocol`. To add a framework, write
its module and name its package here.
"""

import importlib
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from zeta._backends.protocol import Backend

F = TypeVar("F", bound=Callable[..., Any])

# The package that defines a value's type -> the backend module in this package. JAX has two.
_PACKAGES = ("torch", "numpy", "sympy", "mpmath", "jax", "jaxlib", "tensorflow")
_BACKEND_OF_PACKAGE = {package: package.removesuffix("lib") for package in _PACKAGES}


def backend_for(*values: Any) -> "Backend":
    """The backend of the first value that is not a plain Python number.

    Raises:
        TypeError: the value belongs to no framework that Zeta knows.
    """
    for value in values:
        name = _backend_name(type(value))
        if name != "number":
            break
    return _BACKENDS[name]


def constant_while_compiling(function: F) -> F:
    """Mark a function whose result never changes for the same arguments: not traced, but called.

    The same as torch.compiler.assume_constant_result, which imports the compiler, one second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


_BACKENDS: dict[str, "Backend"] = {}
_NAME_OF_TYPE: dict[type, str] = {}


@constant_while_compiling
def _backend_name(cls: type) -> str:
    """The backend of a type, which is among `_BACKENDS` from now on."""
    name = _NAME_OF_TYPE.get(cls)
    if name is None:
        name = _find_backend_name(cls)
        # Numbers with the first, as a compiler sees the dictionary as it was when first read.
        for each in {name, "number"} - _BACKENDS.keys():
            _BACKENDS[each] = importlib.import_module(f"{__name__}.{each}")
        _NAME_OF_TYPE[cls] = name
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
