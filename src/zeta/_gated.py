"""A gate on one array that holds both of its inputs: what every framework accepts."""

from collections.abc import Sequence
from typing import Literal

from zeta._formula import Formula

Order = Literal["halves", "interleaved"]

# Arguments of the functions for gates, which also take a formula's parameters by name.
_OWN = frozenset({"formula", "packed", "dim", "layout", "gate_first", "reuse", "weight", "bias"})


def check_two_inputs(formula: Formula) -> None:
    """Raise TypeError unless the formula is a gate, whose parameters ``gated`` can be given."""
    if not isinstance(formula, Formula):
        raise TypeError(f"a gate must be a Formula, got {type(formula).__name__}")
    if len(formula.inputs) != 2:
        raise TypeError(
            f"{formula!r} has {len(formula.inputs)} inputs, and a gate has two: call it on tensors"
        )
    if not _OWN.isdisjoint(formula.parameters):
        taken = min(_OWN & formula.parameters.keys())
        raise TypeError(
            f"{formula!r}: the functions for gates have an argument {taken!r} of their own; "
            "name the parameter otherwise"
        )


def checked_dim(formula: Formula, shape: Sequence[int | None], dim: int, layout: Order) -> int:
    """The dimension that holds both inputs, from 0 on.

    Raises:
        ValueError: an unknown layout, or a dimension of odd size.
        IndexError: there is no such dimension.
    """
    if layout not in ("halves", "interleaved"):
        raise ValueError(f'layout must be "halves" or "interleaved", got {layout!r}')
    dims = len(shape)
    if not -dims <= dim < dims:
        raise IndexError(f"{formula.name}: packed of shape {tuple(shape)} has no dim {dim}")
    if (shape[dim] or 0) % 2:
        raise ValueError(
            f"{formula.name}: packed holds a gate and a value along dim {dim}, whose size must be "
            f"even; got shape {tuple(shape)}"
        )
    return dim % dims


def places(
    formula: Formula, shape: Sequence[int], dim: int, layout: Order, gate_first: bool
) -> list[tuple[slice, ...]]:
    """Where the gate lies in an array of this shape, and where the value: what to index it with.

    Raises:
        ValueError, IndexError: as :func:`checked_dim`.
    """
    dim = checked_dim(formula, shape, dim, layout)
    half = shape[dim] // 2
    halves = [slice(0, half), slice(half, 2 * half)]
    parts = halves if layout == "halves" else [slice(0, None, 2), slice(1, None, 2)]
    return [(slice(None),) * dim + (part,) for part in parts][:: 1 if gate_first else -1]


def half_shape(shape: Sequence[int | None], dim: int) -> tuple[int | None, ...]:
    """The shape of each of the two."""
    whole = list(shape)
    size = whole[dim]
    whole[dim] = None if size is None else size // 2
    return tuple(whole)
