"""Sparsemax and entmax15: softmaxes whose probabilities can be exactly 0; and their losses.

Kept for backward are the probabilities alone. Shape suffixes: N tokens, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeta._backends.evaluate import dtype_name
from zeta._backends.torch_plain import check_input, compute_dtype
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
from zeta.kernels.support import is_eager, is_plain


def sparsemax(x: Tensor, dim: int = -1) -> Tensor:
    """The projection onto the probability simplex: a softmax with exact zeros.

    ``argmin_p ‖p - x‖²`` over distributions p, which is ``max(x - τ, 0)`` with the τ that makes it
    sum to one. A class more than 1 below the largest has probability 0, and gradient 0.

    Args:
        x: any shape; float16, bfloat16, float32 or float64. -inf is a class that is masked; a row
            of nothing else gives NaN, as ``torch.softmax`` does, and NaN stays NaN.
        dim: the dimension that sums to one.

    Returns:
        Probabilities of x's shape and dtype, computed in float32 for half types and rounded once.

    Exact, by Newton's method, which knows when it is there. Every transform and every order of
    derivative works.

    Raises:
        TypeError: x is not a floating-point tensor.
        IndexError: x has no such dimension.

    Example:
        >>> import torch
        >>> from zeta.ops import sparsemax
        >>> sparsemax(torch.tensor([-2.0, 0.0, 0.5]))
        tensor([0.0000, 0.2500, 0.7500])

    For training, :func:`sparsemax_loss` takes the place of cross-entropy, which is infinite at 0.

    Source: Martins and Astudillo 2016, From Softmax to Sparsemax.
    """
    return _probabilities("sparsemax", x, dim, SPARSEMAX)


def entmax15(x: Tensor, dim: int = -1) -> Tensor:
    """1.5-entmax, halfway between softmax and sparsemax: exact zeros, and a smooth way to them.

    ``argmax_p p·x + (4/3)·(1 - Σ p^1.5)`` over distributions p, which is ``max(x/2 - τ, 0)²`` with
    the τ that makes it sum to one. A class more than 2 below the largest has probability 0.

    Args:
        x: as :func:`sparsemax` takes it.
        dim: the dimension that sums to one.

    Returns:
        Probabilities of x's shape and dtype, computed in float32 for half types and rounded once.

    Raises:
        TypeError: x is not a floating-point tensor.
        IndexError: x has no such dimension.

    Example:
        >>> import torch
        >>> from zeta.ops import entmax15
        >>> entmax15(torch.tensor([-2.0, 0.0, 0.5]))
        tensor([0.0000, 0.3260, 0.6740])

    Source: Peters, Niculae and Martins 2019, Sparse Sequence-to-Sequence Models.
    """
    return _probabilities("entmax15", x, dim, ENTMAX15)


def sparsemax_loss(
    x: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """The loss of a sparsemax, in the place of cross-entropy.

    ``½·‖p - y‖² + Σ_c y_c·max(τ - x_c, 0)`` with p and τ of ``sparsemax(x)``: zero once the target
    leads by 1, never negative, and of gradient ``p - y``.

    Args:
        x: (N, C), logits; float16, bfloat16, float32 or float64.
        target: (N,), class indices, or ``ignore_index``; or (N, C), distributions y, through which
            no gradient flows.
        ignore_index: targets of this value contribute neither loss nor gradient.
        reduction: "none", "mean" or "sum". The mean over no target at all is NaN, as in
            ``F.cross_entropy``; its gradients are zero.

    Returns:
        A scalar, or (N,) with reduction "none", of x's dtype; half types are computed in float32
        and rounded once.

    Raises:
        TypeError: x is not a floating-point tensor, or target is neither of these.
        ValueError: shapes that do not fit, an unknown reduction, or targets that are no
            distributions (checked on CPU).
        IndexError: a target that is no class (checked on CPU).

    Example:
        >>> import torch
        >>> from zeta.ops import sparsemax_loss
        >>> x, target = torch.tensor([[0.0, 0.5], [3.0, 1.0]]), torch.tensor([0, 0])
        >>> sparsemax_loss(x, target, reduction="none")
        tensor([0.5625, 0.0000])

    Source: Martins and Astudillo 2016; Blondel, Martins and Niculae 2020 for losses of this kind.
    """
    return _loss("sparsemax_loss", x, target, ignore_index, reduction, SPARSEMAX)


def entmax15_loss(
    x: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
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
        >>> import torch
        >>> from zeta.ops import entmax15_loss
        >>> x, target = torch.tensor([[0.0, 0.5], [3.0, 1.0]]), torch.tensor([0, 0])
        >>> entmax15_loss(x, target, reduction="none")
        tensor([0.6844, 0.0000])

    Source: Peters, Niculae and Martins 2019; as :func:`sparsemax_loss`.
    """
    return _loss("entmax15_loss", x, target, ignore_index, reduction, ENTMAX15)


# ---- Both ---------------------------------------------------------------------------------------


def _probabilities(name: str, x: Tensor, dim: int, kind: str) -> Tensor:
    check_input(x, name, "x")
    if x.dim() == 0 or x.numel() == 0:
        return F.softmax(x, dim)
    wide = x.to(compute_dtype(x.dtype)).movedim(dim, -1)
    function = _Entmax if torch.compiler.is_compiling() else _EntmaxTwoModes
    p: Tensor = function.apply(wide, kind)
    return p.movedim(-1, dim).to(x.dtype)


def _loss(
    function: str, x: Tensor, target: Tensor, ignore_index: int, reduction: str, kind: str
) -> Tensor:
    check_input(x, function, "x")
    soft = check_loss(function, x, target, reduction)
    wide_NC = x.to(compute_dtype(x.dtype))
    ignored_N = torch.zeros_like(x[:, 0], dtype=torch.bool)
    if not soft:
        target = target.long()  # before any comparison: -100 wraps in a narrow type
        ignored_N = target == ignore_index
        target = target.masked_fill(ignored_N, 0)
    if is_eager() and is_plain(x) and x.is_cpu:
        _check_values(function, x, target, soft)
    losses = _EntmaxLoss if torch.compiler.is_compiling() else _EntmaxLossTwoModes
    loss_N, _ = losses.apply(wide_NC, target.detach(), kind)
    loss_N = loss_N.masked_fill(ignored_N, 0)
    if reduction == "none":
        return loss_N.to(x.dtype)
    loss = loss_N.sum()
    return (loss if reduction == "sum" else loss / (~ignored_N).sum()).to(x.dtype)


def _check_values(function: str, x: Tensor, target: Tensor, soft: bool) -> None:
    C = x.shape[1]
    if soft:
        wide = target.detach().to(compute_dtype(target.dtype))
        epsilon = 4 * torch.finfo(target.dtype).eps + C * torch.finfo(wide.dtype).eps
        check_distributions(torch, function, wide, epsilon)
    else:
        target_NT = target.numpy(force=True)[:, None]
        check_targets(target_NT, np.zeros(len(target_NT), bool), C, function=function)


class _Entmax(torch.autograd.Function):
    """Probabilities along the last dimension."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kind: str) -> Tensor:
        z, lowest, step = _shifted(x, kind)
        return power(roots(torch, z, lowest, step), kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.kind = inputs[1]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        return derivative(torch, p, upstream, ctx.kind), None


class _EntmaxTwoModes(_Entmax):
    """With forward-mode differentiation, which `torch.compile` accepts of no such function."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (p,) = ctx.saved_tensors
        return derivative(torch, p, tangent, ctx.kind)


class _EntmaxLoss(torch.autograd.Function):
    """Losses (N,), and probabilities (N, C), by which the losses' gradient is differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, target: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        z, lowest, step = _shifted(x, kind)
        s = roots(torch, z, lowest, step)
        q = _distribution(target, s)
        return fenchel_young(torch, s, z, lowest, step, q, kind), power(s, kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, target, ctx.kind = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1], target)
        ctx.save_for_forward(output[1], target)

    @staticmethod
    def backward(
        ctx: Any, upstream: Tensor | None, by_p: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        p, target = ctx.saved_tensors
        found = None if by_p is None else derivative(torch, p, by_p, ctx.kind)
        if upstream is not None:
            by_loss = upstream.unsqueeze(-1) * (p - _distribution(target, p))
            found = by_loss if found is None else found + by_loss
        return found, None, None


class _EntmaxLossTwoModes(_EntmaxLoss):
    """As :class:`_EntmaxTwoModes`."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        p, target = ctx.saved_tensors
        of_loss = (tangent * (p - _distribution(target, p))).sum(-1)
        return of_loss, derivative(torch, p, tangent, ctx.kind)


def _shifted(x: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """z, the largest of which is 0, and its threshold."""
    x = x.clamp(max=torch.finfo(x.dtype).max)  # inf - inf would be NaN
    z = x - x.amax(-1, keepdim=True)
    z = z if kind == SPARSEMAX else z / 2
    return z, *_threshold(z, kind)


def _threshold(z: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """By as many steps as it takes, or where that cannot be seen, as it may take."""
    tau = torch.full_like(z[..., :1], -1)
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting() and not _transformed():
        _, tau = torch.while_loop(
            lambda before, tau: (tau > before).any(),
            lambda _, tau: (tau.clone(), nearer(torch, tau, z, kind)),
            (tau - 1, tau),
        )
        return threshold(torch, tau, z, kind)
    reads = is_eager() and is_plain(z) and z.is_cpu  # where a number can be had without waiting
    for step in range(STEPS[dtype_name(z)]):
        before, tau = tau, nearer(torch, tau, z, kind)
        if reads and not (tau > before).any():
            break
        if reads and step == 1:
            z = _above(z, tau)
    return threshold(torch, tau, z, kind)


def _above(z: Tensor, tau: Tensor) -> Tensor:
    """What is above τ of every row, and perhaps more; the rest has no say from here on."""
    k = max(1, int((z > tau).sum(-1).max()))
    return z.topk(k, -1, sorted=False).values if 8 * k < z.shape[-1] else z


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()


def _distribution(target: Tensor, like: Tensor) -> Tensor:
    """Targets as distributions, (N, C); class indices as ones among zeros."""
    if target.is_floating_point():
        return target.to(like.dtype)
    return torch.zeros_like(like).scatter(-1, target.unsqueeze(-1), 1)
