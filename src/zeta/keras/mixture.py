"""The mixture of softmaxes as a Keras output layer.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from typing import Any

import keras
from keras import KerasTensor, ops

from zeta._formula import Formula
from zeta._mixture import check_x, checked_sizes
from zeta.keras.activations import FormulaLayer
from zeta.keras.functions import PACKAGE, check_float, compute_dtype
from zeta.keras.head import Head


@keras.saving.register_keras_serializable(package=PACKAGE)
class MixtureOfSoftmaxes(Head):
    """K softmax distributions over the classes, mixed with weights that depend on the input.

    ``p(v | x) = Σ_k prior_k(x) · softmax(φ(decoder_k(x)))_v``

    With ``decoder="separate"`` each mixture is a full softmax layer on x, K·V·D weights. With
    ``decoder="shared"``, the paper's, each mixture has its own ``latent_k = tanh(Dense(x))`` and
    all share one decoder of V·D weights, which may be an embedding (``tie_weights``).

    Args:
        num_mixtures: K, at least 1.
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        decoder: "separate" or "shared".
        bias: whether the decoder has a bias.
        prior_bias: whether the layer that computes the mixtures' weights has one.
        dropout: probability of dropping a feature that goes into the decoder, in training.
        logits: φ, a formula of one input between logits and softmax, its name in the catalogue,
            "softcap" say, or a layer of it that learns its parameters,
            ``FormulaLayer("softcap", learnable=True)``; None for the logits as they are. A formula
            outside the catalogue is saved as a layer of a class of its own.
        **kwargs: as every layer takes them, ``name`` and ``dtype`` say.

    Attributes:
        prior: ``Dense(K)``.
        latent: ``Dense(K·D)``, with the shared decoder only.
        weight: (K, V, D), or (V, D) with the shared decoder.
        bias: (K, V), or (V,) with the shared decoder; or None.

    Shape: input (…, D) with any leading dimensions; output (…, V).

    Raises:
        ValueError: a size below 1, an unknown decoder, a dropout that is no probability, or an
            input with another last dimension.
        TypeError: ``logits`` that is no formula of one input, or an input that is not floating
            point.

    Example:
        >>> import numpy as np
        >>> from zeta.keras import MixtureOfSoftmaxes
        >>> mos = MixtureOfSoftmaxes(num_mixtures=3, input_size=128, num_classes=10)
        >>> x = np.ones((32, 128), "float32")
        >>> probabilities, weights = mos(x, need_weights=True)
        >>> tuple(probabilities.shape), tuple(weights.shape)
        ((32, 10), (32, 3))
        >>> loss = mos.loss(x, np.arange(32) % 10)

    Source: Yang et al. 2018, Breaking the Softmax Bottleneck; the MixtureOfSoftmaxes document.
    """

    def __init__(
        self,
        num_mixtures: int,
        input_size: int,
        num_classes: int,
        *,
        decoder: str = "separate",
        bias: bool = True,
        prior_bias: bool = True,
        dropout: float = 0.0,
        logits: Formula | FormulaLayer | str | None = None,
        **kwargs: Any,
    ) -> None:
        K, D, V = checked_sizes(num_mixtures, input_size, num_classes, decoder, dropout)
        super().__init__(D, V, decoder, logits, **kwargs)
        self.num_mixtures = K
        self.use_bias, self.use_prior_bias = bias, prior_bias
        self.prior = self._dense(K, prior_bias, "prior")
        self.latent = self._dense(K * D, True, "latent") if decoder == "shared" else None
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def _dense(self, units: int, use_bias: bool, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=self._uniform(),
            bias_initializer=self._uniform(),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: Any) -> None:
        """Draw every weight."""
        check_x(input_shape, self.input_size)
        self.prior.build((None, self.input_size))
        if self.latent is not None:
            self.latent.build((None, self.input_size))
        per_mixture = (self.num_mixtures,) if self.latent is None else ()
        self._build_decoder(*per_mixture, bias=self.use_bias)

    def call(self, x: Any, need_weights: bool = False, training: bool | None = None) -> Any:
        """Probabilities (…, V); with ``need_weights``, also the mixtures' weights (…, K)."""
        logits_NKV, log_prior_NK = self._logits_and_log_prior(x, training)
        prior_NK = ops.exp(log_prior_NK)
        probabilities_NV = ops.sum(prior_NK[..., None] * ops.softmax(logits_NKV, -1), 1)
        probabilities = self._with_leading_dims(probabilities_NV, x)
        return (
            (probabilities, self._with_leading_dims(prior_NK, x)) if need_weights else probabilities
        )

    def compute_output_spec(
        self, x: KerasTensor, need_weights: bool = False, training: bool | None = None
    ) -> Any:
        """What a call answers, as symbolic tensors."""
        check_float(x, "MixtureOfSoftmaxes", "x")
        shape = self.compute_output_shape(x.shape)
        probabilities = KerasTensor(shape, self.compute_dtype)
        if not need_weights:
            return probabilities
        return probabilities, KerasTensor((*shape[:-1], self.num_mixtures), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """What builds the same layer."""
        return super().get_config() | {
            "num_mixtures": self.num_mixtures,
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "decoder": self.decoder,
            "bias": self.use_bias,
            "prior_bias": self.use_prior_bias,
            "dropout": self.dropout.rate,
            **self._config(),
        }

    def _hidden_and_log_prior(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        """What goes into the decoder, (N, K, D), and the mixtures' log-weights, (N, K)."""
        K, D = self.num_mixtures, self.input_size
        x_ND = self._tokens(x)
        prior_NK = ops.cast(self.prior(x_ND), compute_dtype(self.compute_dtype))
        if self.latent is None:
            hidden_NKD = ops.repeat(x_ND[:, None], K, axis=1)
        else:
            hidden_NKD = ops.reshape(ops.tanh(self.latent(x_ND)), (-1, K, D))
        return self.dropout(hidden_NKD, training=training), ops.log_softmax(prior_NK, -1)
