"""Formulas by name: a catalogue name, or ``path/to/file.py:name`` for a user's own."""

import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from zeta import activations
from zeta._errors import UnknownNameError, UserError, one_line
from zeta._formula import Formula

T = TypeVar("T")


def load_formula(source: str, *, inputs: int | None = 1) -> Formula:
    """The formula that ``source`` names.

    Args:
        source: a name of the catalogue (``"exo"``) or ``"path/to/file.py:name"``.
        inputs: how many it must take; None for any number.

    Raises:
        UserError: an unknown name (the message suggests the nearest), a missing file, a file that
            fails to import, an object that is not a formula, a formula without its input, or one
            that takes another number of inputs.

    Example:
        >>> from zeta.load_formula import load_formula
        >>> load_formula("exo")
        exo(x, alpha=1)
    """
    if is_file_source(source):
        found = load_from_file(source, Formula)
        _check_maths(source, found)
    else:
        found = activations.get(source)
    if inputs not in (None, len(found.inputs)):
        raise UserError(
            f"{source!r} takes {len(found.inputs)} inputs ({', '.join(found.inputs)}), and an "
            f"activation takes {inputs}; zeta list shows those of the catalogue"
        )
    return found


def is_file_source(source: str) -> bool:
    """Whether ``source`` names an object in a Python file rather than in a catalogue."""
    return source.endswith(".py") or source.rpartition(":")[0].endswith(".py")


def one_spelling(source: str) -> str:
    """The same name however its file was spelt: trials are kept and found by it.

    A file in the current folder or below is named relative to it, any other absolutely.

    Example:
        >>> from zeta.load_formula import one_spelling
        >>> one_spelling("./formulas/../mine.py:swish")
        'mine.py:swish'
        >>> one_spelling("exo")
        'exo'
    """
    if not is_file_source(source) or not source.isprintable():  # the latter is refused on loading
        return source
    name, colon, attribute = _split(source)
    path = Path(name)
    # The file itself may be a link whose own name is the one to show.
    path = path.parent.resolve() / path.name
    here = Path.cwd()
    path = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{path}{colon}{attribute}"


def _split(source: str) -> tuple[str, str, str]:
    """The path, the colon and the name in a file, the last two empty where there is no name."""
    return (source, "", "") if source.endswith(".py") else source.rpartition(":")


def load_from_file(source: str, wanted: type[T]) -> T:
    """The object of type ``wanted`` that ``source``, ``"path/to/file.py:name"``, names.

    The file is run as it stands on disk, with its own folder importable, as ``python FILE`` does.

    Raises:
        UserError: the file is missing or fails to import, has no such name, or the object is of
            another type.
    """
    if not source.isprintable():  # it will be shown on terminals and in reports
        raise UserError(f"{source!r} has control characters in its name; rename the file")
    kind = wanted.__name__
    path, _, name = _split(source)
    module = _run_file(Path(path))
    offered = [key for key, value in vars(module).items() if isinstance(value, wanted)]
    if not name:
        names = ", ".join(offered) or "none"
        raise UserError(f"{source!r} names no {kind}; write {path}:NAME (it has: {names})")
    if not hasattr(module, name) and not offered:
        raise UserError(f"{str(path)!r} has no {name!r}, nor any {kind}")
    if not hasattr(module, name):
        raise UnknownNameError(f"{kind} in {path}:", name, offered)
    value = getattr(module, name)
    if not isinstance(value, wanted):
        hint = "; decorate the function with @formula" if wanted is Formula else ""
        raise UserError(f"{source!r} is not a {kind} but of type {type(value).__name__}{hint}")
    return value


def _run_file(path: Path) -> ModuleType:
    """Run a file as a module, from its source: a cached .pyc may be of an edit a second ago.

    While it runs it is in `sys.modules`, where dataclasses look for it; under its path, which
    shadows no other module.
    """
    try:
        code = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    module = ModuleType(str(path))
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, str(path), "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and whatever the file derives itself
        line = _line_of(error, str(path))
        where = f"line {line}: " if line else ""
        raise UserError(f"cannot import {str(path)!r}: {where}{one_line(error)}") from error
    finally:
        del sys.modules[module.__name__]
        sys.path.remove(folder)
    return module


def _line_of(error: BaseException, path: str) -> int | None:
    """The line of ``path`` where an error arose: where it is misspelt, or the innermost frame."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == path), None)


def _advice(error: Exception) -> str:
    if "truth value of Relational" in str(error):  # SymPy's, of `if x > 0` and `max(x, 0)`
        return "compare with piecewise, maximum and minimum of zeta.math, not with if, max and min"
    return "write it with arithmetic and the functions of zeta.math"


def _check_maths(source: str, formula: Formula) -> None:
    """Formulas in another library's functions, and constants, fail here, not deep inside a run."""
    from sympy import I

    try:
        expression = formula.symbolic()
        used = {symbol.name for symbol in expression.free_symbols}
        _ = formula.clamped_sides  # takes it on numbers
    except UserError as error:
        raise UserError(f"{source!r} cannot be used: {error}") from error
    except Exception as error:
        raise UserError(
            f"{source!r} cannot be evaluated on symbols ({one_line(error)}); {_advice(error)}"
        ) from error
    if not used & {"x", *formula.inputs}:
        raise UserError(f"{source!r} is constant: an activation must depend on its input")
    if expression.has(I):
        raise UserError(f"{source!r} has complex numbers in it: an activation must be real")
