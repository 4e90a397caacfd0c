"""The mixture of softmaxes as a Keras output layer.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

import math
from typing import Any

import keras
from keras import KerasTensor, ops

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
from zeta.keras.functions import PACKAGE, check_float, compute_dtype
from zeta.keras.loss import mixture_cross_entropy

# An ignore_index that no target has.
_NOTHING_IGNORED = -(2**31)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MixtureOfSoftmaxes(keras.Layer):
    """K softmax distributions over the classes, mixed with weights that depend on the input.

    ``p(v | x) = Σ_k prior_k(x) · softmax(decoder_k(x))_v``

    With ``decoder="separate"`` each mixture is a full softmax layer on x, K·V·D weights. With
    ``decoder="shared"``, the paper's, each mixture has its own ``latent_k = tanh(Dense(x))`` and
    all share one decoder of V·D weights, which may be an embedding (:meth:`tie_weights`).

    Args:
        num_mixtures: K, at least 1.
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        decoder: "separate" or "shared".
        bias: whether the decoder has a bias.
        prior_bias: whether the layer that computes the mixtures' weights has one.
        dropout: probability of dropping a feature that goes into the decoder, in training.
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

    built: bool

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        K, D, V = checked_sizes(num_mixtures, input_size, num_classes, decoder, dropout)
        self.supports_masking = True
        self.num_mixtures, self.input_size, self.num_classes = K, D, V
        self.decoder = decoder
        self.use_bias, self.use_prior_bias = bias, prior_bias
        self.prior = self._dense(K, prior_bias, "prior")
        self.latent = self._dense(K * D, True, "latent") if decoder == "shared" else None
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.bias = None

    def _uniform(self) -> keras.initializers.Initializer:
        """As PyTorch's linear layers: within ±1/√D."""
        bound = 1 / math.sqrt(self.input_size)
        return keras.initializers.RandomUniform(-bound, bound)

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
        K, D, V = self.num_mixtures, self.input_size, self.num_classes
        self.prior.build((None, D))
        if self.latent is not None:
            self.latent.build((None, D))
        per_mixture = (K,) if self.latent is None else ()
        self.weight = self._drawn("weight", (*per_mixture, V, D))
        if self.use_bias:
            self.bias = self._drawn("bias", (*per_mixture, V))

    def _drawn(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(name=name, shape=shape, initializer=self._uniform(), autocast=False)

    def call(self, x: Any, need_weights: bool = False, training: bool | None = None) -> Any:
        """Probabilities (…, V); with ``need_weights``, also the mixtures' weights (…, K)."""
        logits_NKV, log_prior_NK = self._logits_and_log_prior(x, training)
        prior_NK = ops.exp(log_prior_NK)
        probabilities_NV = ops.sum(prior_NK[..., None] * ops.softmax(logits_NKV, -1), 1)
        probabilities = self._with_leading_dims(probabilities_NV, x)
        return (
            (probabilities, self._with_leading_dims(prior_NK, x)) if need_weights else probabilities
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(…, V)."""
        check_x(input_shape, self.input_size)
        return (*input_shape[:-1], self.num_classes)

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

    def log_prob(self, x: Any, target: Any | None = None, training: bool | None = None) -> Any:
        """Log-probabilities, in log space: no probability underflows to log 0.

        Of all classes, (…, V), or of one target class each, (…), which needs no more memory than
        :meth:`loss` and has its dtype.

        Raises:
            ValueError: shapes that do not fit, as in :meth:`loss`.
            IndexError: a target that is no class, where that can be known.
        """
        if target is not None:
            return -self.loss(
                x, target, training=training, ignore_index=_NOTHING_IGNORED, reduction="none"
            )
        return self._with_leading_dims(self._log_prob_NV(x, training), x)

    def loss(
        self,
        x: Any,
        target: Any,
        *,
        training: bool | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        class_weight: Any | None = None,
        max_chunk_bytes: int | None = None,
    ) -> Any:
        """Cross-entropy of targets (…); see :func:`zeta.keras.mixture_cross_entropy`.

        In the variables' dtype, float32 under mixed precision, so that it can be scaled.

        Returns:
            A scalar, or the target's shape with reduction "none".

        Raises:
            ValueError: an input with another last dimension, or a target whose shape is not the
                input's leading dimensions.
            IndexError: a target that is no class, where that can be known.
        """
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(self._built_for(x), training)
        target = ops.convert_to_tensor(target)
        check_target_shape(target.shape, x.shape)
        loss = mixture_cross_entropy(
            ops.cast(hidden_NKD, self.variable_dtype),
            log_prior_NK,
            self.weight.value,
            ops.reshape(target, (-1,)),
            None if self.bias is None else self.bias.value,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            class_weight=None if class_weight is None else ops.convert_to_tensor(class_weight),
            max_chunk_bytes=max_chunk_bytes,
        )
        return ops.reshape(loss, ops.shape(target)) if reduction == "none" else loss

    def topk(self, x: Any, k: int) -> tuple[Any, Any]:
        """The k most probable classes: log-probabilities and indices, (…, k), best first.

        Raises:
            ValueError: k is not between 1 and the number of classes.
        """
        check_k(k, self.num_classes)
        log_probs, indices = ops.top_k(self.log_prob(x), k)
        return log_probs, indices

    def sample(
        self,
        x: Any,
        num_samples: int = 1,
        seed: Any | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Any:
        """Classes drawn from the mixture, with replacement: (…, num_samples), int32.

        ``q(v) ∝ p(v)^(1/temperature)`` among the kept classes.

        Args:
            x: (…, D).
            num_samples: how many for each.
            seed: a number or a ``keras.random.SeedGenerator``.
            temperature: below 1 it favours probable classes, above 1 the others.
            top_k: keeps the k most probable classes.
            top_p: then keeps the fewest most probable classes whose probabilities, after
                temperature and top-k, add up to p: at least one.

        Raises:
            ValueError: num_samples or top_k is below 1, temperature is not positive and finite,
                or top_p not between 0 and 1.

        Example:
            >>> import numpy as np
            >>> from zeta.keras import MixtureOfSoftmaxes
            >>> mos = MixtureOfSoftmaxes(num_mixtures=3, input_size=128, num_classes=10)
            >>> drawn = mos.sample(np.ones((32, 128), "float32"), seed=0, top_p=0.95)
            >>> tuple(drawn.shape)
            (32, 1)

        Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration.
        """
        check_sampling(num_samples, temperature, top_k, top_p)
        logits_NM, classes_NM = warped_logits(
            ops, ops.top_k, self._log_prob_NV(x, None), temperature, top_k, top_p
        )
        drawn_NS = keras.random.categorical(logits_NM, num_samples, seed=seed)
        if classes_NM is not None:
            drawn_NS = ops.take_along_axis(ops.cast(classes_NM, "int32"), drawn_NS, -1)
        return ops.reshape(drawn_NS, (*ops.shape(x)[:-1], num_samples))

    def tie_weights(self, embedding: keras.layers.Embedding) -> None:
        """Make the shared decoder use a built embedding's weight, (V, D), as its own.

        A saved model holds the weight with both layers, and loads them untied: tie them again.

        Raises:
            ValueError: the decoder is separate, or the embedding has another shape.
        """
        shape = (self.num_classes, self.input_size)
        check_tie(self.decoder, shape, embedding.embeddings.shape)
        if not self.built:
            self.build((None, self.input_size))
            self.built = True
        for variable in (self.weight, self.bias):
            if variable is not None:
                self._untrack_variable(variable)
        self._tracker.unlock()  # a built layer takes no new variables otherwise
        # Both, in build's order, by which they are saved and loaded.
        self.weight, self.bias = embedding.embeddings, self.bias
        self._tracker.lock()

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
        }

    def _built_for(self, x: Any) -> Any:
        """The tensor, in the dtype that a call would bring it to; methods may be the first use."""
        check_float(x, "MixtureOfSoftmaxes", "x")
        x = ops.cast(ops.convert_to_tensor(x), self.compute_dtype)
        if not self.built:
            self.build(x.shape)
            self.built = True
        return x

    def _hidden_and_log_prior(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        """What goes into the decoder, (N, K, D), and the mixtures' log-weights, (N, K)."""
        check_float(x, "MixtureOfSoftmaxes", "x")
        check_x(x.shape, self.input_size)
        K, D = self.num_mixtures, self.input_size
        x_ND = ops.reshape(x, (-1, D))
        prior_NK = ops.cast(self.prior(x_ND), compute_dtype(self.compute_dtype))
        if self.latent is None:
            hidden_NKD = ops.repeat(x_ND[:, None], K, axis=1)
        else:
            hidden_NKD = ops.reshape(ops.tanh(self.latent(x_ND)), (-1, K, D))
        return self.dropout(hidden_NKD, training=training), ops.log_softmax(prior_NK, -1)

    def _logits_and_log_prior(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(x, training)
        decoder = (self.weight, self.bias)
        weight, bias = (
            None if p is None else ops.cast(p.value, self.compute_dtype) for p in decoder
        )
        logits_NKV = mixture_logits(ops, hidden_NKD, weight, bias)
        return ops.cast(logits_NKV, log_prior_NK.dtype), log_prior_NK

    def _log_prob_NV(self, x: Any, training: bool | None) -> Any:
        """log p(v) of all classes, in the dtype that the softmax is computed in."""
        logits_NKV, log_prior_NK = self._logits_and_log_prior(self._built_for(x), training)
        joint_NKV = log_prior_NK[..., None] + ops.log_softmax(logits_NKV, -1)
        return ops.logsumexp(joint_NKV, axis=1)

    def _with_leading_dims(self, y: Any, x: Any) -> Any:
        """(N, …) as (leading dimensions of x, …), in the dtype of a layer's output."""
        shape = (*ops.shape(x)[:-1], y.shape[-1])
        return ops.cast(ops.reshape(y, shape), self.compute_dtype)
