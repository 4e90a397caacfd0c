"""The mixture's cross-entropy: its options, its checks, and who computes it.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from zeta import _mixture
from zeta._backends.torch_plain import check_input, compute_dtype
from zeta.kernels.mixture import Mass
from zeta.kernels.support import is_eager
from zeta.ops.mixture import operators, plain
from zeta.ops.mixture.chunks import ELSEWHERE, IGNORED, Problem, tokens_per_chunk
from zeta.ops.mixture.shard import Shard


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
        max_chunk_bytes: bound on the logits held at once, in bytes. Chunks of tokens are computed
            one after another, each with all its mixtures: one token's K·V logits are the least.
            None: 28 MiB, or a quarter of the weight's gradient if that is more.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype. Half types have float32
        statistics and sums around their matrix products, and the result is rounded once; under
        autocast the loss stays float32.

    The gradients are formed together with the loss, chunk by chunk (with "none", in backward);
    neither (N, K, V) logits nor probabilities are ever in memory. A second derivative,
    ``torch.func`` transforms and tensor subclasses take plain operations, which hold them.

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
    options = Options(ignore_index, reduction, label_smoothing, class_weight, max_chunk_bytes)
    return cross_entropy(hidden, log_prior, weight, target, bias, options)


@dataclass(frozen=True)
class Options:
    """As :func:`mixture_cross_entropy` takes them."""

    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0
    class_weight: Tensor | None = None
    max_chunk_bytes: int | None = None


def cross_entropy(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    options: Options,
    shard: Shard | None = None,
) -> Tensor:
    """:func:`mixture_cross_entropy`, also where this process holds a part of the classes alone.

    Then weight and bias are that part's, targets and class weights are of all classes, and the
    result is the same on every process of the group.
    """
    _check_arguments(hidden, log_prior, weight, target, bias, options, shard)
    num_classes = shard.num_classes if shard else weight.shape[-2]
    target_N = target.long()  # before any comparison: -100 wraps in a narrow type
    ignored_N = target_N == options.ignore_index
    _check_targets(target_N, ignored_N, num_classes)
    dtype = compute_dtype(hidden.dtype)
    problem = Problem(
        hidden,
        log_prior.to(dtype),
        weight,
        bias,
        _local_target(target_N, shard).masked_fill(ignored_N, IGNORED),
        _mass(target_N, ignored_N, options, num_classes, shard, dtype),
        _matmul_dtype(hidden),
        _tokens_per_chunk(hidden, weight, options, shard),
        shard.group if shard else None,
    )
    normalizer = _target_weight(target_N, ignored_N, options.class_weight, dtype).sum()
    loss = _reduced_loss(problem, normalizer, options.reduction)
    return loss if _autocast(hidden) else loss.to(hidden.dtype)


def _local_target(target_N: Tensor, shard: Shard | None) -> Tensor:
    if shard is None:
        return target_N
    elsewhere_N = (target_N < shard.start) | (target_N >= shard.stop)
    return (target_N - shard.start).masked_fill(elsewhere_N, ELSEWHERE)


def _mass(
    target_N: Tensor,
    ignored_N: Tensor,
    options: Options,
    num_classes: int,
    shard: Shard | None,
    dtype: torch.dtype,
) -> Mass:
    """How much each class counts: class weights and label smoothing as in F.cross_entropy."""
    share, class_weight_V = options.label_smoothing, options.class_weight
    target_weight_N = _target_weight(target_N, ignored_N, class_weight_V, dtype)
    if share == 0:
        return Mass(target_weight_N, None)
    if class_weight_V is None:
        class_weight_V = target_weight_N.new_ones(num_classes)
    here = slice(shard.start, shard.stop) if shard else slice(None)
    return Mass((1 - share) * target_weight_N, share / num_classes * class_weight_V[here].to(dtype))


def _target_weight(
    target_N: Tensor, ignored_N: Tensor, class_weight_V: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The weight of each token's class; 0 where ignored."""
    if class_weight_V is None:
        return (~ignored_N).to(dtype)
    weight_N = class_weight_V.to(dtype)[target_N.masked_fill(ignored_N, 0)]
    return weight_N.masked_fill(ignored_N, 0)


def _tokens_per_chunk(hidden: Tensor, weight: Tensor, options: Options, shard: Shard | None) -> int:
    """The same for every process, whose messages must match."""
    V = max(shard.sizes) if shard else weight.shape[-2]
    weight_elements = weight[..., :1, :].numel() * V
    return tokens_per_chunk(
        options.max_chunk_bytes,
        weight_elements * compute_dtype(weight.dtype).itemsize,
        hidden.shape[1],
        V,
        _matmul_dtype(hidden),
    )


def _reduced_loss(problem: Problem, normalizer: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return (operators if _takes_operators(problem) else plain).losses(problem)
    coefficient_N = (~problem.ignored_N).to(normalizer.dtype)
    if reduction == "mean":
        coefficient_N = (coefficient_N / normalizer).masked_fill(problem.ignored_N, 0)
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
    if problem.group is not None:  # which plain operations know nothing of
        return True
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


def _check_arguments(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    options: Options,
    shard: Shard | None,
) -> None:
    _mixture.check_arguments(
        check_input,
        hidden,
        log_prior,
        weight,
        target,
        bias,
        options.class_weight,
        num_classes=shard.num_classes if shard else None,
        any_dtype=isinstance(hidden, Tensor) and _autocast(hidden),
    )
    _mixture.check_options(options.reduction, options.label_smoothing, options.max_chunk_bytes)


def _check_targets(target_N: Tensor, ignored_N: Tensor, num_classes: int) -> None:
    real = type(target_N) is Tensor and target_N.device.type == "cpu"
    if not (real and is_eager()):
        return  # reading the values would wait for the device, or break the trace
    bad_N = ((target_N < 0) | (target_N >= num_classes)) & ~ignored_N
    if bad_N.any():
        _mixture.check_targets(target_N[bad_N].tolist(), num_classes)
