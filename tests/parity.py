"""What every framework must show: values and all gradients against mpmath, no NaN.

A framework is a function ``run(formula, x, dtype)``: it computes the formula at the points ``x``
(float64, exact in ``dtype``, "float32", "bfloat16", ...) with one value of every parameter per
point, and answers the value and the derivatives by "x" and every parameter's name, as float64.
"""

import math
from collections.abc import Callable, Mapping

import mpmath
import numpy as np
import torch
from hypothesis import strategies as st

from cases import Truth, grid, truth, truths, ulps
from zeta._formula import Formula

Run = Callable[[Formula, np.ndarray, str], Mapping[str, np.ndarray]]

DTYPES = ["float32", "bfloat16"]

# A result is right if it is within 4 ulp of the exact function at an input and parameters that
# are off by rounding: 4 ulp where the function is well conditioned.
ULPS = 4


def points(dtype: str) -> np.ndarray:
    return grid(getattr(torch, dtype)).double().numpy()


def drawn_points(dtype: str) -> st.SearchStrategy:
    """Eight finite numbers of a dtype: always eight, since XLA compiles for a shape."""
    of = getattr(torch, dtype)
    largest = torch.finfo(of).max
    numbers = st.floats(-largest, largest, width=32)
    eight = st.lists(numbers, min_size=8, max_size=8)
    return eight.map(lambda xs: torch.tensor(xs, dtype=of).double().numpy())


def check_grid(run: Run, formula: Formula, dtype: str, flushed: float = 0.0) -> None:
    """Values and gradients over the whole range."""
    x = points(dtype)
    check(run(formula, x, dtype), x, truths(formula, getattr(torch, dtype)), dtype, flushed)


def check_drawn(run: Run, formula: Formula, x: np.ndarray, dtype: str, flushed: float) -> None:
    """Values and gradients at points that hypothesis drew."""
    check(run(formula, x, dtype), x, [truth(formula, xi) for xi in x.tolist()], dtype, flushed)


def check(
    got: Mapping[str, np.ndarray],
    x: np.ndarray,
    expected: list[Truth],
    dtype: str,
    flushed: float,
) -> None:
    """Compare with mpmath.

    Args:
        flushed: the largest number that the framework takes for 0; a factor of that size that is
            lost costs as much times |x|.
    """
    for key, values in got.items():
        assert not np.isnan(values).any(), (key, x[np.isnan(values)])
    for i, (xi, right) in enumerate(zip(x.tolist(), expected, strict=True)):
        lost = flushed * (1 + max(abs(xi), abs(float(right.slopes["x"]))))
        values = [value_is_right(got["value"][i], t, dtype, lost) for t in taken(right, flushed)]
        assert any(values), (xi, got["value"][i], right)
        if 0 < abs(xi) < flushed or abs(xi) > 1e6:
            continue
        for key in right.slopes:
            if not right.kinks[key]:
                assert slope_is_right(got[key][i], right, key, dtype), (key, got[key][i], right)


def taken(right: Truth, flushed: float) -> list[Truth]:
    """What may be computed: a subnormal x is taken for 0 perhaps, where a jump or a kink may be."""
    return [right, truth(right.formula, 0.0)] if 0 < abs(right.x) < flushed else [right]


def value_is_right(
    got: float, right: Truth, dtype: str, lost: float, most_ulps: float = ULPS
) -> bool:
    info = torch.finfo(getattr(torch, dtype))
    if abs(right.value) > info.max:
        return abs(got) >= info.max
    allowed = most_ulps * max(1.0, right.condition)
    if info.bits < 32:  # one rounding of a float32 result
        allowed = 0.5 + 2 * allowed * torch.finfo(torch.float32).eps / info.eps
    with mpmath.workdps(50):
        error = abs(mpmath.mpf(float(got)) - right.value)
        return error <= lost or ulps(error, right.value, getattr(torch, dtype)) <= allowed


def slope_is_right(got: float, right: Truth, key: str, dtype: str) -> bool:
    """To float32's rounding of the terms that a slope sums, and one rounding to the dtype."""
    slope = float(right.slopes[key])
    info, single = torch.finfo(getattr(torch, dtype)), torch.finfo(torch.float32)
    if abs(slope) > info.max:
        return abs(got) >= info.max
    rounding = 0.0 if info.bits >= 32 else info.eps * abs(slope) / 2 + info.smallest_normal
    error = abs(got - slope) - rounding
    if error <= 16 * single.eps * max(1.0, abs(slope), abs(right.x)):
        return True
    return math.isfinite(got) and error <= 16 * single.eps * right.slope_drift(key)
