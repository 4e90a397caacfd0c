"""The cross-entropy of a mixture of softmaxes on JAX arrays, whole or split along the classes.

Shape suffixes: N tokens, K mixtures, V classes.
"""

from typing import Any

from jax import Array
from jax.nn import logsumexp

from zeta import _mixture
from zeta._loss_options import checked_options, takes_options
from zeta.jax.classes import Classes
from zeta.jax.head_loss import Head, cross_entropy


@takes_options()
def mixture_cross_entropy(
    hidden: Array,
    log_prior: Array,
    weight: Array,
    target: Array,
    bias: Array | None = None,
    *,
    axis_name: str | None = None,
    **options: Any,
) -> Any:
    """Cross-entropy of a mixture of softmaxes, in log space, without all logits in memory.

    ``-log p(y)`` with ``p(v) = Σ_k prior_k · softmax(φ(hidden_k @ weight_k.T + bias_k))_v``.
    Reduction, ignored targets, label smoothing and class weights follow PyTorch's
    ``F.cross_entropy``, applied to the joint log-probabilities ``log p(v)`` as they stand: neither
    they nor the prior are normalised again.

    Chunks of tokens are computed one after another. With reduction "mean" or "sum" the gradients
    are formed beside the loss, so that nothing is computed twice; with "none" the derivative
    computes each chunk again. Both modes of differentiation work, of any order, by every array
    among the arguments and options. Gradients of half-precision weights are added up in float32.

    Args:
        hidden: (N, K, D), one vector per token and mixture; floating point.
        log_prior: (N, K), the mixtures' log-weights, in any floating-point dtype.
        weight: (V, D) shared by all mixtures, or (K, V, D).
        target: (N,), class indices, or ``ignore_index``; or (N, k) with ``target_probability``.
        bias: (V,) with a shared weight, (K, V) with separate ones, or None.
        axis_name: inside ``jax.shard_map``, the axis that weight, bias and class_weight are split
            along by classes, in equal parts; everything else is whole on every device, and so is
            the result.
        **options: see :class:`zeta.ops.LossOptions`. Ignored tokens are computed, and count for
            nothing.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; half types are computed in
        float32 and rounded once. With ``outputs`` a pair, of that and a
        :class:`zeta.ops.LossOutputs`.

    Raises:
        TypeError: an array that must be floating point is not, a target that is not integer, or
            ``logits`` that is no formula of one input.
        ValueError: shapes that do not fit, an option out of its range, or target probabilities
            that are no distribution.
        IndexError: a target that is no class. Where values cannot be known, under ``jax.jit`` or
            on an accelerator, the loss of a token whose target is no class is NaN. So is that of a
            formula that makes NaN or +inf of a finite logit.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.jax import mixture_cross_entropy
        >>> hidden, weight = jnp.zeros((5, 2, 3)), jnp.zeros((7, 3))
        >>> log_prior = jnp.log(jnp.full((5, 2), 0.5))
        >>> loss = mixture_cross_entropy(hidden, log_prior, weight, jnp.arange(5))
        >>> round(loss.item(), 4)  # log 7
        1.9459

    Source: Yang et al. 2018, Breaking the Softmax Bottleneck.
    """
    here = "mixture_cross_entropy"
    head = Head(hidden, log_prior, weight, bias)
    return cross_entropy(here, head, target, checked_options(here, options), axis_name)


def mixture_log_prob(logits_NKV: Array, log_prior_NK: Array) -> Array:
    """log p(v) of every class, (N, V), from every mixture's logits."""
    V = logits_NKV.shape[-1]
    classes = Classes(V, V, None)
    return _mixture.mixture_log_prob(logsumexp, classes, logits_NKV, log_prior_NK)
