"""One softmax over a formula of linear logits as a Keras output layer.

Shape suffixes: N tokens, D features, V classes.
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
class SoftmaxHead(Head):
    """A softmax over a formula of linear logits.

    ``p(v | x) = softmax(φ(x @ weight.T + bias))_v``

    It takes the calls of :class:`MixtureOfSoftmaxes`.

    Args:
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        logits: φ, a formula of one input between logits and softmax, its name in the catalogue,
            "softcap" say, or a layer of it that learns its parameters,
            ``FormulaLayer("softcap", learnable=True)``; None for the logits as they are. A formula
            outside the catalogue is saved as a layer of a class of its own.
        bias: whether there is one.
        dropout: probability of dropping a feature of the input, in training.
        **kwargs: as every layer takes them, ``name`` and ``dtype`` say.

    Attributes:
        weight: (V, D), which may be an embedding's (``tie_weights``).
        bias: (V,) or None.
        logits: the formula's :class:`FormulaLayer`, or None.

    Shape: input (…, D) with any leading dimensions; output (…, V).

    Raises:
        ValueError: a size below 1, a dropout that is no probability, or an input with another last
            dimension.
        TypeError: ``logits`` that is no formula of one input, or an input that is not floating
            point.

    Example:
        >>> import numpy as np
        >>> from zeta.keras import SoftmaxHead
        >>> head = SoftmaxHead(128, 10, logits="softcap")
        >>> x = np.ones((32, 128), "float32")
        >>> tuple(head(x).shape)
        (32, 10)
        >>> loss = head.loss(x, np.arange(32) % 10, z_loss=1e-4)

    Source: Bridle 1990 for the softmax; the formula's own.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        *,
        logits: Formula | FormulaLayer | str | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        _, D, V = checked_sizes(1, input_size, num_classes, "shared", dropout, layer=name)
        super().__init__(D, V, "shared", logits, **kwargs)
        self.use_bias = bias
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Draw every weight."""
        check_x(input_shape, self.input_size, layer=type(self).__name__)
        self._build_decoder(bias=self.use_bias)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Probabilities (…, V)."""
        logits_N1V, _ = self._logits_and_log_prior(x, training)
        return self._with_leading_dims(ops.softmax(logits_N1V[:, 0], -1), x)

    def compute_output_spec(self, x: KerasTensor, training: bool | None = None) -> Any:
        """What a call answers, as a symbolic tensor."""
        check_float(x, type(self).__name__, "x")
        return KerasTensor(self.compute_output_shape(x.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """What builds the same layer."""
        return super().get_config() | {
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "bias": self.use_bias,
            "dropout": self.dropout.rate,
            **self._config(),
        }

    def _hidden_and_log_prior(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        x_ND = self._tokens(x)
        log_prior_N1 = ops.zeros((ops.shape(x_ND)[0], 1), compute_dtype(self.compute_dtype))
        return self.dropout(x_ND, training=training)[:, None], log_prior_N1
