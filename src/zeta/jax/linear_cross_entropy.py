"""One softmax over a formula of linear logits on JAX arrays: its loss and its log-probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array

from zeta._formula import Formula
from zeta._loss_options import LossOptions, checked_options, takes_options
from zeta._mixture import NOTHING_IGNORED
from zeta.jax.head_loss import cross_entropy, log_prob, one_softmax


@takes_options()
def linear_cross_entropy(
    hidden: Array,
    weight: Array,
    target: Array,
    bias: Array | None = None,
    *,
    axis_name: str | None = None,
    **options: Any,
) -> Any:
    """Cross-entropy of a softmax over a formula of linear logits, which are never all in memory.

    ``-log softmax(φ(hidden @ weight.T + bias))_y``, φ any formula of one input: the mixture's loss
    (:func:`mixture_cross_entropy`) with one mixture.

    Args:
        hidden: (N, D), floating point.
        weight: (V, D).
        target: (N,), class indices, or ``ignore_index``; or (N, k) with ``target_probability``.
        bias: (V,) or None.
        axis_name: inside ``jax.shard_map``, the axis that weight, bias and class_weight are split
            along by classes, in equal parts.
        **options: see :class:`zeta.ops.LossOptions`. Ignored tokens are computed, and count for
            nothing.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; half types are computed in
        float32 and rounded once. With ``outputs`` a pair, of that and a
        :class:`zeta.ops.LossOutputs`.

    Raises:
        TypeError, ValueError, IndexError: as :func:`mixture_cross_entropy`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from zeta.activations import softcap
        >>> from zeta.jax import linear_cross_entropy
        >>> hidden, weight, target = jnp.ones((5, 3)), jnp.zeros((7, 3)), jnp.arange(5)
        >>> loss = linear_cross_entropy(hidden, weight, target, logits=softcap)
        >>> round(loss.item(), 4)  # log 7
        1.9459
        >>> def of_cap(cap):
        ...     return linear_cross_entropy(
        ...         hidden, 10 * hidden, target, logits=softcap, logit_parameters={"cap": cap}
        ...     )
        >>> bool(abs(jax.grad(of_cap)(30.0)) < 1e-6)  # equal logits, whatever the cap
        True

    Source: Wijmans et al. 2025, Cut Your Losses in Large-Vocabulary Language Models, for logits
    that are never materialised.
    """
    here = "linear_cross_entropy"
    head = one_softmax(here, hidden, weight, bias)
    return cross_entropy(here, head, target, checked_options(here, options), axis_name)


def linear_log_prob(
    hidden: Array,
    weight: Array,
    target: Array,
    bias: Array | None = None,
    *,
    logits: Formula | None = None,
    logit_parameters: Mapping[str, Any] | Sequence[Any] | None = None,
    entropy: bool = False,
    axis_name: str | None = None,
) -> Array | tuple[Array, Array]:
    """Log-probabilities of target tokens, and entropies, for policies and preferences.

    ``log softmax(φ(hidden @ weight.T + bias))_y`` and ``-Σ_v p_v·log p_v``, exact under any
    upstream gradient. Logits are never all in memory; the derivative forms them again.

    Args:
        hidden, weight, bias, logits, logit_parameters, axis_name: as
            :func:`linear_cross_entropy` takes them.
        target: (N,), class indices.
        entropy: whether the entropies are wanted too.

    Returns:
        (N,) log-probabilities, in float32 for half types, whose rounding would spoil differences
        of two; with ``entropy`` a pair of these and the entropies, (N,).

    Raises:
        TypeError, ValueError, IndexError: as :func:`mixture_cross_entropy`.

    Example, of a policy gradient with an entropy bonus:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from zeta.jax import linear_log_prob
        >>> target, advantage = jnp.arange(5), jnp.linspace(-1, 1, 5)
        >>> @jax.grad
        ... def step(weight, hidden):
        ...     log_prob, entropy = linear_log_prob(hidden, weight, target, entropy=True)
        ...     return (-(advantage * log_prob) - 0.01 * entropy).mean()
        >>> step(jnp.ones((7, 3)), jnp.ones((5, 3))).shape
        (7, 3)

    Source: Williams 1992 for the gradient of a policy; as :func:`linear_cross_entropy`.
    """
    here = "linear_log_prob"
    options = LossOptions(
        logits=logits,
        logit_parameters=logit_parameters,
        ignore_index=NOTHING_IGNORED,
        reduction="none",
        outputs=("entropy",) if entropy else (),
    )
    head = one_softmax(here, hidden, weight, bias)
    found = log_prob(here, head, target, options, axis_name)
    return found if entropy else found[0]
