"""The cross-entropy of a mixture of softmaxes on Keras tensors: each backend's own."""

from collections.abc import Callable
from typing import Any

import keras

from zeta.keras.functions import as_tensor


def mixture_cross_entropy(
    hidden: Any,
    log_prior: Any,
    weight: Any,
    target: Any,
    bias: Any | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: Any | None = None,
    max_chunk_bytes: int | None = None,
) -> Any:
    """Cross-entropy of a mixture of softmaxes, in log space, without all logits in memory.

    ``-log p(y)`` with ``p(v) = Σ_k prior_k · softmax(hidden_k @ weight_k.T + bias_k)_v``.
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
        target: (N,), class indices, or ``ignore_index``.
        bias: (V,) with a shared weight, (K, V) with separate ones, or None.
        ignore_index: targets of this value contribute neither loss nor gradient.
        reduction: "none", "mean" or "sum". The mean over no target at all is NaN; its gradients
            are zero.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        class_weight: (V,), the weight of each class; no gradient flows to it.
        max_chunk_bytes: bound on one chunk's logits, in bytes. None: the backend's default,
            16 MiB on JAX and TensorFlow.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; half types are computed in
        float32 and rounded once.

    Raises:
        TypeError: a tensor that must be floating point is not, or a target that is not integer.
        ValueError: shapes that do not fit, or an option out of its range.
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
    tensors = map(as_tensor, (hidden, log_prior, weight, target, bias))
    return _own(keras.backend.backend())(
        *tensors,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        class_weight=as_tensor(class_weight),
        max_chunk_bytes=max_chunk_bytes,
    )


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
