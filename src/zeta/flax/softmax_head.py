"""One softmax over a formula of linear logits as an NNX output layer.

Shape suffixes: N tokens, D features, V classes.
"""

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


class SoftmaxHead(Head):
    """A softmax over a formula of linear logits.

    ``p(v | x) = softmax(φ(x @ weight.T + bias))_v``

    It takes the calls of :class:`MixtureOfSoftmaxes`.

    Args:
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        logits: φ, a formula of one input between logits and softmax, such as
            ``zeta.activations.softcap``, or a module of it that learns its parameters,
            ``FormulaModule(softcap, learnable=True)``; None for the logits as they are.
        bias: whether there is one.
        dropout: probability of dropping a feature of the input, in training.
        param_dtype: of the parameters.
        rngs: draws the weights, uniform within ±1/√D, and the dropout; the stream "dropout" is
            needed for a dropout above 0 alone.

    Attributes:
        weight: (V, D), which may be an embedding's (:meth:`tie_weights`).
        bias: (V,) or None.
        logits: as given.

    Shape: input (…, D) with any leading dimensions; output (…, V).

    Raises:
        ValueError: a size below 1, a dropout that is no probability, or an input with another last
            dimension.
        TypeError: ``logits`` that is no formula of one input, or an input that is not floating
            point.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from zeta.activations import softcap
        >>> from zeta.flax import SoftmaxHead
        >>> head = SoftmaxHead(128, 10, logits=softcap, rngs=nnx.Rngs(0))
        >>> head(jnp.ones((32, 128))).shape
        (32, 10)
        >>> loss = head.loss(jnp.ones((32, 128)), jnp.arange(32) % 10, z_loss=1e-4)

    Source: Bridle 1990 for the softmax; the formula's own.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        *,
        logits: Formula | FormulaModule | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        name = type(self).__name__
        _, D, V = checked_sizes(1, input_size, num_classes, "shared", dropout, layer=name)
        self.input_size, self.num_classes = D, V
        self.decoder = "shared"
        self._set_logits(logits)
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)
        self.weight = self._drawn(rngs, param_dtype, V, D)
        self.bias = self._drawn(rngs, param_dtype, V) if bias else None

    def __call__(self, x: Array) -> Array:
        """Probabilities (…, V)."""
        logits_N1V, _ = self._logits_and_log_prior(x)
        return with_leading_dims(jax.nn.softmax(logits_N1V[:, 0]), x)

    def _hidden_and_log_prior(self, x: Array) -> tuple[Array, Array]:
        x_ND = self._tokens(x)
        log_prior_N1 = jnp.zeros((x_ND.shape[0], 1), compute_dtype(x.dtype))
        return self.dropout(x_ND)[:, None].astype(self.weight.dtype), log_prior_N1
