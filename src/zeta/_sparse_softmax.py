"""Sparsemax and entmax15, their derivative and their losses, where frameworks share them.

α-entmax is ``p = s^(1/(α - 1))`` of ``s = max(z - τ, 0)``, where ``z = (α - 1)·(x - max x)`` and τ
is such that p sums to one; α = 2 is sparsemax. Written against what ``torch`` and ``jax.numpy``
have in common; the last axis holds the classes.
"""

from collections.abc import Sequence
from typing import Any

from zeta._backends.evaluate import dtype_name
from zeta._loss_options import REDUCTIONS
from zeta._mixture import INTEGERS

SPARSEMAX, ENTMAX15 = "sparsemax", "entmax15"  # α = 2 and 1.5


# Steps after which Newton's method is at the threshold, to the last bits: each divides the product
# of a convex function and its slope by 4 at least, which for 2^24 classes starts at 2^48.
STEPS = {"float32": 36, "float64": 51}


def nearer(xp: Any, tau: Any, z: Any, kind: str) -> Any:
    """One step of Newton's method from below, towards the τ at which ‖s‖ is 1.

    ‖s‖ is the 1/(α - 1)-norm, which is convex in τ: no step goes too far. Sorting z would find τ
    too, and takes up to forty times as long.

    Args:
        xp: ``torch`` or ``jax.numpy``.
        tau: (…, 1), no higher than τ; -1 at first.
        z: (…, C), the largest of each row 0.
        kind: SPARSEMAX or ENTMAX15.
    """
    s = xp.clip(z - tau, 0)
    total = xp.sum(s, -1, keepdims=True)
    if kind == SPARSEMAX:
        return xp.maximum(tau, tau + (total - 1) / xp.sum(xp.sign(s), -1, keepdims=True))
    norm = xp.sqrt(xp.sum(s * s, -1, keepdims=True))
    return xp.maximum(tau, tau + (norm - 1) * norm / total)


def threshold(xp: Any, tau: Any, z: Any, kind: str) -> tuple[Any, Any]:
    """τ as a pair (lowest, step): the least z above it, and by how much.

    Small probabilities, of which many may share the mass, are differences of these: τ itself, of
    which they are a small part, would take their digits.
    """
    some = z > tau
    lowest = xp.amin(xp.where(some, z, 0), -1, keepdims=True)
    u = xp.clip(z - lowest, 0)
    k, total = (xp.sum(v, -1, keepdims=True) for v in (xp.where(some, xp.ones_like(z), 0), u))
    if kind == SPARSEMAX:  # Σ (u + step) = 1
        return lowest, (1 - total) / k
    # Σ (u + step)² = 1, a quadratic equation
    rest = xp.clip(1 - xp.sum(u * u, -1, keepdims=True), 0)
    return lowest, rest / (total + xp.sqrt(total * total + k * rest))


def roots(xp: Any, z: Any, lowest: Any, step: Any) -> Any:
    """s = max(z - τ, 0)."""
    return xp.clip((z - lowest) + step, 0)


def power(s: Any, kind: str) -> Any:
    """p of s, ``s^(1/(α - 1))``."""
    return s if kind == SPARSEMAX else s * s


def derivative(xp: Any, p: Any, v: Any, kind: str) -> Any:
    """The Jacobian times v: ``w·(v - Σ w·v / Σ w)`` with ``w = p^(2 - α)``, 0 where p is.

    It is symmetric: the same for a tangent and for an upstream gradient.
    """
    some = p > 0
    w = xp.where(some, xp.ones_like(p), 0)
    if kind == ENTMAX15:
        w = xp.sqrt(xp.where(some, p, 1)) * w  # the root of 0 would have an infinite slope
    mean = xp.sum(w * v, -1, keepdims=True) / xp.sum(w, -1, keepdims=True)
    return w * (v - mean)


def fenchel_young(xp: Any, s: Any, z: Any, lowest: Any, step: Any, q: Any, kind: str) -> Any:
    """The loss ``Ω(q) + max_p (p·x - Ω(p)) - q·x`` by terms of which none is negative.

    Ω is Tsallis' negative entropy, ``(Σ p^α - 1)/(α·(α - 1))``. Where p is positive, its derivative
    is x but for a constant; elsewhere x lies below by ``(τ - z)/(α - 1)``, which q pays for.
    """
    below = xp.clip((lowest - z) - step, 0)
    below = xp.where(q > 0, below, 0) * q  # of a masked class, infinitely far below, nothing
    if kind == SPARSEMAX:
        terms = (s - q) * (s - q) / 2 + below
    else:
        r = xp.sqrt(q)
        terms = (s - r) * (s - r) * (s + 2 * r) * (2 / 3) + 2 * below
    return xp.sum(terms, -1)


def check_loss(function: str, x: Any, target: Any, reduction: str) -> bool:
    """Whether targets are probabilities; x and target as the losses take them.

    Raises:
        TypeError: targets that are neither class indices nor, of x's shape, floating point.
        ValueError: shapes that do not fit, or an unknown reduction.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"{function}: reduction must be one of {REDUCTIONS}, got {reduction!r}")
    if len(x.shape) != 2 or x.shape[1] == 0:
        raise ValueError(f"{function}: x must be (N, C), got shape {tuple(x.shape)}")
    N, C = x.shape
    kind = dtype_name(target) if hasattr(target, "dtype") else type(target).__name__
    if kind in INTEGERS and tuple(target.shape) == (N,):
        return False
    if "float" in kind and tuple(target.shape) == (N, C):
        return True
    shape = f" of shape {tuple(target.shape)}" if hasattr(target, "shape") else ""
    raise (ValueError if shape and (kind in INTEGERS or "float" in kind) else TypeError)(
        f"{function}: target must be class indices ({N},) or probabilities ({N}, {C}), "
        f"got {kind}{shape}"
    )


def check_distributions(xp: Any, function: str, q: Any, epsilon: float) -> None:
    """Raise ValueError unless every row is a distribution, to the rounding of its dtype."""
    least, total = xp.amin(q, -1), xp.sum(q, -1)
    bad: Sequence[bool] = (~(least >= 0) | (xp.abs(total - 1) > epsilon)).tolist()
    if any(bad):
        row = bad.index(True)
        raise ValueError(
            f"{function}: target must be a distribution for every token; of token {row} the least "
            f"is {float(least[row]):g} and the sum {float(total[row]):g}: divide by the sum"
        )
