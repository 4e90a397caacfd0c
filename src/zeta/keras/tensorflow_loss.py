"""The cross-entropy of a mixture of softmaxes on TensorFlow, eager, in a graph or under XLA.

Shape suffixes: C tokens of a chunk, N all tokens, K mixtures, D features, V classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from zeta._backends.tensorflow import check_input, compute_dtype
from zeta._mixture import (
    LossOptions,
    check_arguments,
    check_options,
    check_targets,
    mixture_logits,
    token_losses,
)


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
    """What :func:`zeta.keras.mixture_cross_entropy` is on the TensorFlow backend."""
    check_arguments(check_input, hidden, log_prior, weight, target, bias, class_weight)
    check_options(reduction, label_smoothing, max_chunk_bytes)
    hidden, log_prior, weight, target = map(
        tf.convert_to_tensor, (hidden, log_prior, weight, target)
    )
    dtype = compute_dtype(hidden.dtype)
    classes = _Classes(weight.shape[-2])
    target = tf.cast(target, tf.int64)  # before any comparison: -100 wraps in a narrow type
    ignored = target == ignore_index
    _check_targets(target, ignored, classes.count)
    target = tf.where(ignored, tf.zeros_like(target), target)
    target_weight = tf.ones_like(target, dtype)
    if class_weight is not None:
        class_weight = tf.stop_gradient(tf.cast(class_weight, dtype))
        target_weight = tf.gather(class_weight, classes.index(target))
    target_weight = tf.where(ignored, tf.zeros_like(target_weight), target_weight)
    options = LossOptions(label_smoothing, max_chunk_bytes)
    tokens = _Tokens(target, ignored, target_weight)
    # In the arithmetic's dtype, so that the chunks' gradients add up in it.
    wide_bias = () if bias is None else (tf.cast(bias, dtype),)
    losses = _each(options, classes, tokens, class_weight, hidden.dtype)(
        hidden, tf.cast(log_prior, dtype), tf.cast(weight, dtype), *wide_bias
    )
    return tf.cast(_reduced(losses, target_weight, reduction), hidden.dtype)


class _Tokens(NamedTuple):
    """What is known of every token: class index, whether it is ignored, its class's weight."""

    target_N: Tensor
    ignored_N: Tensor
    weight_N: Tensor


@dataclass(frozen=True)
class _Classes:
    """Operations over the classes, the last axis."""

    count: int

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        return _log_sum_exp(logits)

    def sum(self, values: Tensor) -> Tensor:
        return tf.reduce_sum(values, -1)

    def at(self, values: Tensor, target: Tensor) -> Tensor:
        """NaN where there is no such class."""
        rows = tf.reshape(values, (-1, self.count))
        leading = tf.shape(values)[:-1]
        index, exists = (
            tf.broadcast_to(tf.reshape(t, (-1, *[1] * (values.shape.rank - 2))), leading)
            for t in (self.index(target), self._exists(target))
        )
        row = tf.range(tf.size(index, index.dtype))
        # Not tf.gather, whose gradient takes three times a matrix product's time.
        found = tf.gather_nd(rows, tf.stack([row, tf.reshape(index, (-1,))], 1))
        found = tf.reshape(found, leading)
        return tf.where(exists, found, tf.constant(float("nan"), found.dtype))

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
    tokens: _Tokens,
    class_weight_V: Tensor | None,
    dtype: tf.DType,
) -> Callable[..., Tensor]:
    """Every token's loss, (N,), as a function of hidden, log_prior, weight and perhaps bias.

    Chunk by chunk; the gradient computes each chunk again.
    """

    def chunk_losses(
        hidden_CKD: Tensor, log_prior_CK: Tensor, decoder: Sequence[Tensor], chunk: _Tokens
    ) -> Tensor:
        weight, bias = (*(tf.cast(p, dtype) for p in decoder), None)[:2]
        return token_losses(
            ops,
            tf.reduce_logsumexp,
            classes,
            tf.cast(mixture_logits(tf, hidden_CKD, weight, bias), log_prior_CK.dtype),
            log_prior_CK,
            *chunk,
            class_weight_V,
            options.label_smoothing,
        )

    @tf.custom_gradient
    def each(hidden_NKD: Tensor, log_prior_NK: Tensor, *parameters: Tensor) -> Any:
        # An eager tape records what happens here all the same, and would keep every chunk.
        hidden_NKD, log_prior_NK, *decoder = map(
            tf.stop_gradient, (hidden_NKD, log_prior_NK, *parameters)
        )
        chunks = _Chunks(options, hidden_NKD, decoder[0])
        given = tuple(map(chunks.split, (hidden_NKD, log_prior_NK, *tokens)))

        def losses(i: Tensor) -> Tensor:
            hidden, log_prior, *chunk = (t[i] for t in given)
            return chunk_losses(hidden, log_prior, decoder, _Tokens(*chunk))

        def gradient(upstream_N: Tensor) -> list[Tensor]:
            upstream = chunks.split(upstream_N)

            def add_chunk(i: Tensor, sums: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
                hidden, log_prior, *chunk = (t[i] for t in given)
                with tf.GradientTape() as tape:
                    tape.watch((hidden, log_prior, decoder))
                    values = chunk_losses(hidden, log_prior, decoder, _Tokens(*chunk))
                d_tokens, d_decoder = tape.gradient(
                    values, ([hidden, log_prior], list(decoder)), upstream[i]
                )
                return [s + d for s, d in zip(sums, d_decoder, strict=True)], d_tokens

            zeros = [tf.zeros_like(p) for p in decoder]
            d_decoder, d_tokens = chunks.loop(
                add_chunk, zeros, [hidden_NKD.dtype, log_prior_NK.dtype]
            )
            return [*d_tokens, *d_decoder]

        _, (losses_N,) = chunks.loop(
            lambda i, nothing: (nothing, [losses(i)]), [], [log_prior_NK.dtype]
        )
        return losses_N, gradient

    return each


class _Chunks:
    """N tokens as even chunks; the last is filled up with ignored ones."""

    def __init__(self, options: LossOptions, hidden_NKD: Tensor, weight: Tensor) -> None:
        self.tokens = tf.shape(hidden_NKD)[0]
        row_elements = hidden_NKD.shape[1] * weight.shape[-2]
        most = options.most_rows(row_elements, weight.dtype.size)
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


def _reduced(losses_N: Tensor, weight_N: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses_N
    total = tf.reduce_sum(losses_N)
    if reduction == "sum":
        return total
    count = tf.reduce_sum(weight_N)
    # Over nothing it is NaN, as in F.cross_entropy, with zero gradients.
    nothing = count == 0
    mean = total / tf.where(nothing, tf.ones_like(count), count)
    return tf.where(nothing, tf.constant(float("nan"), mean.dtype), mean)


def _check_targets(target_N: Tensor, ignored_N: Tensor, num_classes: int) -> None:
    """Only where it costs no wait for a device and breaks no trace."""
    if tf.executing_eagerly() and "CPU" in target_N.device:
        bad_N = ~ignored_N & ((target_N < 0) | (target_N >= num_classes))
        check_targets(target_N[bad_N].numpy(), num_classes)
