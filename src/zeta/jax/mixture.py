"""The cross-entropy of a mixture of softmaxes on JAX arrays, whole or split along the classes.

Shape suffixes: C tokens of a chunk, N all tokens, K mixtures, D features, V classes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import logsumexp

from zeta import _mixture
from zeta._backends.jax import check_input, compute_dtype
from zeta._mixture import (
    LossOptions,
    check_arguments,
    check_options,
    check_targets,
    mixture_logits,
    token_losses,
)


def mixture_cross_entropy(
    hidden: Array,
    log_prior: Array,
    weight: Array,
    target: Array,
    bias: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: Array | None = None,
    max_chunk_bytes: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Cross-entropy of a mixture of softmaxes, in log space, without all logits in memory.

    ``-log p(y)`` with ``p(v) = Σ_k prior_k · softmax(hidden_k @ weight_k.T + bias_k)_v``.
    Reduction, ignored targets, label smoothing and class weights follow PyTorch's
    ``F.cross_entropy``, applied to the joint log-probabilities ``log p(v)`` as they stand: neither
    they nor the prior are normalised again.

    Chunks of tokens are computed one after another. With reduction "mean" or "sum" the gradients
    are formed beside the loss, so that nothing is computed twice; with "none" the derivative
    computes each chunk again. Both modes of differentiation work, of any order. Gradients of
    half-precision weights are added up in float32.

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
        class_weight: (V,), the weight of each class; no gradient flows to it.
        max_chunk_bytes: bound on one chunk's logits, in bytes. None: 16 MiB.
        axis_name: inside ``jax.shard_map``, the axis that weight, bias and class_weight are split
            along by classes, in equal parts; everything else is whole on every device, and so is
            the result.

    Returns:
        A scalar, or (N,) with reduction "none", of hidden's dtype; half types are computed in
        float32 and rounded once.

    Raises:
        TypeError: an array that must be floating point is not, or a target that is not integer.
        ValueError: shapes that do not fit, or an option out of its range.
        IndexError: a target that is no class. Where that cannot be known, under ``jax.jit`` or
            on an accelerator, such a token's loss is NaN.

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
    check_arguments(check_input, hidden, log_prior, weight, target, bias, class_weight)
    check_options(reduction, label_smoothing, max_chunk_bytes)
    hidden, log_prior, weight, target = map(jnp.asarray, (hidden, log_prior, weight, target))
    dtype = compute_dtype(hidden.dtype)
    classes = _Classes.of(weight, axis_name)
    _check_targets(target, ignore_index, classes.count)
    if class_weight is not None:
        class_weight = lax.stop_gradient(jnp.asarray(class_weight, dtype))
    # In the arithmetic's dtype, so that the chunks' gradients add up in it.
    wide_bias = None if bias is None else jnp.asarray(bias, dtype)
    parameters = _Parameters(hidden, log_prior.astype(dtype), weight.astype(dtype), wide_bias)
    tokens = _Tokens.of(target, ignore_index, class_weight, classes, dtype)
    options = LossOptions(label_smoothing, max_chunk_bytes)
    if reduction == "none":
        loss = _each(options, classes, parameters, tokens, class_weight)
    else:
        loss = _total(options, classes, parameters, tokens, class_weight)
    if reduction == "mean":
        loss = _divided(loss, jnp.sum(tokens.weight_N))
    return loss.astype(hidden.dtype)


def mixture_log_prob(logits_NKV: Array, log_prior_NK: Array) -> Array:
    """log p(v) of every class, (N, V), from every mixture's logits."""
    V = logits_NKV.shape[-1]
    classes = _Classes(V, V, None)
    return _mixture.mixture_log_prob(logsumexp, classes, logits_NKV, log_prior_NK)


class _Parameters(NamedTuple):
    """What gradients flow to."""

    hidden_NKD: Array
    log_prior_NK: Array
    weight: Array
    bias: Array | None


class _Tokens(NamedTuple):
    """What is known of every token.

    Attributes:
        target_N: class indices; 0 where ignored.
        ignored_N: whether the token counts for nothing.
        weight_N: the target class's weight; 0 where ignored.
    """

    target_N: Array
    ignored_N: Array
    weight_N: Array

    @classmethod
    def of(
        cls,
        target_N: Array,
        ignore_index: int,
        class_weight_V: Array | None,
        classes: "_Classes",
        dtype: Any,
    ) -> "_Tokens":
        target_N = _wide(target_N)
        ignored_N = target_N == ignore_index
        target_N = jnp.where(ignored_N, 0, target_N)
        weight_N = jnp.ones(target_N.shape, dtype)
        if class_weight_V is not None:
            weight_N = classes.at(class_weight_V[None], target_N)
        return cls(target_N, ignored_N, jnp.where(ignored_N, 0, weight_N))


@dataclass(frozen=True)
class _Classes:
    """The classes, whole or as the part of them that this device holds.

    Attributes:
        count: of all classes, on all devices.
        here: how many of them are on this device.
        axis_name: the axis of ``jax.shard_map`` that they are split along; None: not split.
    """

    count: int
    here: int
    axis_name: str | None

    @classmethod
    def of(cls, weight: Array, axis_name: str | None) -> "_Classes":
        here = weight.shape[-2]
        if axis_name is None:
            return cls(here, here, None)
        if axis_name not in jax.typeof(weight).manual_axis_type.varying:
            raise ValueError(
                f"mixture_cross_entropy: weight is not split along {axis_name!r}; call it inside "
                "jax.shard_map with check_vma=True, the default, and a weight whose in_specs name "
                "this axis"
            )
        return cls(here * lax.axis_size(axis_name), here, axis_name)

    def log_sum_exp(self, logits: Array) -> Array:
        here = _log_sum_exp(logits)
        if self.axis_name is None:
            return here
        largest = lax.pmax(lax.stop_gradient(here), self.axis_name)
        return largest + jnp.log(self.over_devices(jnp.exp(here - largest)))

    def sum(self, values: Array) -> Array:
        return self.over_devices(jnp.sum(values, -1))

    def over_devices(self, here: Array) -> Array:
        return here if self.axis_name is None else lax.psum(here, self.axis_name)

    def at(self, values: Array, target: Array) -> Array:
        """NaN where there is no such class."""
        exists = (target >= 0) & (target < self.count)
        if self.axis_name is not None:
            target = target - self.here * lax.axis_index(self.axis_name)
        is_here = (target >= 0) & (target < self.here)
        index, exists, is_here = (
            jnp.expand_dims(t, tuple(range(1, values.ndim)))
            for t in (jnp.where(is_here, target, 0), exists, is_here)
        )
        found = jnp.where(is_here, jnp.take_along_axis(values, index, -1), 0)
        return jnp.squeeze(jnp.where(exists, self.over_devices(found), jnp.nan), -1)


@jax.custom_jvp
def _log_sum_exp(logits: Array) -> Array:
    """logsumexp over the last axis, whose derivative forms the softmax anew."""
    return logsumexp(logits, -1)


@_log_sum_exp.defjvp
def _log_sum_exp_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (logits,), (tangent,) = primals, tangents
    y = _log_sum_exp(logits)
    return y, jnp.sum(jnp.exp(logits - y[..., None]) * tangent, -1)


def _chunk_losses(
    options: LossOptions,
    classes: _Classes,
    parameters: _Parameters,
    tokens: _Tokens,
    class_weight_V: Array | None,
) -> Array:
    """The losses of one chunk's tokens, (C,)."""
    hidden_CKD, log_prior_CK, *decoder = parameters
    weight, bias = (None if p is None else p.astype(hidden_CKD.dtype) for p in decoder)
    return token_losses(
        jnp,
        logsumexp,
        classes,
        mixture_logits(jnp, hidden_CKD, weight, bias).astype(log_prior_CK.dtype),
        log_prior_CK,
        *tokens,
        class_weight_V,
        options.label_smoothing,
    )


def _each(
    options: LossOptions,
    classes: _Classes,
    parameters: _Parameters,
    tokens: _Tokens,
    class_weight_V: Array | None,
) -> Array:
    """Every token's loss, (N,); the derivative computes each chunk again."""

    @jax.checkpoint
    def losses(hidden: Array, log_prior: Array, tokens: _Tokens) -> Array:
        chunk = parameters._replace(hidden_NKD=hidden, log_prior_NK=log_prior)
        return _chunk_losses(options, classes, chunk, tokens, class_weight_V)

    _, losses_N = _scan(
        lambda carry, *chunk: (carry, losses(*chunk)), None, options, parameters, tokens
    )
    return losses_N


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _total(
    options: LossOptions,
    classes: _Classes,
    parameters: _Parameters,
    tokens: _Tokens,
    class_weight_V: Array | None,
) -> Array:
    """The sum of all losses."""
    return jnp.sum(_each(options, classes, parameters, tokens, class_weight_V))


@_total.defjvp
def _total_derivative(
    options: LossOptions, classes: _Classes, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Array]:
    """The gradient is formed beside the loss, a chunk at a time; a tangent's image is linear in it.

    So both modes of differentiation work, and backward is one multiplication.
    """
    parameters, tokens, class_weight_V = primals

    def chunk_total(chunk: _Parameters, tokens: _Tokens) -> tuple[Array, Array]:
        losses_C = _chunk_losses(options, classes, chunk, tokens, class_weight_V)
        return jnp.sum(losses_C), losses_C

    def add_chunk(sums: Any, hidden: Array, log_prior: Array, tokens: _Tokens) -> tuple[Any, Any]:
        chunk = parameters._replace(hidden_NKD=hidden, log_prior_NK=log_prior)
        (_, losses_C), gradients = jax.value_and_grad(chunk_total, has_aux=True)(chunk, tokens)
        d_hidden, d_log_prior, *d_decoder = gradients
        return jax.tree.map(jnp.add, sums, d_decoder), (losses_C, d_hidden, d_log_prior)

    zeros = jax.tree.map(jnp.zeros_like, [parameters.weight, parameters.bias])
    d_decoder, (losses_N, *d_tokens) = _scan(add_chunk, zeros, options, parameters, tokens)
    of_tokens = _inner_product(d_tokens, tangents[0][:2])
    of_decoder = classes.over_devices(_inner_product(d_decoder, tangents[0][2:]))
    return jnp.sum(losses_N), of_tokens + of_decoder


def _inner_product(gradients: Any, tangents: Any) -> Array:
    products = jax.tree.map(
        lambda g, t: jnp.vdot(g, t, preferred_element_type=compute_dtype(g.dtype)),
        list(gradients),
        list(tangents),
    )
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


def _scan(
    step: Callable[..., tuple[Any, Any]],
    carry: Any,
    options: LossOptions,
    parameters: _Parameters,
    tokens: _Tokens,
) -> tuple[Any, Any]:
    """``step(carry, hidden, log_prior, tokens)`` over even chunks of tokens.

    Returns:
        The last carry, and what the steps gave per token, in order.
    """
    N, K, _ = parameters.hidden_NKD.shape
    row_elements = K * parameters.weight.shape[-2]
    most = options.most_rows(row_elements, parameters.weight.dtype.itemsize)
    # By integers alone, which N may be a symbol of.
    count = -(-N // most)
    C = 1 if N == 0 else -(-N // count)  # even chunks
    per_token = (parameters.hidden_NKD, parameters.log_prior_NK, tokens)
    # The tokens that fill the last chunk up are ignored ones.
    chunks = jax.tree.map(
        lambda a: jnp.pad(
            a, [(0, count * C - N)] + [(0, 0)] * (a.ndim - 1), constant_values=a.dtype == bool
        ).reshape(count, C, *a.shape[1:]),
        per_token,
    )
    carry, given = lax.scan(lambda carry, chunk: step(carry, *chunk), carry, chunks)
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:N], given)


def _divided(total: Array, count: Array) -> Array:
    """total / count; over nothing it is NaN, as in F.cross_entropy, with zero gradients."""
    nothing = count == 0
    return jnp.where(nothing, jnp.nan, total / jnp.where(nothing, 1, count))


def _wide(target: Array) -> Array:
    """Before any comparison: -100 wraps in a narrow type."""
    return target.astype(jnp.promote_types(target.dtype, jnp.int32))


def _check_targets(target: Array, ignore_index: int, num_classes: int) -> None:
    """Only where it costs no wait for a device and breaks no trace."""
    if isinstance(target, jax.core.Tracer) or target.devices() - set(jax.devices("cpu")):
        return
    values = np.asarray(_wide(target))
    bad = (values != ignore_index) & ((values < 0) | (values >= num_classes))
    check_targets(values[bad], num_classes)
