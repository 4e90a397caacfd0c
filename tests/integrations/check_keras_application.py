"""Surgery on an architecture of keras.applications; run by tests/keras/test_backends.py."""

import keras
import numpy as np
from keras import layers

import zeta
from zeta.keras import Exo


def test_an_application():
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=3
    )
    report = zeta.replace_activations(model, layers.ReLU, "exo")
    assert len(report.replaced) == 35
    assert sum(isinstance(layer, Exo) for layer in report.model.layers) == 35
    y = report.model.predict_on_batch(np.zeros((1, 32, 32, 3), "float32"))
    assert np.isfinite(y).all()
    assert y.shape == (1, 3)
