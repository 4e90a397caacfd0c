"""The cross-entropy of a mixture of softmaxes on Keras tensors: each backend's own."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from zeta import activations
from zeta._loss_options import checked_options, takes_options
from zeta.keras.functions import as_tensor


@takes_options()
def mixture_cross_entropy(
    hidden: Any,
    log_prior: Any,
    weight: Any,
    target: Any,
    bias: Any | None = None,
    **options: Any,
) -> Any:
    """Cross-entropy of a mixture of softmaxes, in log space, without all logits in memory.

    ``-log p(y)`` with ``p(v) = Σ_k prior_k · softmax(φ(hidden_k @ weight_k.T + bias_k))_v``.
    Reduction, ignored targets, label smoothing and class weights follow PyTorch's
    ``F.cross_entropy``, applied to the joint log-probabilities ``log p(v)`` as they stand.

    On the JAX backend it is :func:`zeta.jax.mixture_cross_entropy`, on the PyTorch backend
    :func:`zeta.ops.mixture_cross_entropy`. On TensorFlow, chunks of tokens are computed one after
    another and again in backward, and first derivatives alone can be had.

    Args:
        hidden: (N, K, D), one vector per token and mixture; floating point. It and what follows
            are tensors of Keras's backend, variables or NumPy arrays.
        log_prior: (N, K), the mixtures' log-weights, in any floating-point dtype.
        weight: (V, D) shared by all mixtures, or (K, V, D).
        target: (N,), class indices, or ``ignore_index``; or (N, k) with ``target_probability``.
        bias: (V,) with a shared weight, (K, V) with separate ones, or None.
        **options: see :class:`zeta.ops.LossOptions`; ``logits`` may be a formula's name in the
            catalogue. On TensorFlow no gradient flows to class_weight and target_probability.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; half types are computed in
        float32 and rounded once. With ``outputs`` a pair, of that and a
        :class:`zeta.ops.LossOutputs`.

    Raises:
        TypeError: a tensor that must be floating point is not, or a target that is not integer.
        ValueError: shapes that do not fit, an option out of its range, or target probabilities
            that are no distribution.
        IndexError: a target that is no class. Where that cannot be known, in a compiled function
            or on an accelerator, such a token's loss is NaN on JAX and TensorFlow.

    Example:
        >>> from keras import ops
        >>> from zeta.keras import mixture_cross_entropy
        >>> hidden, weight = ops.zeros((5, 2, 3)), ops.zeros((7, 3))
        >>> log_prior = ops.log(ops.full((5, 2), 0.5))
        >>> loss = mixture_cross_entropy(hidden, log_prior, weight, ops.arange(5))
        >>> round(float(loss), 4)  # log 7
        1.9459

    Source: Yang et al. 2018, Breaking the Softmax Bottleneck.
    """
    chosen = vars(checked_options("mixture_cross_entropy", options))
    given = {name: as_tensor(value) for name, value in chosen.items()}
    if isinstance(given["logits"], str):
        given["logits"] = activations.get(given["logits"])
    values = given["logit_parameters"]
    if isinstance(values, Mapping):
        given["logit_parameters"] = {name: as_tensor(value) for name, value in values.items()}
    elif values is not None:
        given["logit_parameters"] = [as_tensor(value) for value in values]
    tensors = map(as_tensor, (hidden, log_prior, weight, target, bias))
    return _own(keras.backend.backend())(*tensors, **given)


def _own(backend: str) -> Callable[..., Any]:
    """The function of Keras's backend, without importing another framework."""
    # No `match`, which TensorFlow's AutoGraph cannot read and warns of.
    if backend == "jax":
        from zeta import jax

        return jax.mixture_cross_entropy
    if backend == "torch":
        from zeta import ops

        return ops.mixture_cross_entropy
    if backend == "tensorflow":
        from zeta.keras import tensorflow_loss

        return tensorflow_loss.mixture_cross_entropy
    raise NotImplementedError(
        f"mixture_cross_entropy: Keras's backend {backend!r} is not supported; "
        "accepted: jax, tensorflow, torch"
    )
