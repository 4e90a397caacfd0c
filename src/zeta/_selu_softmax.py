"""The dimension of selu_softmax, where frameworks share it."""

import operator
import warnings


class _DocumentedDim(int):
    """The documented default dim, 0, told apart from a 0 that the caller wrote."""


DIM_LEFT_OUT = _DocumentedDim(0)
_warned = False


def checked_dim(dim: int, dims: int, *, may_warn: bool = True) -> int:
    """The dimension, between 0 and ``dims``; warns, once per process, if it was left out.

    Called by what the user calls, so that the warning names the user's line.

    Raises:
        TypeError: not an integer.
        IndexError: there is no such dimension.
    """
    if dim is DIM_LEFT_OUT and dims > 1 and may_warn:
        _warn_once()
    axis = operator.index(dim)
    size = max(dims, 1)  # a scalar counts as a vector of one, as in PyTorch
    if not -size <= axis < size:
        raise IndexError(f"selu_softmax: dim must be in [{-size}, {size - 1}], got {axis}")
    return axis % size


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "selu_softmax: dim was left out, so the softmax runs over dimension 0, the batch in "
            "most models; pass dim=-1 for one distribution per row, or dim=0 to silence this",
            stacklevel=5,
        )
