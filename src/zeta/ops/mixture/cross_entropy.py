"""The mixture's cross-entropy: its options, its checks, and who computes it.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from zeta._backends.torch import check_input, compute_dtype
from zeta.kernels.dispatch import is_eager
from zeta.kernels.mixture import Mass
from zeta.ops.mixture import operators, plain
from zeta.ops.mixture.chunks import Problem, tokens_per_chunk

REDUCTIONS = ("none", "mean", "sum")
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def mixture_cross_entropy(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    max_chunk_bytes: int | None = None,
) -> Tensor:
    """Cross-entropy of a mixture of softmaxes, in log space.

    ``-log p(y)`` with ``p(v) = Σ_k prior_k · softmax(hidden_k @ weight_k.T + bias_k)_v``.
    Reduction, ignored targets, label smoothing and class weights follow ``F.cross_entropy``,
    applied to the joint log-probabilities ``log p(v)`` as they stand: neither they nor the prior
    are normalised again.

    Args:
        hidden: (N, K, D), one vector per token and mixture; floating point.
        log_prior: (N, K), the mixtures' log-weights, in any floating-point dtype.
        weight: (V, D) shared by all mixtures, or (K, V, D).
        target: (N,), class indices, or ``ignore_index``.
        bias: (V,) with a shared weight, (K, V) with separate ones, or None.
        ignore_index: targets of this value contribute neither loss nor gradient.
        reduction: "none", "mean" or "sum". The mean over no target at all is NaN, as in
            ``F.cross_entropy``; its gradients are zero.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        class_weight: (V,), the weight of each class.
        max_chunk_bytes: bound on the logits held at once, in bytes; chunks of tokens are then
            computed one after another, and again in backward. None: all at once.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; half types are computed in
        float32 and rounded once, under autocast the loss stays float32.

    Raises:
        TypeError: a tensor that must be floating point is not, or a target that is not integer.
        ValueError: shapes that do not fit, or an option out of its range.
        IndexError: a target that is no class (checked on CPU).

    Example:
        >>> import torch
        >>> from zeta.ops import mixture_cross_entropy
        >>> hidden, weight = torch.zeros(5, 2, 3), torch.zeros(7, 3)
        >>> log_prior = torch.full((5, 2), 0.5).log()
        >>> mixture_cross_entropy(hidden, log_prior, weight, torch.arange(5))  # log 7
        tensor(1.9459)

    Source: Yang et al. 2018, Breaking the Softmax Bottleneck.
    """
    _check_tensors(hidden, log_prior, weight, target, bias, class_weight)
    _check_options(reduction, label_smoothing, max_chunk_bytes)
    target_N = target.long()  # before any comparison: -100 wraps in a narrow type
    ignored_N = target_N == ignore_index
    _check_targets(target_N, ignored_N, weight.shape[-2])
    dtype = compute_dtype(hidden.dtype)
    mass, normalizer = _mass(target_N, ignored_N, class_weight, label_smoothing, weight, dtype)
    matmul_dtype = _matmul_dtype(hidden)
    problem = Problem(
        hidden,
        log_prior.to(dtype),
        weight,
        bias,
        target_N,
        ignored_N,
        mass,
        matmul_dtype,
        tokens_per_chunk(max_chunk_bytes, weight, hidden.shape[1], matmul_dtype),
    )
    loss = _reduced_loss(problem, normalizer, reduction)
    return loss if _autocast(hidden) else loss.to(hidden.dtype)


def _mass(
    target_N: Tensor,
    ignored_N: Tensor,
    class_weight_V: Tensor | None,
    label_smoothing: float,
    weight: Tensor,
    dtype: torch.dtype,
) -> tuple[Mass, Tensor]:
    """How much each class counts, and what the mean divides by."""
    V = weight.shape[-2]
    if class_weight_V is None:
        target_weight_N = torch.ones_like(target_N, dtype=dtype)
    else:
        class_weight_V = class_weight_V.to(dtype)
        target_weight_N = class_weight_V[target_N.masked_fill(ignored_N, 0)]
    target_weight_N = target_weight_N.masked_fill(ignored_N, 0)
    mass = Mass(target_weight_N, None)
    if label_smoothing > 0:
        even = target_weight_N.new_full((V,), label_smoothing / V)
        even = even if class_weight_V is None else even * class_weight_V
        mass = Mass((1 - label_smoothing) * target_weight_N, even)
    return mass, target_weight_N.sum()


def _reduced_loss(problem: Problem, normalizer: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return (operators if _takes_operators(problem) else plain).losses(problem)
    coefficient_N = problem.mass.target_N.new_ones(problem.target_N.shape)
    if reduction == "mean":
        coefficient_N = coefficient_N / normalizer
    coefficient_N = coefficient_N.masked_fill(problem.ignored_N, 0)
    if _takes_operators(problem):
        loss = operators.weighted_loss(problem, coefficient_N)
    else:
        loss = (coefficient_N * plain.losses(problem)).sum()
    # The mean over nothing is NaN.
    return loss + 0 / normalizer if reduction == "mean" else loss


def _takes_operators(problem: Problem) -> bool:
    """Whether nothing is active that must see the single operations."""
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    tensors = [t for t in (*problem[:5], *problem.mass) if t is not None]
    return (
        is_eager()
        and forward_ad._current_level < 0
        and all(type(t) in (Tensor, nn.Parameter) and not t.is_meta for t in tensors)
        and not problem.mass.target_N.requires_grad  # nor does F.cross_entropy's
    )


def _matmul_dtype(hidden: Tensor) -> torch.dtype:
    if _autocast(hidden) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(hidden.device.type)
    return hidden.dtype


def _autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _check_tensors(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
) -> None:
    where = "mixture_cross_entropy"
    optional = {"bias": bias, "class_weight": class_weight}
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    for name, tensor in {
        "hidden": hidden,
        "log_prior": log_prior,
        "weight": weight,
        **given,
    }.items():
        check_input(tensor, where, name)
    kind = getattr(target, "dtype", type(target).__name__)
    if kind not in _INTEGERS:
        raise TypeError(f"{where}: target must be a tensor of integer class indices, got {kind}")
    for name, parameter in {"weight": weight, "bias": bias}.items():
        if parameter is not None and parameter.dtype != hidden.dtype and not _autocast(hidden):
            raise TypeError(
                f"{where}: hidden and {name} must have one dtype outside autocast, "
                f"got {hidden.dtype} and {parameter.dtype}"
            )
    if hidden.dim() != 3:
        raise ValueError(f"{where}: hidden must be (N, K, D), got shape {tuple(hidden.shape)}")
    N, K, D = hidden.shape
    if K == 0:
        raise ValueError(f"{where}: hidden must have at least one mixture, got K = 0")
    V = weight.shape[-2] if weight.dim() in (2, 3) else 0
    shared = weight.dim() == 2
    _check_shape("log_prior", log_prior, (N, K))
    _check_shape("weight", weight, (V, D) if shared else (K, V, D))
    _check_shape("target", target, (N,))
    if bias is not None:
        _check_shape("bias", bias, (V,) if shared else (K, V))
    if class_weight is not None:
        _check_shape("class_weight", class_weight, (V,))


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f"mixture_cross_entropy: {name} must have shape {expected} to fit the other "
            f"arguments, got {tuple(tensor.shape)}"
        )


def _check_options(reduction: str, label_smoothing: float, max_chunk_bytes: int | None) -> None:
    where = "mixture_cross_entropy"
    if reduction not in REDUCTIONS:
        raise ValueError(f"{where}: reduction must be one of {REDUCTIONS}, got {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{where}: label_smoothing must be in [0, 1], got {label_smoothing}")
    if max_chunk_bytes is not None and max_chunk_bytes < 1:
        raise ValueError(f"{where}: max_chunk_bytes must be positive, got {max_chunk_bytes}")


def _check_targets(target_N: Tensor, ignored_N: Tensor, num_classes: int) -> None:
    real = type(target_N) is Tensor and target_N.device.type == "cpu"
    if not (real and is_eager()):
        return  # reading the values would wait for the device, or break the trace
    bad_N = ((target_N < 0) | (target_N >= num_classes)) & ~ignored_N
    if bad_N.any():
        raise IndexError(
            f"mixture_cross_entropy: target {target_N[bad_N][0].item()} is out of range for "
            f"{num_classes} classes; accepted: 0 to {num_classes - 1}, or ignore_index"
        )
