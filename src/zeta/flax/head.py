"""What NNX output layers have in common: a mixture of softmaxes, of which one softmax is a case.

Shape suffixes: N tokens, K mixtures, D features, V classes, S samples, M that may be drawn.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from zeta._backends.jax import check_input
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
from zeta.flax.activations import FormulaModule
from zeta.jax.head_loss import Head as LossHead, activated, cross_entropy
from zeta.jax.mixture import mixture_log_prob


class Head(nnx.Module):
    """A distribution over classes, which `_hidden_and_log_prior` computes from the input.

    Attributes:
        input_size, num_classes: D and V.
        decoder: "separate" weights of each mixture, or "shared".
        logits: the formula between logits and softmax, a module that learns its parameters, or
            None.
        weight, bias: the decoder's.
    """

    input_size: int
    num_classes: int
    decoder: str
    logits: Formula | FormulaModule | None
    weight: nnx.Param[Array]
    bias: nnx.Param[Array] | None

    def log_prob(self, x: Array, target: Array | None = None) -> Array:
        """Log-probabilities, in log space: no probability underflows to log 0.

        Of all classes, (…, V), or of one target class each, (…), which needs no more memory than
        :meth:`loss`.

        Raises:
            ValueError: shapes that do not fit, as in :meth:`loss`.
            IndexError: a target that is no class, where that can be known.
        """
        if target is not None:
            options = LossOptions(ignore_index=NOTHING_IGNORED, reduction="none")
            return -self._cross_entropy(x, target, options)
        return with_leading_dims(mixture_log_prob(*self._logits_and_log_prior(x)), x)

    @takes_options("logits", "logit_parameters")
    def loss(self, x: Array, target: Array, **options: Any) -> Any:
        """Cross-entropy of targets (…).

        Args:
            x: (…, D).
            target: (…), class indices; or (…, k) with ``target_probability``, (…, k).
            **options: see :class:`zeta.ops.LossOptions`; ``token_weight`` has the shape (…).

        Returns:
            A scalar, or (…) with reduction "none"; with ``outputs`` a pair, of that and a
            :class:`zeta.ops.LossOutputs` of arrays (…).

        Raises:
            ValueError: an input with another last dimension, a target whose shape is not the
                input's leading dimensions, or an option out of its range.
            IndexError: a target that is no class, where that can be known.
        """
        own = ("logits", "logit_parameters")  # the module's
        name = f"{type(self).__name__}.loss"
        return self._cross_entropy(x, target, checked_options(name, options, *own))

    def topk(self, x: Array, k: int) -> tuple[Array, Array]:
        """The k most probable classes: log-probabilities and indices, (…, k), best first.

        Raises:
            ValueError: k is not between 1 and the number of classes.
        """
        check_k(k, self.num_classes, layer=type(self).__name__)
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
        """Classes drawn from the distribution, with replacement: (…, num_samples), int32.

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
        check_sampling(num_samples, temperature, top_k, top_p, layer=type(self).__name__)
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
        """Make a shared decoder use an embedding's weight, (V, D), as its own.

        Raises:
            ValueError: the decoder is separate, or the embedding has another shape.
        """
        shapes = (self.weight.shape, embedding.embedding.shape)
        check_tie(self.decoder, *shapes, layer=type(self).__name__)
        self.weight = embedding.embedding

    def _cross_entropy(self, x: Array, target: Array, options: LossOptions) -> Any:
        name, target = type(self).__name__, jnp.asarray(target)
        head = LossHead(*self._hidden_and_log_prior(x), self.weight[...], self._own_bias())
        soft = options.target_probability is not None
        leading = target.shape[:-1] if soft else target.shape
        check_target_shape(leading, x.shape, layer=name)
        options = replace(
            flat_options(options, target.shape, jnp.reshape),
            logits=self._formula(),
            logit_parameters=self._parameters(x),
        )
        flat = target.reshape(-1, target.shape[-1]) if soft else target.reshape(-1)
        found = cross_entropy(name, head, flat, options, None)
        loss, of_tokens = found if isinstance(found, tuple) else (found, None)
        loss = (loss.reshape(leading) if options.reduction == "none" else loss).astype(x.dtype)
        if of_tokens is None:
            return loss
        return loss, LossOutputs(*(None if t is None else t.reshape(leading) for t in of_tokens))

    def _hidden_and_log_prior(self, x: Array) -> tuple[Array, Array]:
        """What goes into the decoder, (N, K, D), and the mixtures' log-weights, (N, K)."""
        raise NotImplementedError

    def _logits_and_log_prior(self, x: Array) -> tuple[Array, Array]:
        hidden_NKD, log_prior_NK = self._hidden_and_log_prior(x)
        logits_NKV = mixture_logits(jnp, hidden_NKD, self.weight[...], self._own_bias())
        given = self._parameters(x)
        return activated(type(self).__name__, logits_NKV, self._formula(), given), log_prior_NK

    def _tokens(self, x: Array) -> Array:
        """The input as (N, D)."""
        name = type(self).__name__
        check_input(x, name, "x")
        check_x(x.shape, self.input_size, layer=name)
        return jnp.asarray(x).reshape(-1, self.input_size)

    def _set_logits(self, logits: Formula | FormulaModule | None) -> None:
        """Keep what stands between logits and softmax, if it can."""
        check_logits(type(self).__name__, logits)
        self.logits = logits

    def _formula(self) -> Formula | None:
        return self.logits.formula if isinstance(self.logits, FormulaModule) else self.logits

    def _parameters(self, x: Array) -> Mapping[str, Any] | None:
        return self.logits.parameter_values(x) if isinstance(self.logits, FormulaModule) else None

    def _own_bias(self) -> Array | None:
        return None if self.bias is None else self.bias[...]

    def _drawn(self, rngs: nnx.Rngs, dtype: DTypeLike, *shape: int) -> nnx.Param[Array]:
        return nnx.Param(self._uniform(rngs.params(), shape, dtype))

    def _uniform(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """As PyTorch's linear layers: within ±1/√D."""
        bound = 1 / math.sqrt(self.input_size)
        return jax.random.uniform(key, shape, dtype, -bound, bound)


def with_leading_dims(y: Array, x: Array) -> Array:
    """(N, …) as (leading dimensions of x, …), in x's dtype."""
    return y.reshape(*x.shape[:-1], *y.shape[1:]).astype(x.dtype)
