"""What Keras output layers have in common: a mixture of softmaxes, of which one softmax is a case.

Shape suffixes: N tokens, K mixtures, D features, V classes, S samples, M that may be drawn.
"""

import math
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from zeta import activations
from zeta._formula import Formula
from zeta._loss_options import (
    LossOptions,
    LossOutputs,
    checked_options,
    flat_options,
    takes_options,
)
from zeta._mixture import (
    NOTHING_IGNORED,
    check_k,
    check_logits,
    check_sampling,
    check_target_shape,
    check_tie,
    check_x,
    mixture_logits,
    warped_logits,
)
from zeta.keras.activations import FormulaLayer
from zeta.keras.functions import check_float, compute_dtype, evaluate
from zeta.keras.loss import mixture_cross_entropy


class Head(keras.Layer):
    """A distribution over classes, which `_hidden_and_log_prior` computes from the input.

    Attributes:
        input_size, num_classes: D and V.
        decoder: "separate" weights of each mixture, or "shared".
        logits: the layer of the formula between logits and softmax, or None.
        weight, bias: the decoder's.
    """

    built: bool

    def __init__(
        self, input_size: int, num_classes: int, decoder: str, logits: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.input_size, self.num_classes, self.decoder = input_size, num_classes, decoder
        self.logits = self._formula_layer(logits)
        self.bias = None

    def _formula_layer(self, logits: Any) -> FormulaLayer | None:
        """What stands between logits and softmax, if it can, as a layer."""
        name = type(self).__name__
        logits = activations.get(logits) if isinstance(logits, str) else logits
        check_logits(name, logits)
        if getattr(logits, "shared_axes", None) is not None:
            raise ValueError(
                f"{name}: logits must have one value of each parameter, got a layer with "
                f"shared_axes={logits.shared_axes}"
            )
        if not isinstance(logits, Formula):
            return logits
        # Of other defaults it is saved by the catalogue's name and its values.
        formula = logits._origin or logits
        return FormulaLayer(formula, logits.parameters, dtype=self.dtype_policy)

    def _uniform(self) -> keras.initializers.Initializer:
        """As PyTorch's linear layers: within ±1/√D."""
        bound = 1 / math.sqrt(self.input_size)
        return keras.initializers.RandomUniform(-bound, bound)

    def _build_decoder(self, *per_mixture: int, bias: bool) -> None:
        """Draw the decoder's weights, and make the formula's parameters."""
        self.weight = self._drawn("weight", (*per_mixture, self.num_classes, self.input_size))
        if bias:
            self.bias = self._drawn("bias", (*per_mixture, self.num_classes))
        if self.logits is not None and not self.logits.built:
            self.logits.build((None, self.num_classes))

    def _drawn(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(name=name, shape=shape, initializer=self._uniform(), autocast=False)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(…, V)."""
        check_x(input_shape, self.input_size, layer=type(self).__name__)
        return (*input_shape[:-1], self.num_classes)

    def log_prob(self, x: Any, target: Any | None = None, training: bool | None = None) -> Any:
        """Log-probabilities, in log space: no probability underflows to log 0.

        Of all classes, (…, V), or of one target class each, (…), which needs no more memory than
        :meth:`loss` and has its dtype.

        Raises:
            ValueError: shapes that do not fit, as in :meth:`loss`.
            IndexError: a target that is no class, where that can be known.
        """
        if target is not None:
            options = LossOptions(ignore_index=NOTHING_IGNORED, reduction="none")
            return -self._cross_entropy(x, target, training, options)
        return self._with_leading_dims(self._log_prob_NV(x, training), x)

    @takes_options("logits", "logit_parameters")
    def loss(self, x: Any, target: Any, *, training: bool | None = None, **options: Any) -> Any:
        """Cross-entropy of targets (…), in chunks of tokens.

        In the variables' dtype, float32 under mixed precision, so that it can be scaled.

        Args:
            x: (…, D).
            target: (…), class indices; or (…, k) with ``target_probability``, (…, k).
            training: whether dropout acts.
            **options: see :class:`zeta.ops.LossOptions`; ``token_weight`` has the shape (…).

        Returns:
            A scalar, or (…) with reduction "none"; with ``outputs`` a pair, of that and a
            :class:`zeta.ops.LossOutputs` of tensors (…).

        Raises:
            ValueError: an input with another last dimension, a target whose shape is not the
                input's leading dimensions, or an option out of its range.
            IndexError: a target that is no class, where that can be known.
        """
        own = ("logits", "logit_parameters")  # the layer's
        chosen = checked_options(f"{type(self).__name__}.loss", options, *own)
        return self._cross_entropy(x, target, training, chosen)

    def topk(self, x: Any, k: int) -> tuple[Any, Any]:
        """The k most probable classes: log-probabilities and indices, (…, k), best first.

        Raises:
            ValueError: k is not between 1 and the number of classes.
        """
        check_k(k, self.num_classes, layer=type(self).__name__)
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
        """Classes drawn from the distribution, with replacement: (…, num_samples), int32.

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
        check_sampling(num_samples, temperature, top_k, top_p, layer=type(self).__name__)
        logits_NM, classes_NM = warped_logits(
            ops, ops.top_k, self._log_prob_NV(x, None), temperature, top_k, top_p
        )
        drawn_NS = keras.random.categorical(logits_NM, num_samples, seed=seed)
        if classes_NM is not None:
            drawn_NS = ops.take_along_axis(ops.cast(classes_NM, "int32"), drawn_NS, -1)
        return ops.reshape(drawn_NS, (*ops.shape(x)[:-1], num_samples))

    def tie_weights(self, embedding: keras.layers.Embedding) -> None:
        """Make a shared decoder use a built embedding's weight, (V, D), as its own.

        A saved model holds the weight with both layers, and loads them untied: tie them again.

        Raises:
            ValueError: the decoder is separate, or the embedding has another shape.
        """
        shape = (self.num_classes, self.input_size)
        check_tie(self.decoder, shape, embedding.embeddings.shape, layer=type(self).__name__)
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

    def _config(self) -> dict[str, Any]:
        """What of `get_config` is about the formula.

        Raises:
            ValueError: the formula is not in the catalogue, and its layer no class of one's own.
        """
        return {"logits": keras.saving.serialize_keras_object(self.logits)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Head":
        """The layer that ``get_config`` described."""
        return cls(**config | {"logits": keras.saving.deserialize_keras_object(config["logits"])})

    def _cross_entropy(
        self, x: Any, target: Any, training: bool | None, options: LossOptions
    ) -> Any:
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(self._built_for(x), training)
        target = ops.convert_to_tensor(target)
        soft = options.target_probability is not None
        check_target_shape(
            target.shape[:-1] if soft else target.shape, x.shape, layer=type(self).__name__
        )
        tensors = {
            name: ops.convert_to_tensor(value)
            for name in ("token_weight", "class_weight", "target_probability")
            if (value := getattr(options, name)) is not None
        }
        options = flat_options(replace(options, **tensors), target.shape, ops.reshape)
        if self.logits is not None:
            values = self.logits.parameter_values()
            options = replace(options, logits=self.logits.formula, logit_parameters=values)
        found = mixture_cross_entropy(
            ops.cast(hidden_NKD, self.variable_dtype),
            log_prior_NK,
            self.weight.value,
            ops.reshape(target, (-1, target.shape[-1]) if soft else (-1,)),
            None if self.bias is None else self.bias.value,
            **vars(options),
        )
        leading = ops.shape(target)[: len(target.shape) - soft]
        loss, of_tokens = found if isinstance(found, tuple) else (found, None)
        loss = ops.reshape(loss, leading) if options.reduction == "none" else loss
        if of_tokens is None:
            return loss
        return loss, LossOutputs(
            *(None if t is None else ops.reshape(t, leading) for t in of_tokens)
        )

    def _built_for(self, x: Any) -> Any:
        """The tensor, in the dtype that a call would bring it to; methods may be the first use."""
        check_float(x, type(self).__name__, "x")
        x = ops.cast(ops.convert_to_tensor(x), self.compute_dtype)
        if not self.built:
            self.build(x.shape)
            self.built = True
        return x

    def _hidden_and_log_prior(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        """What goes into the decoder, (N, K, D), and the mixtures' log-weights, (N, K)."""
        raise NotImplementedError

    def _tokens(self, x: Any) -> Any:
        """The input as (N, D)."""
        name = type(self).__name__
        check_float(x, name, "x")
        check_x(x.shape, self.input_size, layer=name)
        return ops.reshape(x, (-1, self.input_size))

    def _logits_and_log_prior(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(x, training)
        decoder = (self.weight, self.bias)
        weight, bias = (
            None if p is None else ops.cast(p.value, self.compute_dtype) for p in decoder
        )
        logits_NKV = mixture_logits(ops, hidden_NKD, weight, bias)
        logits_NKV = ops.cast(logits_NKV, compute_dtype(self.compute_dtype))
        if self.logits is not None:
            values = self.logits.parameter_values()
            logits_NKV = evaluate(self.logits.formula, (logits_NKV,), values)
        return logits_NKV, log_prior_NK

    def _log_prob_NV(self, x: Any, training: bool | None) -> Any:
        """log p(v) of all classes, in the dtype that the softmax is computed in."""
        logits_NKV, log_prior_NK = self._logits_and_log_prior(self._built_for(x), training)
        joint_NKV = log_prior_NK[..., None] + ops.log_softmax(logits_NKV, -1)
        return ops.logsumexp(joint_NKV, axis=1)

    def _with_leading_dims(self, y: Any, x: Any) -> Any:
        """(N, …) as (leading dimensions of x, …), in the dtype of a layer's output."""
        shape = (*ops.shape(x)[:-1], y.shape[-1])
        return ops.cast(ops.reshape(y, shape), self.compute_dtype)
