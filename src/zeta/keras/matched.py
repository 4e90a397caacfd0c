"""What gain matching puts into a Keras model."""

from __future__ import annotations

from typing import Any

import keras

from zeta._modules import IsMatched
from zeta.keras.functions import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class Matched(keras.Layer, IsMatched):
    """An activation matched to the one it replaced, ``gain·f(x) + shift``.

    Args:
        activation: the layer that computes f.
        axis: the dimension that holds the channels; None for one shift for all.
        **kwargs: ``keras.Layer``'s.

    Gain and shifts, one per channel, are weights that are saved and not trained.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from zeta.keras.matched import Matched
        >>> matched = Matched(keras.layers.ReLU())
        >>> matched.build((None, 2))
        >>> matched.set_weights([np.array(0.5), np.array([1.0, 0.0])])
        >>> keras.ops.convert_to_numpy(matched(keras.ops.array([[-1.0, 2.0]])))
        array([[1., 1.]], dtype=float32)
    """

    def __init__(self, activation: Any, axis: int | None = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation
        self.axis = axis
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights, and those of the activation."""
        if not self.activation.built:
            self.activation.build(input_shape)
        shape = () if self.axis is None else (input_shape[self.axis],)
        options = {"trainable": False}
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain", **options)
        self.shift = self.add_weight(shape=shape, initializer="zeros", name="shift", **options)

    def call(self, inputs: Any) -> Any:
        """The matched activation, in the activation's dtype."""
        y = self.activation(inputs)
        shift = keras.ops.cast(self.shift, y.dtype)
        if self.axis is not None:
            around = [1] * len(y.shape)
            around[self.axis] = -1
            shift = keras.ops.reshape(shift, around)
        return y * keras.ops.cast(self.gain, y.dtype) + shift

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` takes."""
        activation = keras.saving.serialize_keras_object(self.activation)
        return {**super().get_config(), "activation": activation, "axis": self.axis}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Matched:
        """The layer that ``get_config`` described."""
        activation = keras.saving.deserialize_keras_object(config["activation"])
        return cls(**{**config, "activation": activation})
