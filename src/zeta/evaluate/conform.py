"""`check_types`: whether what was read from a file is what its dataclass says."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

# Beyond it squares are no finite numbers; no score or learning rate comes near.
_LARGEST = 1e150


def check_types(value: object, kind: Any, name: str) -> None:
    """Check a value, and whatever it holds, against a type annotation.

    Floats must be finite, and may be written as whole numbers.

    Args:
        kind: a dataclass or an annotation of numbers, strings, tuples, dicts and unions.
        name: what to call the value in an error.

    Raises:
        ValueError: something is of another type.

    Example:
        >>> from zeta.evaluate import Budget
        >>> from zeta.evaluate.conform import check_types
        >>> check_types(Budget(1, 2, "3"), Budget, "budget")
        Traceback (most recent call last):
        ValueError: budget.width is no int
    """
    if not _is_right(value, kind):
        raise ValueError(f"{name} is no {getattr(kind, '__name__', kind)}")
    for part, part_kind, part_name in _parts(value, kind, name):
        check_types(part, part_kind, part_name)


def _is_right(value: Any, kind: Any) -> bool:
    """Whether the value itself is right, its parts aside."""
    origin = get_origin(kind)
    if origin is UnionType:
        return any(_conforms(value, one) for one in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if origin is Mapping:
        return isinstance(value, dict)
    if kind is float:
        return type(value) in (int, float) and abs(value) < _LARGEST
    return type(value) is (origin or kind)  # exactly, since a bool is an int


def _parts(value: Any, kind: Any, name: str) -> Iterator[tuple[object, Any, str]]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        yield from ((part, arguments[0], f"{name}[{i}]") for i, part in enumerate(value))
    elif origin in (dict, Mapping):
        yield from ((key, arguments[0], f"a name in {name}") for key in value)
        yield from ((part, arguments[1], f"{name}[{key!r}]") for key, part in value.items())
    elif is_dataclass(kind):
        hints = get_type_hints(kind)
        yield from ((getattr(value, n), hint, f"{name}.{n}") for n, hint in hints.items())


def _conforms(value: object, kind: Any) -> bool:
    try:
        check_types(value, kind, "")
    except ValueError:
        return False
    return True
