"""The mixture of softmaxes as an NNX output layer.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from zeta._backends.jax import compute_dtype
from zeta._formula import Formula
from zeta._mixture import checked_sizes
from zeta.flax.activations import FormulaModule
from zeta.flax.head import Head, with_leading_dims


class MixtureOfSoftmaxes(Head):
    """K softmax distributions over the classes, mixed with weights that depend on the input.

    ``p(v | x) = Σ_k prior_k(x) · softmax(φ(decoder_k(x)))_v``

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
        logits: φ, a formula of one input between logits and softmax, such as
            ``zeta.activations.softcap``, or a module of it that learns its parameters,
            ``FormulaModule(softcap, learnable=True)``; None for the logits as they are.
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
        TypeError: ``logits`` that is no formula of one input, or an input that is not floating
            point.

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
        logits: Formula | FormulaModule | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        K, D, V = checked_sizes(num_mixtures, input_size, num_classes, decoder, dropout)
        self.num_mixtures, self.input_size, self.num_classes = K, D, V
        self.decoder = decoder
        self._set_logits(logits)

        def linear(size: int, use_bias: bool) -> nnx.Linear:
            return nnx.Linear(
                D,
                size,
                use_bias=use_bias,
                param_dtype=param_dtype,
                kernel_init=self._uniform,
                bias_init=self._uniform,
                rngs=rngs,
            )

        shared = decoder == "shared"
        per_mixture = () if shared else (K,)
        self.prior = linear(K, prior_bias)
        self.latent = linear(K * D, True) if shared else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)
        self.weight = self._drawn(rngs, param_dtype, *per_mixture, V, D)
        self.bias = self._drawn(rngs, param_dtype, *per_mixture, V) if bias else None

    def __call__(self, x: Array, need_weights: bool = False) -> Any:
        """Probabilities (…, V); with ``need_weights``, also the mixtures' weights (…, K)."""
        logits_NKV, log_prior_NK = self._logits_and_log_prior(x)
        prior_NK = jnp.exp(log_prior_NK)
        probabilities_NV = jnp.sum(prior_NK[..., None] * jax.nn.softmax(logits_NKV), 1)
        probabilities = with_leading_dims(probabilities_NV, x)
        return (probabilities, with_leading_dims(prior_NK, x)) if need_weights else probabilities

    def _hidden_and_log_prior(self, x: Array) -> tuple[Array, Array]:
        """What goes into the decoder, (N, K, D), and the mixtures' log-weights, (N, K)."""
        x_ND = self._tokens(x)
        log_prior_NK = jax.nn.log_softmax(self.prior(x_ND).astype(compute_dtype(x.dtype)))
        if self.latent is None:
            shape = (x_ND.shape[0], self.num_mixtures, self.input_size)
            hidden_NKD = jnp.broadcast_to(x_ND[:, None], shape)
        else:
            latent = jnp.tanh(self.latent(x_ND))
            hidden_NKD = latent.reshape(-1, self.num_mixtures, self.input_size)
        return self.dropout(hidden_NKD).astype(self.weight.dtype), log_prior_NK
