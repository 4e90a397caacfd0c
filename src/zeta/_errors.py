"""Errors that are the caller's to mend, worded the same everywhere."""

import difflib
import os.path
from collections.abc import Iterable

# What other libraries and papers call an activation; spelling alone would suggest another one.
_OTHER_NAMES = {
    "gelu_new": "gelu_tanh",
    "logistic": "sigmoid",
    "relu2": "squared_relu",
}


class UserError(Exception):
    """What the user gave cannot be used; the message says what came and what is accepted.

    The command line prints the message on one line and exits with status 1.
    """


class UnknownNameError(UserError, ValueError):
    """A name that is not in a catalogue; the message suggests the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        self._arguments = (kind, name, known)
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        # An exception is rebuilt from its message otherwise; process pools pickle theirs.
        return type(self), self._arguments


class NoResultError(UserError, TypeError):
    """A formula that returned None, as a function does whose `return` was forgotten."""

    def __init__(self, formula: str) -> None:
        super().__init__(f"formula {formula!r} returned None: end its function with a `return`")
        self._formula = formula

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self._formula,)


class NoKernelError(ValueError):
    """A formula that plain operations can compute and generated code cannot; says why."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its upper and lower case."""
    by_lower = {one.lower(): one for one in known}
    name = name.lower()
    if (usual := _OTHER_NAMES.get(name)) in by_lower:
        return usual
    near = difflib.get_close_matches(name, by_lower, n=1)
    return by_lower[near[0]] if near else None


def one_line(error: BaseException, length: int | None = None) -> str:
    """An exception's type and text on one line, cut to a length where it is part of a sentence."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return ": ".join(filter(None, [type(error).__name__, " ".join(text.split())]))[:length]


def refuse_upstream_beside() -> None:
    """Raise ImportError where upstream's package is installed into the same folder.

    Both install the package ``zeta``, so that the files of one overwrite some of the other's.
    """
    # Of upstream's alone, in every version.
    if os.path.exists(os.path.join(os.path.dirname(__file__), "structs", "__init__.py")):
        raise ImportError(
            "zetascale and zeta-nn both install the package zeta, and their files are mixed here. "
            "For zeta-nn run `pip uninstall zetascale`, then "
            "`pip install --force-reinstall --no-deps zeta-nn`"
        )


def missing_extra(part: str, *packages: str, extra: str) -> ImportError:
    """The error of a part of Zeta whose optional dependencies are not installed."""
    *others, last = packages
    names = f"{', '.join(others)} and {last}" if others else last
    verb = "are" if others else "is"
    return ImportError(
        f"{part} needs {names}, which {verb} not installed: pip install 'zeta-nn[{extra}]'"
    )
