"""Handwritten digits in Keras: a learnable Exo and a mixture of softmaxes.

Run: KERAS_BACKEND=tensorflow python examples/digits_keras.py  (or jax, or torch)
"""

from typing import Any

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from zeta.keras import Exo, MixtureOfSoftmaxes


class Model(keras.Model):
    """One hidden layer, its activation with one alpha per unit."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(64)
        self.activation = Exo(learnable=True, shared_axes=[])
        self.head = MixtureOfSoftmaxes(num_mixtures=3, input_size=64, num_classes=10)

    def features(self, x: Any) -> Any:
        """What the head takes."""
        return self.activation(self.dense(x))

    def call(self, x: Any) -> Any:
        """Probabilities."""
        return self.head(self.features(x))

    def compute_loss(self, x: Any = None, y: Any = None, *_: Any, **__: Any) -> Any:
        """The head's own loss takes features, not probabilities: all in log space."""
        return self.head.loss(self.features(x), y)


def main(epochs: int = 20) -> float:
    """Train, and give the accuracy on held-out images."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (images / 16).astype("float32"), labels.astype("int32"), random_state=0
    )
    model = Model()
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(x_train, y_train, batch_size=128, epochs=epochs, verbose=0)
    return float((model.predict(x_test, verbose=0).argmax(-1) == y_test).mean())


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
