"""The cross-entropy of a mixture of softmaxes on TensorFlow, eager, in a graph or under XLA.

Shape suffixes: C tokens of a chunk, N all tokens, K mixtures, D features, V classes, T targets of a
token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from zeta import _mixture
from zeta._backends import tensorflow as backend
from zeta._backends.tensorflow import check_input, compute_dtype
from zeta._loss_options import (
    LossOptions,
    bound_values,
    check_normalizer,
    check_options,
    checked_options,
    outputs_of,
    takes_options,
)
from zeta._mixture import Found, Tokens, mixture_logits, of_tokens, without


@takes_options()
def mixture_cross_entropy(
    hidden: Tensor,
    log_prior: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    **options: Any,
) -> Any:
    """What :func:`zeta.keras.mixture_cross_entropy` is on the TensorFlow backend."""
    here = "mixture_cross_entropy"
    chosen = checked_options(here, options)
    _mixture.check_arguments(
        check_input,
        hidden,
        log_prior,
        weight,
        target,
        bias,
        chosen.class_weight,
        token_weight=chosen.token_weight,
        target_probability=chosen.target_probability,
    )
    check_options(here, chosen)
    given = bound_values(here, chosen.logits, chosen.logit_parameters)
    hidden, log_prior, weight, target = map(
        tf.convert_to_tensor, (hidden, log_prior, weight, target)
    )
    dtype = compute_dtype(hidden.dtype)
    classes = _Classes(weight.shape[-2])
    target = tf.cast(target, tf.int64)  # before any comparison: -100 wraps in a narrow type
    _check_values(here, target, chosen, classes.count)
    # In the arithmetic's dtype, so that the chunks' gradients add up in it.
    weight = tf.cast(weight, dtype)
    like_V = tf.reshape(weight, (-1, *weight.shape[-2:]))[0, :, 0]
    wide = {
        "token_weight": _cast(chosen.token_weight, dtype),
        "normalizer": _cast(chosen.normalizer, dtype),
        "class_weight": _constant(chosen.class_weight, dtype),
        "target_probability": _constant(chosen.target_probability, dtype),
    }
    tokens, class_mass_V, weight_N, total = _mixture.weighed_targets(
        ops, classes, target, replace(chosen, **wide), like_V
    )
    decoder = [weight] if bias is None else [weight, tf.cast(bias, dtype)]
    values = [tf.reshape(tf.cast(value, dtype), ()) for value in given.values()]
    each = _each(chosen, classes, tokens, class_mass_V, len(decoder))
    found = Found(*each(hidden, tf.cast(log_prior, dtype), *decoder, *values))
    losses_N = weight_N * found.loss_C
    loss = tf.cast(_reduced(losses_N, total, chosen.reduction), hidden.dtype)
    if not chosen.outputs:
        return loss
    known = [None if t is None else tf.stop_gradient(t) for t in (losses_N, *found[1:])]
    return loss, outputs_of(chosen, known)


def _cast(value: Any, dtype: tf.DType) -> Any:
    return None if value is None else tf.cast(value, dtype)


def _constant(value: Any, dtype: tf.DType) -> Any:
    return None if value is None else tf.stop_gradient(tf.cast(value, dtype))


@dataclass(frozen=True)
class _Classes:
    """Operations over the classes, the last axis."""

    count: int

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        return _log_sum_exp(logits)

    def sum(self, values: Tensor) -> Tensor:
        return tf.reduce_sum(values, -1)

    def at(self, values_CKV: Tensor, target_CT: Tensor) -> Tensor:
        """NaN where there is no such class."""
        K = values_CKV.shape[1]
        T = tf.shape(target_CT)[1] if target_CT.shape[1] is None else target_CT.shape[1]
        rows_RV = tf.reshape(values_CKV, (-1, self.count))
        index_RT = tf.reshape(tf.tile(self.index(target_CT)[:, None], (1, K, 1)), (-1, T))
        row_RT = tf.zeros_like(index_RT) + tf.range(tf.shape(index_RT, tf.int64)[0])[:, None]
        # Not tf.gather, whose gradient takes three times a matrix product's time.
        found_RT = tf.gather_nd(rows_RV, tf.stack([row_RT, index_RT], -1))
        found_CKT = tf.reshape(found_RT, (-1, K, T))
        nan = tf.constant(float("nan"), found_CKT.dtype)
        return tf.where(self._exists(target_CT)[:, None], found_CKT, nan)

    def best(self, values_CV: Tensor) -> Tensor:
        return tf.argmax(values_CV, -1)

    def index(self, target: Tensor) -> Tensor:
        """The target class; 0 where there is no such class, since tf.gather refuses it."""
        return tf.where(self._exists(target), target, tf.zeros_like(target))

    def _exists(self, target: Tensor) -> Tensor:
        return (target >= 0) & (target < self.count)


@tf.custom_gradient
def _log_sum_exp(logits: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """logsumexp over the last axis, whose derivative forms the softmax anew."""
    y = tf.reduce_logsumexp(logits, -1)

    def gradient(upstream: Tensor) -> Tensor:
        return tf.exp(logits - y[..., None]) * upstream[..., None]

    return y, gradient


def _each(
    options: LossOptions,
    classes: _Classes,
    tokens: Tokens,
    class_mass_V: Tensor | None,
    decoders: int,
) -> Callable[..., Sequence[Tensor | None]]:
    """What is found of every token, as a function of hidden, log_prior and what all tokens share.

    That is weight and perhaps bias, ``decoders`` in number, and the parameters of the formula. The
    losses alone have a gradient. Chunk by chunk; the gradient computes each chunk again.
    """
    distribution = _mixture.wants_distribution(options)

    def of_chunk(
        hidden_CKD: Tensor, log_prior_CK: Tensor, shared: Sequence[Tensor], chunk: Tokens
    ) -> list[Tensor]:
        hidden_CKD, log_prior_CK = (
            without(ops, chunk.ignored_C, t) for t in (hidden_CKD, log_prior_CK)
        )
        dtype = hidden_CKD.dtype
        weight, bias = (*(tf.cast(p, dtype) for p in shared[:decoders]), None)[:2]
        logits_CKV = tf.cast(mixture_logits(tf, hidden_CKD, weight, bias), log_prior_CK.dtype)
        if options.logits is not None:
            values = dict(zip(options.logits.parameters, shared[decoders:], strict=True))
            logits_CKV = backend.evaluate(options.logits, (logits_CKV,), values)
        found = of_tokens(
            ops,
            tf.reduce_logsumexp,
            classes,
            logits_CKV,
            log_prior_CK,
            chunk,
            class_mass_V,
            options.z_loss,
            distribution,
        )
        return [t for t in found if t is not None]

    @tf.custom_gradient
    def each(hidden_NKD: Tensor, log_prior_NK: Tensor, *parameters: Tensor) -> Any:
        # An eager tape records what happens here all the same, and would keep every chunk.
        hidden_NKD, log_prior_NK, *shared = map(
            tf.stop_gradient, (hidden_NKD, log_prior_NK, *parameters)
        )
        chunks = _Chunks(options, hidden_NKD, shared[0])
        given = tuple(map(chunks.split, (hidden_NKD, log_prior_NK, *tokens)))

        def found(i: Tensor) -> list[Tensor]:
            hidden, log_prior, *chunk = (t[i] for t in given)
            return of_chunk(hidden, log_prior, shared, Tokens(*chunk))

        def gradient(upstream_N: Tensor, *_: Any) -> list[Tensor]:
            upstream = chunks.split(upstream_N)

            def add_chunk(i: Tensor, sums: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
                hidden, log_prior, *chunk = (t[i] for t in given)
                with tf.GradientTape() as tape:
                    tape.watch((hidden, log_prior, shared))
                    losses_C = of_chunk(hidden, log_prior, shared, Tokens(*chunk))[0]
                d_tokens, d_shared = tape.gradient(
                    losses_C,
                    ([hidden, log_prior], list(shared)),
                    upstream[i],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return [s + d for s, d in zip(sums, d_shared, strict=True)], d_tokens

            zeros = [tf.zeros_like(p) for p in shared]
            d_shared, d_tokens = chunks.loop(
                add_chunk, zeros, [hidden_NKD.dtype, log_prior_NK.dtype]
            )
            return [*d_tokens, *d_shared]

        wide = log_prior_NK.dtype
        dtypes = [wide, wide, wide, tf.int64] if distribution else [wide, wide]
        _, values = chunks.loop(lambda i, nothing: (nothing, found(i)), [], dtypes)
        return values, gradient

    return lambda *tensors: (*each(*tensors), None, None)[:4]


class _Chunks:
    """N tokens as even chunks; the last is filled up with ignored ones."""

    def __init__(self, options: LossOptions, hidden_NKD: Tensor, weight: Tensor) -> None:
        self.tokens = tf.shape(hidden_NKD)[0]
        row_elements = hidden_NKD.shape[1] * weight.shape[-2]
        most = _mixture.most_rows(options, row_elements, weight.dtype.size)
        self.count = tf.maximum(1, -(-self.tokens // most))
        self.size = tf.maximum(1, -(-self.tokens // self.count))

    def split(self, per_token: Tensor) -> Tensor:
        """(N, …) as (chunks, C, …)."""
        padding = [[0, self.count * self.size - self.tokens]] + [[0, 0]] * (
            per_token.shape.rank - 1
        )
        padded = tf.pad(per_token, padding, constant_values=per_token.dtype == tf.bool)
        return tf.reshape(padded, (self.count, self.size, *per_token.shape[1:]))

    def loop(
        self,
        step: Callable[[Tensor, Sequence[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]],
        sums: Sequence[Tensor],
        dtypes: Sequence[tf.DType],
    ) -> tuple[Sequence[Tensor], list[Tensor]]:
        """``step(i, sums)`` over chunks: the last sums, and what it gives per token, in order."""

        def body(i: Tensor, sums: Sequence[Tensor], kept: Sequence[Any]) -> tuple[Any, ...]:
            sums, given = step(i, sums)
            return i + 1, sums, [k.write(i, g) for k, g in zip(kept, given, strict=True)]

        kept = [tf.TensorArray(dtype, size=self.count) for dtype in dtypes]
        _, sums, kept = tf.while_loop(
            lambda i, *_: i < self.count,
            body,
            (tf.constant(0), list(sums), kept),
            parallel_iterations=1,  # or several chunks' logits are in memory
        )
        return sums, [k.concat()[: self.tokens] for k in kept]


def _reduced(losses_N: Tensor, total_weight: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses_N
    total = tf.reduce_sum(losses_N)
    if reduction == "sum":
        return total
    # Over nothing it is NaN, as in F.cross_entropy, with zero gradients.
    nothing = total_weight == 0
    mean = total / tf.where(nothing, tf.ones_like(total_weight), total_weight)
    return tf.where(nothing, tf.constant(float("nan"), mean.dtype), mean)


def _check_values(function: str, target: Tensor, options: LossOptions, num_classes: int) -> None:
    """Raise for values that make no sense, where that waits for no device and breaks no trace."""
    if options.normalizer is not None and _is_read(options.normalizer):
        check_normalizer(function, options.normalizer)
    if not _is_read(target):
        return
    target_NT = _mixture.several(target.numpy())
    ignored_N = (target_NT == options.ignore_index).all(1)
    _mixture.check_targets(target_NT, ignored_N, num_classes)
    probability = options.target_probability
    if probability is not None and _is_read(probability):
        wide_NT = tf.cast(probability, compute_dtype(probability.dtype)).numpy()
        epsilon = tf.experimental.numpy.finfo(probability.dtype.as_numpy_dtype).eps
        _mixture.check_distribution(wide_NT, ignored_N, float(epsilon))


def _is_read(value: Any) -> bool:
    if not tf.is_tensor(value):
        return isinstance(value, int | float)
    return tf.executing_eagerly() and "CPU" in value.device
