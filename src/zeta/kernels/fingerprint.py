"""What a formula computes, as bytes: a cache key that needs no tracing.

Covers the function's bytecode and everything it can reach: constants, closures, globals,
functions that it calls. Whatever is not understood gives None, and the caller must look at the
generated source instead.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import zeta._formula
import zeta.math
from zeta._formula import Formula


class _NotUnderstoodError(Exception):
    pass


def fingerprint(formula: Formula) -> bytes | None:
    """A digest that changes whenever the formula does; None where that cannot be told."""
    parts = [package_digest(), sys.version.encode()]
    try:
        _add(parts, formula, set())
    except _NotUnderstoodError:
        return None
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).digest()


@cache
def package_digest() -> bytes:
    """Of the files that turn a formula into source."""
    folder = Path(zeta.__file__).parent
    backends = [
        f"_backends/{name}.py"
        for name in ("evaluate", "tracer", "number", "numpy", "composed", "minimax", "mpmath")
    ]
    files = [folder / name for name in ("_formula.py", "math.py", *backends)]
    files += sorted(
        path for name in ("codegen", "runtime") for path in (folder / name).rglob("*.*")
    )
    digest = hashlib.sha256()
    for file in files:
        if file.suffix in (".py", ".h"):
            digest.update(file.read_bytes())
    return digest.digest()


def _add(parts: list[bytes], value: Any, seen: set[int]) -> None:
    if id(value) in seen:
        return
    if isinstance(value, bool | int | float | str | bytes | None | type(...)):
        parts.append(f"{type(value).__name__} {value!r}".encode())
    elif isinstance(value, tuple):
        parts.append(b"tuple %d" % len(value))
        for item in value:
            _add(parts, item, seen)
    elif isinstance(value, Formula):
        parts.append(repr(dict(value.parameters)).encode())
        _add(parts, value.function, seen)
    elif isinstance(value, FunctionType):
        seen.add(id(value))
        _add_function(parts, value, seen)
    elif isinstance(value, BuiltinFunctionType | type) and _is_known(value):
        parts.append(f"{value.__module__}.{value.__qualname__}".encode())
    else:
        raise _NotUnderstoodError


def _add_function(parts: list[bytes], function: FunctionType, seen: set[int]) -> None:
    if _is_known(function):
        parts.append(f"{function.__module__}.{function.__qualname__}".encode())
        return
    _add(parts, function.__defaults__, seen)
    _add(parts, tuple((function.__kwdefaults__ or {}).items()), seen)
    names: set[str] = set()
    for code in _code_objects(function.__code__):
        parts.append(code.co_code)
        parts.append(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
        names.update(code.co_names)
        constants = (c for c in code.co_consts if not isinstance(c, CodeType))
        _add(parts, tuple(constants), seen)
    for cell in function.__closure__ or ():
        _add(parts, cell.cell_contents, seen)
    for name in sorted(names & function.__globals__.keys()):
        parts.append(name.encode())
        _add_global(parts, function.__globals__[name], names, seen)


def _add_global(parts: list[bytes], value: Any, names: set[str], seen: set[int]) -> None:
    """A global, or those attributes of a module that the code may name."""
    if not isinstance(value, ModuleType):
        _add(parts, value, seen)
        return
    parts.append(value.__name__.encode())
    if _is_covered(value) or id(value) in seen:
        return
    seen.add(id(value))
    for name in sorted(names & vars(value).keys()):
        parts.append(name.encode())
        _add_global(parts, vars(value)[name], names, seen)


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_objects(constant)


def _is_known(value: FunctionType | BuiltinFunctionType | type) -> bool:
    """Whether its name says what it is: that of a covered module has just this under it."""
    module = sys.modules.get(value.__module__)
    known = module is not None and _is_covered(module)
    return known and vars(module).get(value.__qualname__) is value


def _is_covered(module: ModuleType) -> bool:
    """Whether the package's digest or the version of Python covers it.

    Its file decides: a user's own may be named like one of Python's.
    """
    if module in (zeta._formula, zeta.math):
        return True
    if module.__name__ not in sys.stdlib_module_names:
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ in sys.builtin_module_names
    standard = Path(os.__file__).parent
    installed = {"site-packages", "dist-packages"}
    return Path(file).is_relative_to(standard) and not installed & {*Path(file).parts}
