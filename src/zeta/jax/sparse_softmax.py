"""Sparsemax and entmax15: softmaxes whose probabilities can be exactly 0; and their losses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from zeta._backends.jax import check_input, compute_dtype
from zeta._mixture import check_targets
from zeta._sparse_softmax import (
    ENTMAX15,
    SPARSEMAX,
    STEPS,
    check_distributions,
    check_loss,
    derivative,
    fenchel_young,
    nearer,
    power,
    roots,
    threshold,
)


def sparsemax(x: ArrayLike, dim: int = -1) -> Array:
    """The projection onto the probability simplex: a softmax with exact zeros.

    ``argmin_p ‖p - x‖²`` over distributions p, which is ``max(x - τ, 0)`` with the τ that makes it
    sum to one. A class more than 1 below the largest has probability 0, and gradient 0.

    Args:
        x: any shape; float16, bfloat16, float32 or float64. -inf is a class that is masked; a row
            of nothing else gives NaN, as ``jax.nn.softmax`` does, and NaN stays NaN.
        dim: the dimension that sums to one.

    Returns:
        Probabilities of x's shape and dtype, computed in float32 for half types and rounded once.

    Exact, by Newton's method, which knows when it is there; ``jax.lax`` sorts far slower.

    Raises:
        TypeError: x is not a floating-point array.
        ValueError: x has no such dimension.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.jax import sparsemax
        >>> sparsemax(jnp.array([-2.0, 0.0, 0.5])).tolist()
        [0.0, 0.25, 0.75]

    For training, :func:`sparsemax_loss` takes the place of cross-entropy, which is infinite at 0.

    Source: Martins and Astudillo 2016, From Softmax to Sparsemax.
    """
    check_input(x, "sparsemax", "x")
    return _along(jnp.asarray(x), dim, SPARSEMAX)


def entmax15(x: ArrayLike, dim: int = -1) -> Array:
    """1.5-entmax, halfway between softmax and sparsemax: exact zeros, and a smooth way to them.

    ``argmax_p p·x + (4/3)·(1 - Σ p^1.5)`` over distributions p, which is ``max(x/2 - τ, 0)²`` with
    the τ that makes it sum to one. A class more than 2 below the largest has probability 0.

    Args:
        x: as :func:`sparsemax` takes it.
        dim: the dimension that sums to one.

    Returns:
        Probabilities of x's shape and dtype, computed in float32 for half types and rounded once.

    Raises:
        TypeError: x is not a floating-point array.
        ValueError: x has no such dimension.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.jax import entmax15
        >>> [round(value, 4) for value in entmax15(jnp.array([-2.0, 0.0, 0.5])).tolist()]
        [0.0, 0.326, 0.674]

    Source: Peters, Niculae and Martins 2019, Sparse Sequence-to-Sequence Models.
    """
    check_input(x, "entmax15", "x")
    return _along(jnp.asarray(x), dim, ENTMAX15)


def sparsemax_loss(
    x: ArrayLike, target: ArrayLike, *, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """The loss of a sparsemax, in the place of cross-entropy.

    ``½·‖p - y‖² + Σ_c y_c·max(τ - x_c, 0)`` with p and τ of ``sparsemax(x)``: zero once the target
    leads by 1, never negative, and of gradient ``p - y``.

    Args:
        x: (N, C), logits; float16, bfloat16, float32 or float64.
        target: (N,), class indices, or ``ignore_index``; or (N, C), distributions y, through which
            no gradient flows.
        ignore_index: targets of this value contribute neither loss nor gradient.
        reduction: "none", "mean" or "sum". The mean over no target at all is NaN; its gradients
            are zero.

    Returns:
        A scalar, or (N,) with reduction "none", of x's dtype; half types are computed in float32
        and rounded once.

    Raises:
        TypeError: x is not a floating-point array, or target is neither of these.
        ValueError: shapes that do not fit, an unknown reduction, or targets that are no
            distributions.
        IndexError: a target that is no class. Where that cannot be known, under ``jax.jit`` or on
            an accelerator, such a token's loss is NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.jax import sparsemax_loss
        >>> x, target = jnp.array([[0.0, 0.5], [3.0, 1.0]]), jnp.array([0, 0])
        >>> sparsemax_loss(x, target, reduction="none").tolist()
        [0.5625, 0.0]

    Source: Martins and Astudillo 2016; Blondel, Martins and Niculae 2020 for losses of this kind.
    """
    return _loss("sparsemax_loss", x, target, ignore_index, reduction, SPARSEMAX)


def entmax15_loss(
    x: ArrayLike, target: ArrayLike, *, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """The loss of a 1.5-entmax, in the place of cross-entropy.

    ``(p - y)·x + (4/3)·Σ_c (y_c^1.5 - p_c^1.5)`` with p of ``entmax15(x)``: zero once the target
    leads by 2, never negative, and of gradient ``p - y``.

    Args:
        x, target, ignore_index, reduction: as :func:`sparsemax_loss` takes them.

    Returns:
        A scalar, or (N,) with reduction "none", of x's dtype.

    Raises:
        TypeError, ValueError, IndexError: as :func:`sparsemax_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.jax import entmax15_loss
        >>> x, target = jnp.array([[0.0, 0.5], [3.0, 1.0]]), jnp.array([0, 0])
        >>> [round(value, 4) for value in entmax15_loss(x, target, reduction="none").tolist()]
        [0.6844, 0.0]

    Source: Peters, Niculae and Martins 2019; as :func:`sparsemax_loss`.
    """
    return _loss("entmax15_loss", x, target, ignore_index, reduction, ENTMAX15)


# ---- Both ---------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(1, 2))
def _along(x: Array, dim: int, kind: str) -> Array:
    if x.size == 0:
        return x
    wide = x.astype(compute_dtype(x.dtype))
    p = _entmax(jnp.moveaxis(jnp.atleast_1d(wide), dim, -1), kind)
    return jnp.moveaxis(p, -1, dim).reshape(x.shape).astype(x.dtype)


def _loss(
    name: str, x: ArrayLike, target: ArrayLike, ignore_index: int, reduction: str, kind: str
) -> Array:
    check_input(x, name, "x")
    x = jnp.asarray(x)
    soft = check_loss(name, x, target, reduction)
    target = jnp.asarray(target)
    if not isinstance(target, jax.core.Tracer) and not target.devices() - set(jax.devices("cpu")):
        _check_values(name, target, ignore_index, x.shape[1], soft)
    return _reduced(x, target, ignore_index, reduction, kind, soft)


def _check_values(name: str, target: Array, ignore_index: int, C: int, soft: bool) -> None:
    if soft:
        wide = target.astype(compute_dtype(target.dtype))
        epsilon = 4 * jnp.finfo(target.dtype).eps + C * jnp.finfo(wide.dtype).eps
        check_distributions(jnp, name, wide, float(epsilon))
    else:
        target_N = np.asarray(_wide(target))
        check_targets(target_N[:, None], target_N == ignore_index, C, function=name)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _reduced(
    x: Array, target: Array, ignore_index: int, reduction: str, kind: str, soft: bool
) -> Array:
    wide, C = x.astype(compute_dtype(x.dtype)), x.shape[1]
    ignored = jnp.zeros(x.shape[:1], bool)
    missing = ignored
    if soft:
        q = lax.stop_gradient(target).astype(wide.dtype)
    else:
        target = _wide(target)
        ignored = target == ignore_index
        missing = ~ignored & ((target < 0) | (target >= C))
        q = jax.nn.one_hot(jnp.where(ignored, 0, target), C, dtype=wide.dtype)
    losses, _ = _entmax_loss(wide, q, kind)
    losses = jnp.where(ignored, 0, jnp.where(missing, jnp.nan, losses))
    if reduction == "none":
        return losses.astype(x.dtype)
    total, count = jnp.sum(losses), jnp.sum(~ignored)
    if reduction == "mean":
        total = jnp.where(count == 0, jnp.nan, total / jnp.maximum(count, 1))
    return total.astype(x.dtype)


def _wide(target: Array) -> Array:
    """Before any comparison: -100 wraps in a narrow type."""
    return target.astype(jnp.promote_types(target.dtype, jnp.int32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _entmax(x: Array, kind: str) -> Array:
    """Probabilities along the last dimension."""
    z, lowest, step = _shifted(x, kind)
    return power(roots(jnp, z, lowest, step), kind)


@_entmax.defjvp
def _entmax_derivative(
    kind: str, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    p = _entmax(*primals, kind)
    return p, derivative(jnp, p, *tangents, kind)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _entmax_loss(x: Array, q: Array, kind: str) -> tuple[Array, Array]:
    """Losses (N,), and probabilities (N, C), by which the losses' gradient is differentiated."""
    z, lowest, step = _shifted(x, kind)
    s = roots(jnp, z, lowest, step)
    return fenchel_young(jnp, s, z, lowest, step, q, kind), power(s, kind)


@_entmax_loss.defjvp
def _entmax_loss_derivative(
    kind: str, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Any, Any]:
    (x, q), (tangent, _) = primals, tangents
    losses, p = _entmax_loss(x, q, kind)
    return (losses, p), (jnp.sum((p - q) * tangent, -1), derivative(jnp, p, tangent, kind))


def _shifted(x: Array, kind: str) -> tuple[Array, Array, Array]:
    """z, the largest of which is 0, and its threshold."""
    x = jnp.minimum(x, jnp.finfo(x.dtype).max)  # inf - inf would be NaN
    z = x - jnp.max(x, -1, keepdims=True)
    z = z if kind == SPARSEMAX else z / 2

    def is_rising(state: tuple[Array, Array, int]) -> Array:
        before, tau, steps = state
        return jnp.any(tau > before) & (steps < STEPS[x.dtype.name])

    def rise(state: tuple[Array, Array, int]) -> tuple[Array, Array, int]:
        _, tau, steps = state
        return tau, nearer(jnp, tau, z, kind), steps + 1

    lowest = jnp.full_like(z[..., :1], -1)
    _, tau, _ = lax.while_loop(is_rising, rise, (lowest - 1, lowest, 0))
    return z, *threshold(jnp, tau, z, kind)
