"""The mixture of softmaxes as an NNX output layer.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from zeta._backends.jax import check_input, compute_dtype
from zeta._mixture import (
    check_k,
    check_sampling,
    check_target_shape,
    check_tie,
    check_x,
    checked_sizes,
    mixture_logits,
    warped_logits,
)
from zeta.jax.mixture import mixture_cross_entropy, mixture_log_prob

# An ignore_index that no target has.
_NOTHING_IGNORED = -(2**31)


class MixtureOfSoftmaxes(nnx.Module):
    """K softmax distributions over the classes, mixed with weights that depend on the input.

    ``p(v | x) = Σ_k prior_k(x) · softmax(decoder_k(x))_v``

    With ``decoder="separate"`` each mixture is a full softmax layer on x, K·V·D weights. With
    ``decoder="shared"``, the paper's, each mixture has its own ``latent_k = tanh(Linear(x))`` and
    all share one decoder of V·D weights, which may be an embedding (:meth:`tie_weights`).

    Args:
        num_mixtures: K, at least 1.
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        decoder: "separate" or "shared".
        bias: whether the decoder has a bias.
        prior_bias: whether the layer that computes the mixtures' weights has one.
        dropout: probability of dropping a feature that goes into the decoder, in training.
        param_dtype: of the parameters.
        rngs: draws the weights, uniform within ±1/√D and each with a key of its own, and the
            dropout; the stream "dropout" is needed for a dropout above 0 alone.

    Attributes:
        prior: ``nnx.Linear(D, K)``.
        latent: ``nnx.Linear(D, K·D)``, with the shared decoder only.
        weight: (K, V, D), or (V, D) with the shared decoder.
        bias: (K, V), or (V,) with the shared decoder; or None.

    Shape: input (…, D) with any leading dimensions; output (…, V).

    Raises:
        ValueError: a size below 1, an unknown decoder, a dropout that is no probability, or an
            input with another last dimension.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from zeta.flax import MixtureOfSoftmaxes
        >>> mos = MixtureOfSoftmaxes(3, 128, 10, rngs=nnx.Rngs(0))
        >>> probabilities, weights = mos(jnp.ones((32, 128)), need_weights=True)
        >>> probabilities.shape, weights.shape
        ((32, 10), (32, 3))

    Source: Yang et al. 2018, Breaking the Softmax Bottleneck; the MixtureOfSoftmaxes document.
    """

    def __init__(
        self,
        num_mixtures: int,
        input_size: int,
        num_classes: int,
        *,
        decoder: Literal["separate", "shared"] = "separate",
        bias: bool = True,
        prior_bias: bool = True,
        dropout: float = 0.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        K, D, V = checked_sizes(num_mixtures, input_size, num_classes, decoder, dropout)
        self.num_mixtures, self.input_size, self.num_classes = K, D, V
        self.decoder = decoder
        bound = 1 / math.sqrt(D)

        def uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        def linear(size: int, use_bias: bool) -> nnx.Linear:
            return nnx.Linear(
                D,
                size,
                use_bias=use_bias,
                param_dtype=param_dtype,
                kernel_init=uniform,
                bias_init=uniform,
                rngs=rngs,
            )

        def drawn(*shape: int) -> nnx.Param[Array]:
            return nnx.Param(uniform(rngs.params(), shape, param_dtype))

        shared = decoder == "shared"
        per_mixture = () if shared else (K,)
        self.prior = linear(K, prior_bias)
        self.latent = linear(K * D, True) if shared else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)
        self.weight = drawn(*per_mixture, V, D)
        self.bias = drawn(*per_mixture, V) if bias else None

    def __call__(self, x: Array, need_weights: bool = False) -> Any:
        """Probabilities (…, V); with ``need_weights``, also the mixtures' weights (…, K)."""
        logits_NKV, log_prior_NK = self._logits_and_log_prior(x)
        prior_NK = jnp.exp(log_prior_NK)
        probabilities_NV = jnp.sum(prior_NK[..., None] * jax.nn.softmax(logits_NKV), 1)
        probabilities = _with_leading_dims(probabilities_NV, x)
        return (probabilities, _with_leading_dims(prior_NK, x)) if need_weights else probabilities

    def log_prob(self, x: Array, target: Array | None = None) -> Array:
        """Log-probabilities, in log space: no probability underflows to log 0.

        Of all classes, (…, V), or of one target class each, (…), which needs no more memory than
        :meth:`loss`.

        Raises:
            ValueError: shapes that do not fit, as in :meth:`loss`.
            IndexError: a target that is no class, where that can be known.
        """
        if target is not None:
            return -self.loss(x, target, ignore_index=_NOTHING_IGNORED, reduction="none")
        return _with_leading_dims(mixture_log_prob(*self._logits_and_log_prior(x)), x)

    def loss(
        self,
        x: Array,
        target: Array,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        class_weight: Array | None = None,
        max_chunk_bytes: int | None = None,
    ) -> Array:
        """Cross-entropy of targets (…); see :func:`zeta.jax.mixture_cross_entropy`.

        Returns:
            A scalar, or the target's shape with reduction "none".

        Raises:
            ValueError: an input with another last dimension, or a target whose shape is not the
                input's leading dimensions.
            IndexError: a target that is no class, where that can be known.
        """
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(x)
        target = jnp.asarray(target)
        check_target_shape(target.shape, x.shape)
        loss = mixture_cross_entropy(
            hidden_NKD,
            log_prior_NK,
            self.weight[...],
            target.reshape(-1),
            None if self.bias is None else self.bias[...],
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            class_weight=class_weight,
            max_chunk_bytes=max_chunk_bytes,
        ).astype(x.dtype)
        return loss.reshape(target.shape) if reduction == "none" else loss

    def topk(self, x: Array, k: int) -> tuple[Array, Array]:
        """The k most probable classes: log-probabilities and indices, (…, k), best first.

        Raises:
            ValueError: k is not between 1 and the number of classes.
        """
        check_k(k, self.num_classes)
        log_probs, indices = jax.lax.top_k(self.log_prob(x), k)
        return log_probs, indices

    def sample(
        self,
        x: Array,
        num_samples: int = 1,
        *,
        key: Array,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Array:
        """Classes drawn from the mixture, with replacement: (…, num_samples), int32.

        ``q(v) ∝ p(v)^(1/temperature)`` among the kept classes, of the distribution p that the
        call gives: in training mode, dropout acts.

        Args:
            x: (…, D).
            num_samples: how many for each.
            key: of ``jax.random``.
            temperature: below 1 it favours probable classes, above 1 the others.
            top_k: keeps the k most probable classes.
            top_p: then keeps the fewest most probable classes whose probabilities, after
                temperature and top-k, add up to p: at least one.

        Raises:
            ValueError: num_samples or top_k is below 1, temperature is not positive and finite,
                or top_p not between 0 and 1.

        Example:
            >>> import jax
            >>> from flax import nnx
            >>> from zeta.flax import MixtureOfSoftmaxes
            >>> mos = MixtureOfSoftmaxes(3, 128, 10, rngs=nnx.Rngs(0))
            >>> mos.sample(jax.numpy.ones((32, 128)), key=jax.random.key(0), top_p=0.95).shape
            (32, 1)

        Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration.
        """
        check_sampling(num_samples, temperature, top_k, top_p)
        log_prob_NV = mixture_log_prob(*self._logits_and_log_prior(x))
        logits_NM, classes_NM = warped_logits(
            jnp, jax.lax.top_k, log_prob_NV, temperature, top_k, top_p
        )
        shape = (logits_NM.shape[0], num_samples)
        drawn_NS = jax.random.categorical(key, logits_NM[:, None], shape=shape)
        if classes_NM is not None:
            drawn_NS = jnp.take_along_axis(classes_NM, drawn_NS, -1)
        return drawn_NS.reshape(*x.shape[:-1], num_samples)

    def tie_weights(self, embedding: nnx.Embed) -> None:
        """Make the shared decoder use an embedding's weight, (V, D), as its own.

        Raises:
            ValueError: the decoder is separate, or the embedding has another shape.
        """
        check_tie(self.decoder, self.weight.shape, embedding.embedding.shape)
        self.weight = embedding.embedding

    def _hidden_and_log_prior(self, x: Array) -> tuple[Array, Array]:
        """What goes into the decoder, (N, K, D), and the mixtures' log-weights, (N, K)."""
        check_input(x, "MixtureOfSoftmaxes", "x")
        check_x(x.shape, self.input_size)
        K, D = self.num_mixtures, self.input_size
        x_ND = jnp.asarray(x).reshape(-1, D)
        log_prior_NK = jax.nn.log_softmax(self.prior(x_ND).astype(compute_dtype(x.dtype)))
        if self.latent is None:
            hidden_NKD = jnp.broadcast_to(x_ND[:, None], (x_ND.shape[0], K, D))
        else:
            hidden_NKD = jnp.tanh(self.latent(x_ND)).reshape(-1, K, D)
        return self.dropout(hidden_NKD).astype(self.weight.dtype), log_prior_NK

    def _logits_and_log_prior(self, x: Array) -> tuple[Array, Array]:
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(x)
        bias = None if self.bias is None else self.bias[...]
        logits_NKV = mixture_logits(jnp, hidden_NKD, self.weight[...], bias)
        return logits_NKV.astype(log_prior_NK.dtype), log_prior_NK


def _with_leading_dims(y: Array, x: Array) -> Array:
    """(N, …) as (leading dimensions of x, …), in x's dtype."""
    return y.reshape(*x.shape[:-1], *y.shape[1:]).astype(x.dtype)
