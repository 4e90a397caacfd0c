"""Model surgery on Keras models; run by test_keras.py on each backend."""

import keras
import numpy as np
import pytest
from keras import layers

import zeta
from zeta.keras import Exo, LearnableSELUVariation

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def functional():
    """Activations as layers, one of them shared, as arguments, as an operation, and nested."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    shared = layers.ReLU(name="shared")
    x = shared(layers.Dense(3, activation="relu", name="first")(inputs))
    x = shared(layers.Dense(3, name="second")(x))
    x = x + keras.ops.relu(x)
    nested = [layers.Dense(3), layers.Activation("relu", name="act"), layers.BatchNormalization()]
    return keras.Model(inputs, keras.Sequential([keras.Input((3,)), *nested], name="nested")(x))


def sequential():
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, layers.Dense(2, activation="relu", name="deep")(inputs))
    dense = layers.Dense(3, activation="gelu")
    return keras.Sequential([keras.Input((4,)), dense, layers.ReLU(name="act"), inner])


def outputs(model):
    return keras.ops.convert_to_numpy(model(X))


def names(report):
    return [replaced.name for replaced in report.replaced]


SELECTIONS = {
    "name": ("relu", ["first.activation", "shared", "act"]),
    "type": (layers.ReLU, ["shared"]),
    "tuple": ((layers.ReLU, layers.Activation), ["shared", "act"]),
    "pattern": ("*.activation", ["first.activation"]),
    "predicate": (lambda _, value: value is keras.activations.relu, ["first.activation", "act"]),
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_selects_by(kind):
    what, expected = SELECTIONS[kind]
    model = functional()
    before = outputs(model)
    report = zeta.replace_activations(model, what, LearnableSELUVariation)
    learned = [w for w in report.model.trainable_weights if len(w.shape) == 0]
    assert names(report) == expected
    assert len(learned) == 5 * len(expected)
    assert not np.allclose(outputs(report.model), before)
    assert report.undo() is model
    np.testing.assert_array_equal(outputs(model), before)


def test_the_copy_has_the_same_weights():
    model = functional()
    model.layers[1].trainable = False
    report = zeta.replace_activations(model, layers.ReLU, layers.ReLU)
    np.testing.assert_array_equal(outputs(report.model), outputs(model))
    assert not report.model.layers[1].trainable
    after, before = ([layer.name for layer in m.layers[1:]] for m in (report.model, model))
    assert after == before


def test_models_within_a_sequential_one():
    report = zeta.replace_activations(sequential(), "relu", "exo")
    assert names(report) == ["act", "deep.activation"]


def test_operations_are_reported():
    report = zeta.replace_activations(functional(), "relu", "exo")
    assert [call.function for call in report.calls] == ["relu"]
    assert report.not_looked


def test_trains_is_saved_and_loaded(tmp_path):
    model = zeta.replace_activations(functional(), "relu", "learnable_selu_variation").model
    model.compile("adam", "mse")
    before = list(map(keras.ops.convert_to_numpy, model.trainable_weights))
    model.fit(X, np.ones((5, 3)), verbose=0)
    after = list(map(keras.ops.convert_to_numpy, model.trainable_weights))
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(moved) > len(moved) / 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(model))


def test_dtype_policy_and_name():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.ReLU(dtype="mixed_float16", name="half")]
    )
    new = zeta.replace_activations(model, layers.ReLU, Exo).model.layers[-1]
    assert new.name == "half"
    assert new.dtype_policy.name == "mixed_float16"


def test_a_layer_by_itself():
    layer = layers.ReLU()
    report = zeta.replace_activations(layer, layers.ReLU, "exo")
    assert isinstance(report.model, Exo)
    assert report.undo() is layer


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_errors():
    with pytest.raises(ValueError, match=r"it has: .*Dense ×3.*ReLU.*Called as functions"):
        zeta.replace_activations(functional(), "silu", Exo)
    with pytest.raises(TypeError, match="subclassed Keras model"):
        zeta.replace_activations(Subclassed(), "relu", Exo)
    with pytest.raises(TypeError, match="must make a Keras layer, not dict"):
        zeta.replace_activations(functional(), "relu", dict)
    with pytest.raises(TypeError, match="a class or function"):
        zeta.replace_activations(functional(), "relu", Exo())
