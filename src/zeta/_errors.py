"""Errors that are the caller's to mend, worded the same everywhere."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What the user gave cannot be used; the message says what came and what is accepted.

    The command line prints the message on one line and exits with status 1.
    """


class UnknownNameError(UserError, ValueError):
    """A name that is not in a catalogue; the message suggests the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        self._arguments = (kind, name, known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        # An exception is rebuilt from its message otherwise; process pools pickle theirs.
        return type(self), self._arguments


def missing_extra(part: str, package: str, extra: str) -> ImportError:
    """The error of a part of Zeta whose optional dependency is not installed."""
    return ImportError(
        f"{part} needs {package}, which is not installed: pip install 'zeta-nn[{extra}]'"
    )
