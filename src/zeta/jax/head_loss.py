"""A softmax head's loss on JAX arrays and its gradients, chunk by chunk of tokens.

One softmax is a mixture of one. Shape suffixes: C tokens of a chunk, N all tokens, K mixtures,
D features, V classes, T targets of a token.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import logsumexp

from zeta import _mixture
from zeta._backends import jax as backend
from zeta._backends.jax import check_input, compute_dtype
from zeta._formula import Formula
from zeta._loss_options import (
    LossOptions,
    bound_values,
    check_normalizer,
    check_options,
    outputs_of,
)
from zeta._mixture import Found, Tokens, mixture_logits, of_tokens, without
from zeta.jax.classes import Classes


class Head(NamedTuple):
    """What a loss is of, as the user gave it."""

    hidden_NKD: Array
    log_prior_NK: Array
    weight: Array
    bias: Array | None


class _PerToken(NamedTuple):
    """What gradients flow to and tokens have each: split along the first axis."""

    hidden_NKD: Array
    log_prior_NK: Array
    mass_NT: Array
    weight_N: Array


class _Shared(NamedTuple):
    """What gradients flow to and all tokens share; the classes of all but φ's parameters."""

    weight: Array
    bias: Array | None
    class_mass_V: Array | None
    parameters: dict[str, Array]


@dataclass(frozen=True)
class _Problem:
    """What decides a loss beside the arrays: compiled programs differ by it."""

    classes: Classes
    formula: Formula | None
    z_loss: float
    distribution: bool
    most_rows: int


def one_softmax(function: str, hidden: Array, weight: Array, bias: Array | None) -> Head:
    """A head of one softmax: hidden (N, D), whose prior is 1."""
    _mixture.check_one_softmax(check_input, function, hidden, weight)
    hidden = jnp.asarray(hidden)
    log_prior_N1 = jnp.zeros((hidden.shape[0], 1), compute_dtype(hidden.dtype))
    return Head(hidden[:, None], log_prior_N1, weight, bias)


def cross_entropy(
    function: str, head: Head, target: Array, options: LossOptions, axis_name: str | None
) -> Any:
    """The loss, and with ``outputs`` a pair.

    Args:
        function: whose name errors bear.
        head: what the loss is of.
        target: (N,) or (N, T).
        options: the options.
        axis_name: the axis of ``jax.shard_map`` that the classes are split along, or None.
    """
    arguments, total_weight = _arguments(function, head, target, options, axis_name)
    weight_N = arguments[1].weight_N
    if options.reduction == "none":
        found = _each(*arguments)
        loss = weight_N * found.loss_C
    else:
        loss, found = _total(*arguments)
    if options.reduction == "mean":
        loss = _divided(loss, total_weight)
    loss = loss.astype(head.hidden_NKD.dtype)
    if not options.outputs:
        return loss
    values = lax.stop_gradient((weight_N * found.loss_C, *found[1:]))
    return loss, outputs_of(options, values)


def log_prob(
    function: str, head: Head, target: Array, options: LossOptions, axis_name: str | None
) -> tuple[Array, Array]:
    """Each token's log-probability and, if that is among the outputs, its entropy, (N,) each."""
    arguments, _ = _arguments(function, head, target, options, axis_name)
    found = _each(*arguments)
    return -found.loss_C, found.entropy_C


def activated(
    function: str,
    logits: Array,
    formula: Formula | None,
    given: Mapping[str, Any] | Sequence[Any] | None = None,
) -> Array:
    """φ of the logits, in the dtype that a softmax is computed in."""
    values = bound_values(function, formula, given)
    wide = logits.astype(compute_dtype(logits.dtype))
    return wide if formula is None else backend.evaluate(formula, (wide,), values)


# ---- Arguments ----------------------------------------------------------------------------------


def _arguments(
    function: str, head: Head, target: Array, options: LossOptions, axis_name: str | None
) -> tuple[tuple[_Problem, _PerToken, _Shared, Tokens], Array]:
    """What the loss is computed from, checked, and what a mean is divided by."""
    _mixture.check_arguments(
        check_input,
        *head[:3],
        target,
        head.bias,
        options.class_weight,
        function=function,
        token_weight=options.token_weight,
        target_probability=options.target_probability,
    )
    check_options(function, options)
    given = bound_values(function, options.logits, options.logit_parameters)
    hidden, log_prior, weight, target = map(jnp.asarray, (*head[:3], target))
    dtype = compute_dtype(hidden.dtype)
    classes = Classes.of(function, weight, axis_name)
    target = target.astype(jnp.promote_types(target.dtype, jnp.int32))  # -100 wraps in a narrow one
    _check_values(function, target, options, classes.count)
    # In the arithmetic's dtype, so that the chunks' gradients add up in it.
    names = ("token_weight", "class_weight", "target_probability", "normalizer")
    wide = {name: _as(getattr(options, name), dtype) for name in names}
    weight = weight.astype(dtype)
    like_V = weight.reshape(-1, *weight.shape[-2:])[0, :, 0]
    tokens, class_mass_V, weight_N, total_weight = _mixture.weighed_targets(
        jnp, classes, target, replace(options, **wide), like_V
    )
    per_token = _PerToken(hidden, log_prior.astype(dtype), tokens.mass_CT, weight_N)
    values = {name: _as(value, dtype).reshape(()) for name, value in given.items()}
    shared = _Shared(weight, _as(head.bias, dtype), class_mass_V, values)
    row_elements = hidden.shape[1] * weight.shape[-2]
    problem = _Problem(
        classes,
        options.logits,
        float(options.z_loss),
        _mixture.wants_distribution(options),
        _mixture.most_rows(options, row_elements, weight.dtype.itemsize),
    )
    return (problem, per_token, shared, tokens), total_weight


def _as(value: Any, dtype: Any) -> Any:
    return None if value is None else jnp.asarray(value, dtype)


def _check_values(function: str, target: Array, options: LossOptions, num_classes: int) -> None:
    """Raise for values that make no sense, where they are known and no device is waited for."""
    if options.normalizer is not None and _is_read(options.normalizer):
        check_normalizer(function, options.normalizer)
    if not _is_read(target):
        return
    target_NT = _mixture.several(np.asarray(target))
    ignored_N = (target_NT == options.ignore_index).all(1)
    _mixture.check_targets(target_NT, ignored_N, num_classes, function=function)
    probability = options.target_probability
    if probability is not None and _is_read(probability):
        wide_NT = np.asarray(probability, compute_dtype(probability.dtype))
        epsilon = float(jnp.finfo(probability.dtype).eps)
        _mixture.check_distribution(wide_NT, ignored_N, epsilon, function=function)


def _is_read(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, Array) or not value.devices() - set(jax.devices("cpu"))


# ---- Chunks -------------------------------------------------------------------------------------


def _of_chunk(problem: _Problem, chunk: _PerToken, shared: _Shared, tokens: Tokens) -> Found:
    """What is found of one chunk's tokens."""
    hidden_CKD = without(jnp, tokens.ignored_C, chunk.hidden_NKD)
    log_prior_CK = without(jnp, tokens.ignored_C, chunk.log_prior_NK)
    weight, bias = (None if p is None else p.astype(hidden_CKD.dtype) for p in shared[:2])
    logits_CKV = mixture_logits(jnp, hidden_CKD, weight, bias).astype(log_prior_CK.dtype)
    if problem.formula is not None:
        logits_CKV = backend.evaluate(problem.formula, (logits_CKV,), shared.parameters)
    return of_tokens(
        jnp,
        logsumexp,
        problem.classes,
        logits_CKV,
        log_prior_CK,
        tokens._replace(mass_CT=chunk.mass_NT),
        shared.class_mass_V,
        problem.z_loss,
        problem.distribution,
    )


def _each(problem: _Problem, per_token: _PerToken, shared: _Shared, tokens: Tokens) -> Found:
    """What is found of every token; the derivative computes each chunk again."""
    of_chunk = jax.checkpoint(functools.partial(_of_chunk, problem))
    _, found = _scan(
        lambda carry, chunk, tokens: (carry, of_chunk(chunk, shared, tokens)),
        None,
        problem,
        per_token,
        tokens,
    )
    return found


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _total(
    problem: _Problem, per_token: _PerToken, shared: _Shared, tokens: Tokens
) -> tuple[Array, Found]:
    """The weighted sum of all losses, and what is found of every token, without a derivative."""
    found = _each(problem, per_token, shared, tokens)
    return jnp.sum(per_token.weight_N * found.loss_C), found


@_total.defjvp
def _total_derivative(
    problem: _Problem, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    """The gradient is formed beside the loss, a chunk at a time; a tangent's image is linear in it.

    So both modes of differentiation work, and backward is one multiplication.
    """
    per_token, shared, tokens = primals

    def chunk_total(chunk: _PerToken, shared: _Shared, tokens: Tokens) -> tuple[Array, Found]:
        found = _of_chunk(problem, chunk, shared, tokens)
        return jnp.sum(chunk.weight_N * found.loss_C), found

    def add_chunk(sums: Any, chunk: _PerToken, tokens: Tokens) -> tuple[Any, Any]:
        differentiated = jax.value_and_grad(chunk_total, argnums=(0, 1), has_aux=True)
        (_, found), (d_chunk, d_shared) = differentiated(chunk, shared, tokens)
        return jax.tree.map(jnp.add, sums, d_shared), (found, d_chunk)

    zeros = jax.tree.map(jnp.zeros_like, shared)
    d_shared, (found, d_tokens) = _scan(add_chunk, zeros, problem, per_token, tokens)
    of_classes = _inner_product(d_shared[:-1], tangents[1][:-1])
    tangent = problem.classes.over_devices(of_classes)
    tangent += _inner_product((d_tokens, d_shared[-1]), (tangents[0], tangents[1][-1]))
    total = jnp.sum(per_token.weight_N * found.loss_C)
    return (total, found), (tangent, jax.tree.map(_no_tangent, found))


def _no_tangent(x: Array) -> Any:
    if jnp.issubdtype(x.dtype, jnp.integer):
        return np.zeros(x.shape, jax.dtypes.float0)
    return jnp.zeros_like(x)


def _inner_product(gradients: Any, tangents: Any) -> Array:
    products = jax.tree.map(
        lambda g, t: jnp.vdot(g, t, preferred_element_type=compute_dtype(g.dtype)),
        gradients,
        tangents,
    )
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


def _scan(
    step: Callable[..., tuple[Any, Any]],
    carry: Any,
    problem: _Problem,
    per_token: _PerToken,
    tokens: Tokens,
) -> tuple[Any, Any]:
    """``step(carry, chunk, tokens)`` over even chunks of tokens.

    Returns:
        The last carry, and what the steps gave per token, in order.
    """
    N = per_token.hidden_NKD.shape[0]
    # By integers alone, which N may be a symbol of.
    count = -(-N // problem.most_rows)
    C = 1 if N == 0 else -(-N // count)  # even chunks
    # The tokens that fill the last chunk up are ignored ones.
    chunks = jax.tree.map(
        lambda a: jnp.pad(
            a, [(0, count * C - N)] + [(0, 0)] * (a.ndim - 1), constant_values=a.dtype == bool
        ).reshape(count, C, *a.shape[1:]),
        (per_token, tokens),
    )
    carry, given = lax.scan(lambda carry, chunk: step(carry, *chunk), carry, chunks)
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:N], given)


def _divided(total: Array, count: Array) -> Array:
    """total / count; over nothing it is NaN, as in F.cross_entropy, with zero gradients."""
    nothing = count == 0
    return jnp.where(nothing, jnp.nan, total / jnp.where(nothing, 1, count))
