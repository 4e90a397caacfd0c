"""One softmax over a formula of linear logits: its loss and its log-probabilities.

The mixture's engine (`zeta.ops.mixture`) with one mixture. Shape suffixes: N tokens, D features,
V classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from zeta._formula import Formula
from zeta._loss_options import LossOptions, LossOutputs, checked_options, takes_options
from zeta.ops.mixture.cross_entropy import cross_entropy, log_prob, one_softmax


@overload
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    outputs: Sequence[str],
    **options: Any,
) -> tuple[Tensor, LossOutputs]: ...


@overload
def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None, **options: Any
) -> Tensor: ...


@takes_options()
def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None, **options: Any
) -> Tensor | tuple[Tensor, LossOutputs]:
    """Cross-entropy of a softmax over a formula of linear logits, which are never all in memory.

    ``-log softmax(φ(hidden @ weight.T + bias))_y``, φ any formula of one input.

    Args:
        hidden: (N, D), floating point.
        weight: (V, D).
        target: (N,), class indices, or ``ignore_index``; or (N, k) with ``target_probability``.
        bias: (V,) or None.
        **options: see :class:`zeta.ops.LossOptions`.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; with ``outputs`` a pair, of that
        and a :class:`zeta.ops.LossOutputs`. Half types have float32 statistics and sums around
        their matrix products, and the result is rounded once; under autocast the loss stays
        float32.

    The gradients are formed together with the loss, chunk by chunk, by three matrix products (with
    "none" in backward, by a fourth). A second derivative, ``torch.func`` transforms and tensor
    subclasses take plain operations, which hold all logits.

    Raises:
        TypeError: a tensor that must be floating point is not, a target that is not integer, or
            ``logits`` that is no formula of one input.
        ValueError: shapes that do not fit, an option out of its range, target probabilities that
            are no distribution, or a formula that makes NaN or +inf of a finite logit (the latter
            two checked on CPU).
        IndexError: a target that is no class (checked on CPU).

    Example:
        >>> import torch
        >>> from zeta.activations import softcap
        >>> from zeta.ops import linear_cross_entropy
        >>> hidden, weight, target = torch.ones(5, 3), torch.zeros(7, 3), torch.arange(5)
        >>> linear_cross_entropy(hidden, weight, target, logits=softcap)  # log 7
        tensor(1.9459)
        >>> loss, of_tokens = linear_cross_entropy(hidden, weight, target, outputs=("entropy",))
        >>> of_tokens.entropy
        tensor([1.9459, 1.9459, 1.9459, 1.9459, 1.9459])

    Source: Wijmans et al. 2025, Cut Your Losses in Large-Vocabulary Language Models, for logits
    that are never materialised.
    """
    here = "linear_cross_entropy"
    chosen = checked_options(here, options)
    head = one_softmax(here, hidden, weight, bias, chosen.logits, chosen.logit_parameters)
    return cross_entropy(here, head, target, chosen)


def linear_log_prob(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    logits: Formula | None = None,
    logit_parameters: Mapping[str, Any] | Sequence[Any] | None = None,
    entropy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probabilities of target tokens, and entropies, for policies and preferences.

    ``log softmax(φ(hidden @ weight.T + bias))_y`` and ``-Σ_v p_v·log p_v``, exact under any
    upstream gradient. Logits are never all in memory; backward forms them again.

    Args:
        hidden, weight, bias, logits, logit_parameters: as :func:`linear_cross_entropy` takes them.
        target: (N,), class indices.
        entropy: whether the entropies are wanted too.

    Returns:
        (N,) log-probabilities, in float32 for half types, whose rounding would spoil differences
        of two; with ``entropy`` a pair of these and the entropies, (N,).

    Raises:
        TypeError, ValueError, IndexError: as :func:`linear_cross_entropy`.

    Example, of a policy gradient with an entropy bonus:
        >>> import torch
        >>> from zeta.ops import linear_log_prob
        >>> hidden, weight = torch.randn(5, 3, requires_grad=True), torch.randn(7, 3)
        >>> log_prob, entropy = linear_log_prob(hidden, weight, torch.arange(5), entropy=True)
        >>> advantage = torch.randn(5)
        >>> (-(advantage * log_prob) - 0.01 * entropy).mean().backward()

    Source: Williams 1992 for the gradient of a policy; as :func:`linear_cross_entropy`.
    """
    here = "linear_log_prob"
    head = one_softmax(here, hidden, weight, bias, logits, logit_parameters)
    options = LossOptions(ignore_index=torch.iinfo(torch.int64).min, reduction="none")
    found = log_prob(here, head, target, options, entropy)
    return found if entropy else found[0]
