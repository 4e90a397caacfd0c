"""The dimension of selu_softmax, where frameworks share it."""

import operator
import warnings


class _DocumentedDim(int):
    """The documented default dim, 0, told apart from a 0 that the caller wrote."""


DIM_LEFT_OUT = _DocumentedDim(0)
_warned = False


def checked_dim(dim: int, dims: int) -> int:
    """The dimension, between 0 and ``dims``; warns, once per process, if it was left out.

    Raises:
        TypeError: not an integer.
        IndexError: there is no such dimension.
    """
    if dim is DIM_LEFT_OUT and dims > 1:
        warn_once_that_dim_was_left_out(stacklevel=4)
    axis = operator.index(dim)
    size = max(dims, 1)  # a scalar counts as a vector of one, as in PyTorch
    if not -size <= axis < size:
        raise IndexError(f"selu_softmax: dim must be in [{-size}, {size - 1}], got {axis}")
    return axis % size


def warn_once_that_dim_was_left_out(stacklevel: int) -> None:
    """Warn, once per process; ``stacklevel`` as ``warnings.warn`` has it, counted from here."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "selu_softmax: dim was left out, so the softmax runs over dimension 0, the batch in "
            "most models; pass dim=-1 for one distribution per row, or dim=0 to silence this",
            stacklevel=stacklevel,
        )
