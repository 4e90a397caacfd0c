"""A softmax head's cross-entropy: its checks, and who computes it.

Shape suffixes: N tokens, K mixtures, D features, V classes, T targets of a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from zeta import _mixture, activations
from zeta._backends.torch_plain import check_input, compute_dtype
from zeta._formula import Formula
from zeta._loss_options import (
    LossOptions,
    LossOutputs,
    bound_values,
    check_normalizer,
    check_options,
    checked_options,
    outputs_of,
    takes_options,
)
from zeta.kernels.support import is_eager
from zeta.ops.mixture import operators, plain
from zeta.ops.mixture.chunks import ELSEWHERE, IGNORED, Found, Problem, tokens_per_chunk
from zeta.ops.mixture.inference import Mixture
from zeta.ops.mixture.shard import Shard


@overload
def mixture_cross_entropy(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    outputs: Sequence[str],
    **options: Any,
) -> tuple[Tensor, LossOutputs]: ...


@overload
def mixture_cross_entropy(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    **options: Any,
) -> Tensor: ...


@takes_options()
def mixture_cross_entropy(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, LossOutputs]:
    """Cross-entropy of a mixture of softmaxes, in log space.

    ``-log p(y)`` with ``p(v) = Σ_k prior_k · softmax(φ(hidden_k @ weight_k.T + bias_k))_v``.
    Reduction, ignored targets, label smoothing and class weights follow ``F.cross_entropy``,
    applied to the joint log-probabilities ``log p(v)`` as they stand: neither they nor the prior
    are normalised again.

    Args:
        hidden: (N, K, D), one vector per token and mixture; floating point.
        log_prior: (N, K), the mixtures' log-weights, in any floating-point dtype.
        weight: (V, D) shared by all mixtures, or (K, V, D).
        target: (N,), class indices, or ``ignore_index``; or (N, k) with ``target_probability``.
        bias: (V,) with a shared weight, (K, V) with separate ones, or None.
        **options: see :class:`zeta.ops.LossOptions`.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; with ``outputs`` a pair, of that
        and a :class:`zeta.ops.LossOutputs`. Half types have float32 statistics and sums around
        their matrix products, and the result is rounded once; under autocast the loss stays
        float32.

    The gradients are formed together with the loss, chunk by chunk (with "none", in backward);
    neither (N, K, V) logits nor probabilities are ever in memory. A second derivative,
    ``torch.func`` transforms and tensor subclasses take plain operations, which hold them.

    Raises:
        TypeError: a tensor that must be floating point is not, a target that is not integer, or
            ``logits`` that is no formula of one input.
        ValueError: shapes that do not fit, an option out of its range, target probabilities that
            are no distribution, or a formula that makes NaN or +inf of a finite logit (the latter
            two checked on CPU).
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
    here = "mixture_cross_entropy"
    chosen = checked_options(here, options)
    check_input(hidden, here, "hidden")
    formula, parameters_P = bound_formula(
        here, chosen.logits, chosen.logit_parameters, _wide_zero(hidden)
    )
    head = Mixture(hidden, log_prior, weight, bias, formula, parameters_P)
    return cross_entropy(here, head, target, chosen)


def bound_formula(
    function: str,
    logits: Formula | None,
    given: Mapping[str, Any] | Sequence[Any] | None,
    like: Tensor,
) -> tuple[Formula, Tensor]:
    """The formula between logits and softmax, and its parameters (P,), of the dtype and device.

    Raises:
        TypeError, ValueError: as :func:`zeta._loss_options.bound_values`.
    """
    given = bound_values(function, logits, given)
    values = [_scalar(number, like) for value in given.values() for number in _numbers(value)]
    return logits or activations.identity, torch.stack(values) if values else like.new_empty(0)


def _numbers(value: Any) -> Iterable[Any]:
    """A scalar's one, or those of a vector."""
    if isinstance(value, Tensor):
        return value.flatten()
    return value if isinstance(value, tuple) else (value,)


def _scalar(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(like.device, like.dtype).reshape(())
    return torch.full((), value, dtype=like.dtype, device=like.device)


def one_softmax(
    function: str,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    logits: Formula | None,
    logit_parameters: Mapping[str, Any] | Sequence[Any] | None,
    shard: Shard | None = None,
) -> Mixture:
    """A head of one softmax: hidden (N, D), whose prior is 1."""
    _mixture.check_one_softmax(check_input, function, hidden, weight)
    zero = _wide_zero(hidden)
    formula, parameters_P = bound_formula(function, logits, logit_parameters, zero)
    log_prior_N1 = zero.expand(hidden.shape[0], 1)
    return Mixture(hidden.unsqueeze(1), log_prior_N1, weight, bias, formula, parameters_P, shard)


def cross_entropy(
    function: str, head: Mixture, target: Tensor, options: LossOptions
) -> Tensor | tuple[Tensor, LossOutputs]:
    """The loss, also where this process holds a part of the classes alone.

    Then weight and bias are that part's, targets and class weights are of all classes, and the
    result is the same on every process of the group.

    Args:
        function: whose name errors bear.
        head: what the loss is of.
        target: (N,) or (N, T).
        options: whose formula the head has already.
    """
    problem, weight_N, normalizer = _problem(function, head, target, options)
    distribution = "entropy" in options.outputs or "prediction" in options.outputs
    if options.reduction == "none":
        found = _found(problem, distribution)
        loss = found.loss_N if weight_N is None else found.loss_N * weight_N
    else:
        coefficient_N = (~problem.ignored_N).to(normalizer.dtype)
        if weight_N is not None:
            coefficient_N = coefficient_N * weight_N
        if options.reduction == "mean":
            coefficient_N = (coefficient_N / normalizer).masked_fill(problem.ignored_N, 0)
        loss, found = _weighted_sum(problem, coefficient_N, distribution)
        if options.reduction == "mean" and options.normalizer is None:
            loss = loss + 0 / normalizer  # the mean over nothing is NaN
    loss = loss if _autocast(head.hidden_NKD) else loss.to(head.hidden_NKD.dtype)
    if not options.outputs:
        return loss
    token_loss_N = found.loss_N if weight_N is None else found.loss_N * weight_N
    return loss, outputs_of(options, [v.detach() for v in (token_loss_N, *found[1:])])


def log_prob(
    function: str, head: Mixture, target: Tensor, options: LossOptions, entropy: bool
) -> tuple[Tensor, Tensor]:
    """Each token's log-probability and entropy, (N,) each, differentiable."""
    problem, _, _ = _problem(function, head, target, options)
    found = _found(problem, entropy)
    return -found.loss_N, found.entropy_N


def _found(problem: Problem, distribution: bool) -> Found:
    if _takes_operators(problem):
        return operators.found(problem, distribution)
    return plain.found(problem, distribution)


def _weighted_sum(
    problem: Problem, coefficient_N: Tensor, distribution: bool
) -> tuple[Tensor, Found]:
    if _takes_operators(problem) and not coefficient_N.requires_grad:
        return operators.weighted_loss(problem, coefficient_N, distribution)
    found = _found(problem, distribution)
    # Where a weight has no say, an infinite loss has none.
    losses_N = found.loss_N.masked_fill(coefficient_N == 0, 0)
    return (coefficient_N * losses_N).sum(), found


# ---- The problem --------------------------------------------------------------------------------


def _problem(
    function: str, head: Mixture, target: Tensor, options: LossOptions
) -> tuple[Problem, Tensor | None, Tensor]:
    """What is to be computed, the tokens' weights, and what a mean is divided by."""
    _check(function, head, target, options)
    hidden_NKD, shard = head.hidden_NKD, head.shard
    num_classes = shard.num_classes if shard else head.weight.shape[-2]
    dtype = compute_dtype(hidden_NKD.dtype)
    target_NT = target.long()  # before any comparison: -100 wraps in a narrow type
    target_NT = target_NT if target.dim() == 2 else target_NT.unsqueeze(1)
    ignored_N1 = (target_NT == options.ignore_index).all(1, keepdim=True)
    _check_values(function, target_NT, ignored_N1, options, num_classes)
    weight_N = options.token_weight
    if weight_N is not None:
        weight_N = weight_N.to(dtype)
        ignored_N1 = ignored_N1 | (weight_N == 0).unsqueeze(1)
    known_NT = target_NT.masked_fill(ignored_N1, 0)
    mass_NT, class_mass_V = _masses(known_NT, options, num_classes, shard, dtype)
    problem = Problem(
        hidden_NKD,
        head.log_prior_NK.to(dtype),
        head.weight,
        head.bias,
        head.parameters_P,
        _local_target(target_NT, shard).masked_fill(ignored_N1, IGNORED),
        mass_NT,
        class_mass_V,
        _matmul_dtype(hidden_NKD),
        _tokens_per_chunk(head, options),
        float(options.z_loss),
        head.formula,
        shard.group if shard else None,
        shard.start if shard else 0,
    )
    normalizer = options.normalizer
    if normalizer is None:
        normalizer = _total_weight(known_NT, ignored_N1.squeeze(1), weight_N, options, dtype)
    elif not isinstance(normalizer, Tensor):
        normalizer = torch.full((), normalizer, dtype=dtype, device=hidden_NKD.device)
    return problem, weight_N, normalizer.to(dtype)


def _local_target(target_NT: Tensor, shard: Shard | None) -> Tensor:
    if shard is None:
        return target_NT
    elsewhere_NT = (target_NT < shard.start) | (target_NT >= shard.stop)
    return (target_NT - shard.start).masked_fill(elsewhere_NT, ELSEWHERE)


def _masses(
    target_NT: Tensor,
    options: LossOptions,
    num_classes: int,
    shard: Shard | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """How much each target and class counts: smoothing and weights as in F.cross_entropy."""
    share, class_weight_V = options.label_smoothing, options.class_weight
    mass_NT = torch.ones_like(target_NT, dtype=dtype)
    if options.target_probability is not None:
        mass_NT = options.target_probability.to(dtype)
    if class_weight_V is not None:
        mass_NT = mass_NT * class_weight_V.to(dtype)[target_NT]
    if share == 0:
        return mass_NT, None
    if class_weight_V is None:
        class_weight_V = mass_NT.new_ones(num_classes)
    here = slice(shard.start, shard.stop) if shard else slice(None)
    return (1 - share) * mass_NT, share / num_classes * class_weight_V[here].to(dtype)


def _total_weight(
    target_NT: Tensor,
    ignored_N: Tensor,
    weight_N: Tensor | None,
    options: LossOptions,
    dtype: torch.dtype,
) -> Tensor:
    """What a mean is divided by: of soft targets, as in F.cross_entropy, the tokens alone."""
    total_N = (~ignored_N).to(dtype)
    if options.class_weight is not None and options.target_probability is None:
        total_N = total_N * options.class_weight.to(dtype)[target_NT[:, 0]]
    total_N = total_N if weight_N is None else total_N * weight_N
    return total_N.masked_fill(ignored_N, 0).sum()


def _tokens_per_chunk(head: Mixture, options: LossOptions) -> int:
    """The same for every process, whose messages must match."""
    weight, shard = head.weight, head.shard
    V = max(shard.sizes) if shard else weight.shape[-2]
    weight_elements = weight[..., :1, :].numel() * V
    return tokens_per_chunk(
        options.max_chunk_bytes,
        weight_elements * compute_dtype(weight.dtype).itemsize,
        head.hidden_NKD.shape[1],
        V,
        _matmul_dtype(head.hidden_NKD),
    )


def _takes_operators(problem: Problem) -> bool:
    """Whether nothing is active that must see the single operations."""
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    if problem.group is not None:  # which plain operations know nothing of
        return True
    masses = [m for m in (problem.mass_NT, problem.class_mass_V) if m is not None]
    tensors = [t for t in problem if isinstance(t, Tensor)]
    return (
        is_eager()
        and forward_ad._current_level < 0
        and all(type(t) in (Tensor, nn.Parameter) and not t.is_meta for t in tensors)
        and not any(m.requires_grad for m in masses)
    )


def _wide_zero(hidden: Tensor) -> Tensor:
    return hidden.new_zeros((), dtype=compute_dtype(hidden.dtype))


def _matmul_dtype(hidden: Tensor) -> torch.dtype:
    if _autocast(hidden) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(hidden.device.type)
    return hidden.dtype


def _autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


# ---- Checks -------------------------------------------------------------------------------------


def _check(function: str, head: Mixture, target: Tensor, options: LossOptions) -> None:
    hidden, shard = head.hidden_NKD, head.shard
    for name, tensor in (("weight", head.weight), ("bias", head.bias)):
        if type(tensor).__name__ == "DTensor" != type(hidden).__name__:
            raise TypeError(
                f"{function}: {name} is a DTensor and hidden is not: call the layer's loss, around "
                "which FSDP2 gathers it; split classes by zeta.distributed.vocab_parallel; or give "
                f"{name}.full_tensor()"
            )
    _mixture.check_arguments(
        check_input,
        hidden,
        head.log_prior_NK,
        head.weight,
        target,
        head.bias,
        options.class_weight,
        num_classes=shard.num_classes if shard else None,
        any_dtype=isinstance(hidden, Tensor) and _autocast(hidden),
        function=function,
        token_weight=options.token_weight,
        target_probability=options.target_probability,
    )
    check_options(function, options)


def _check_values(
    function: str, target_NT: Tensor, ignored_N1: Tensor, options: LossOptions, num_classes: int
) -> None:
    """Raise for values that make no sense, where reading them neither waits nor breaks a trace."""
    normalizer, probability = options.normalizer, options.target_probability
    if normalizer is not None and _is_read(normalizer):
        check_normalizer(function, normalizer)
    if not _is_read(target_NT):
        return
    ignored_N = ignored_N1.squeeze(1).numpy()
    _mixture.check_targets(target_NT.numpy(), ignored_N, num_classes, function=function)
    if probability is not None and _is_read(probability):
        wide_NT = probability.detach().to(compute_dtype(probability.dtype))
        epsilon = torch.finfo(probability.dtype).eps
        _mixture.check_distribution(wide_NT.numpy(), ignored_N, epsilon, function=function)


def _is_read(value: Any) -> bool:
    """Whether its values may be looked at: a number's, an eager CPU tensor's."""
    if isinstance(value, Tensor):
        return type(value) in (Tensor, nn.Parameter) and value.device.type == "cpu" and is_eager()
    return isinstance(value, int | float)
