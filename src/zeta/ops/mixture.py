"""The mixture of softmaxes: joint log-probabilities and the cross-entropy loss.

Shape suffixes: N tokens, K mixtures, D features, V classes. Everything is computed in log space,
in float32 for half-precision inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zeta._backends.torch import check_input, compute_dtype
from zeta.kernels.dispatch import is_eager

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
    N, K, _ = hidden.shape
    V = weight.shape[-2]
    target_N = target.long()  # before any comparison: -100 wraps in a narrow type
    ignored_N = target_N == ignore_index
    _check_targets(target_N, ignored_N, V)
    target_N = target_N.masked_fill(ignored_N, 0)
    # In the arithmetic's dtype, so that the chunks' gradients add up in it.
    wide_weight = weight.to(compute_dtype(weight.dtype))
    wide_bias = None if bias is None else bias.to(wide_weight.dtype)

    def losses(
        hidden_NKD: Tensor, log_prior_NK: Tensor, target_N: Tensor, ignored_N: Tensor
    ) -> Tensor:
        narrow_bias = None if wide_bias is None else wide_bias.to(weight.dtype)
        logits_NKV = mixture_logits(hidden_NKD, wide_weight.to(weight.dtype), narrow_bias)
        if label_smoothing == 0:
            log_prob_N = _target_log_prob(logits_NKV, log_prior_NK, target_N, ignored_N)
            return -log_prob_N * _target_weight(class_weight, target_N, log_prob_N.dtype)
        logits_NKV = logits_NKV.masked_fill(ignored_N[:, None, None], 0)
        log_prob_NV = mixture_log_prob(logits_NKV, log_prior_NK.masked_fill(ignored_N[:, None], 0))
        return _smoothed_losses(log_prob_NV, target_N, label_smoothing, class_weight)

    tokens = (hidden, log_prior, target_N, ignored_N)
    rows = _rows_per_chunk(max_chunk_bytes, K * V, hidden.dtype)
    if rows is None or rows >= N or not is_eager():  # a transform sees one expression
        losses_N = losses(*tokens)
    else:
        chunks = zip(*(tensor.split(rows) for tensor in tokens), strict=True)
        losses_N = torch.cat([checkpoint(losses, *c, use_reentrant=False) for c in chunks])
    loss = _reduce(losses_N, target_N, ignored_N, reduction, class_weight)
    return loss if _autocast(hidden) else loss.to(hidden.dtype)


def mixture_logits(hidden_NKD: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every mixture's logits, (N, K, V), in the dtype that the softmax is computed in."""
    if weight.dim() == 2:
        logits_NKV = F.linear(hidden_NKD, weight, bias)
    else:
        logits_NKV = torch.einsum("nkd,kvd->nkv", hidden_NKD, weight)
        logits_NKV = logits_NKV if bias is None else logits_NKV + bias
    return logits_NKV.to(compute_dtype(hidden_NKD.dtype))


def mixture_log_prob(logits_NKV: Tensor, log_prior_NK: Tensor) -> Tensor:
    """log p(v) = logsumexp_k(log_prior_k + log_softmax(logits_k)_v), (N, V)."""
    log_prior_NK1 = log_prior_NK.to(logits_NKV.dtype).unsqueeze(-1)
    return torch.logsumexp(log_prior_NK1 + torch.log_softmax(logits_NKV, -1), dim=1)


def _target_log_prob(
    logits_NKV: Tensor, log_prior_NK: Tensor, target_N: Tensor, ignored_N: Tensor
) -> Tensor:
    """log p(target) alone, (N,): no other class's joint probability is needed."""
    K = logits_NKV.shape[1]
    target_NK1 = target_N[:, None, None].expand(-1, K, 1)
    target_logit_NK = logits_NKV.gather(2, target_NK1).squeeze(2)
    log_softmax_NK = target_logit_NK - logits_NKV.logsumexp(2)
    joint_NK = log_prior_NK.to(logits_NKV.dtype) + log_softmax_NK
    # An ignored token's class 0 may be impossible, and 0 · inf is NaN in backward.
    return torch.logsumexp(joint_NK.masked_fill(ignored_N[:, None], 0), dim=1)


def _smoothed_losses(
    log_prob_NV: Tensor, target_N: Tensor, label_smoothing: float, class_weight_V: Tensor | None
) -> Tensor:
    """Each token's loss, (N,): class weights and label smoothing as in F.cross_entropy."""
    if class_weight_V is not None:
        log_prob_NV = log_prob_NV * class_weight_V.to(log_prob_NV.dtype)
    target_log_prob_N = log_prob_NV.gather(1, target_N.unsqueeze(1)).squeeze(1)
    return -(1 - label_smoothing) * target_log_prob_N - label_smoothing * log_prob_NV.mean(1)


def _target_weight(class_weight_V: Tensor | None, target_N: Tensor, dtype: torch.dtype) -> Tensor:
    if class_weight_V is None:
        return torch.ones((), dtype=dtype, device=target_N.device).expand(target_N.shape)
    return class_weight_V.to(dtype)[target_N]


def _reduce(
    losses_N: Tensor,
    target_N: Tensor,
    ignored_N: Tensor,
    reduction: str,
    class_weight_V: Tensor | None,
) -> Tensor:
    losses_N = losses_N.masked_fill(ignored_N, 0)
    if reduction == "none":
        return losses_N
    if reduction == "sum":
        return losses_N.sum()
    weight_N = _target_weight(class_weight_V, target_N, losses_N.dtype)
    return losses_N.sum() / weight_N.masked_fill(ignored_N, 0).sum()


def _autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _rows_per_chunk(max_bytes: int | None, row_elements: int, dtype: torch.dtype) -> int | None:
    if max_bytes is None:
        return None
    return max(1, max_bytes // (row_elements * compute_dtype(dtype).itemsize))


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
