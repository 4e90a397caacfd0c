"""Model surgery on Keras models; run by tests/keras/test_backends.py on each backend."""

import keras
import numpy as np
import pytest
from keras import layers

import zeta
from zeta.keras import Exo, FormulaLayer, LearnableSELUVariation

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
    assert not report.not_looked


@keras.saving.register_keras_serializable()
class Inner(layers.Layer):
    def call(self, x):
        return keras.activations.silu(x)


@keras.saving.register_keras_serializable()
class Outer(layers.Layer):
    """Calls functions of Keras, a layer with code of its own, and a layer that is an activation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.inner, self.act = (
            layers.Dense(3),
            Inner(name="inner"),
            layers.ELU(name="act"),
        )

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, x, training=False):
        return self.act(self.inner(keras.ops.leaky_relu(self.dense(x * self.scale))))


@keras.saving.register_keras_serializable()
class Opaque(layers.Layer):
    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("as functions of a backend do")
        return x


def test_code_that_cannot_be_traced_is_named():
    model = keras.Sequential([keras.Input((4,)), Opaque(name="opaque"), layers.ReLU()])
    report = zeta.replace_activations(model, "relu", Exo)
    assert report.not_looked.startswith("Keras cannot trace the code of opaque")


def test_calls_in_the_code_of_layers_are_reported():
    model = keras.Sequential([keras.Input((4,)), Outer(name="outer"), layers.ReLU()])
    before = outputs(model)
    report = zeta.replace_activations(model, layers.ReLU, layers.ReLU)
    found = {(call.function, call.module) for call in report.calls}
    assert found == {("leaky_relu", "outer"), ("silu", "outer/inner"), ("elu", "outer/act")}
    assert not report.not_looked
    np.testing.assert_array_equal(outputs(report.model), before)
    assert len(model.layers[0]._inbound_nodes) == 1


def fitted(f, g):
    """Least squares by another route: one column for the gain, one per channel for the shifts."""
    n, channels = g.shape
    columns = np.concatenate([g.T.reshape(-1, 1), np.kron(np.eye(channels), np.ones((n, 1)))], 1)
    gain, *shift = np.linalg.lstsq(columns, f.T.reshape(-1), rcond=None)[0]
    return gain, np.array(shift)


@pytest.mark.parametrize("as_argument", [False, True])
def test_gain_and_shifts_are_those_of_least_squares(as_argument, tmp_path):
    keras.utils.set_random_seed(1)
    dense = layers.Dense(3, activation="relu" if as_argument else None)
    rest = [] if as_argument else [layers.ReLU()]
    model = keras.Sequential([keras.Input((4,)), dense, *rest])
    pre = X @ keras.ops.convert_to_numpy(dense.kernel)
    exo = keras.ops.convert_to_numpy(Exo()(pre))
    gain, shift = fitted(np.maximum(pre, 0), exo)
    before = outputs(model)
    report = zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=X)
    assert report.replaced[0].gain == pytest.approx(gain, rel=1e-4)
    np.testing.assert_allclose(outputs(report.model), gain * exo + shift, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(outputs(model), before)
    assert len(report.model.trainable_weights) == 2
    report.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(report.model))


def test_every_place_is_matched():
    for inputs in (X, None):
        report = zeta.replace_activations(
            functional(), "relu", LearnableSELUVariation, match_gain=True, example_inputs=inputs
        )
        assert all(replaced.gain for replaced in report.replaced)
        assert len(report.replaced) == 3
        assert not report.not_called


def test_channels_first_by_the_layers_before():
    axis_1 = [keras.Input((3, 4, 5)), layers.BatchNormalization(axis=1), layers.ReLU()]
    options = {"match_gain": True, "example_inputs": np.ones((2, 3, 4, 5), "float32")}
    matched = zeta.replace_activations(keras.Sequential(axis_1), "relu", Exo, **options).model
    assert matched.layers[-1].shift.shape == (3,)


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    try:
        model = keras.Sequential([keras.Input((3, 4, 5)), layers.ReLU()])
        x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
        matched = zeta.replace_activations(
            model, "relu", Exo, match_gain=True, example_inputs=x
        ).model
        assert matched.layers[-1].shift.shape == (3,)
        assert matched(x).shape == x.shape
    finally:
        keras.config.set_image_data_format("channels_last")


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


def test_the_former_model_outlives_training_of_the_new_one():
    """JAX's `fit` and `predict` give away the arrays that they are called with."""
    model = functional()
    before = outputs(model)
    report = zeta.replace_activations(model, "relu", "exo")
    report.model.compile("sgd", "mse")
    report.model.fit(X, np.ones((5, 3)), verbose=0)
    np.testing.assert_array_equal(outputs(report.undo()), before)


def test_what_is_trained_stays_so():
    @keras.saving.register_keras_serializable()
    class Half(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.frozen, self.free = layers.Dense(3), layers.Dense(3)
            self.frozen.trainable = False

        def call(self, x):
            return self.free(self.frozen(x))

    model = keras.Sequential([keras.Input((4,)), Half(), layers.Dense(2), layers.ReLU()])
    model.layers[1].trainable = False
    new = zeta.replace_activations(model, "relu", Exo).model
    trained = [v.path.split("/")[-2:] for v in new.trainable_weights]
    assert len(trained) == len(model.trainable_weights) == 2


@pytest.mark.parametrize("activation", ["layer", "argument"])
def test_surgery_after_surgery(activation):
    """A matched activation is replaced as a whole, with its weights."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.ReLU()])
    if activation == "argument":
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")])
    options = {"match_gain": True, "example_inputs": X}
    first = zeta.replace_activations(model, "relu", lambda: Exo(learnable=True), **options)
    second = zeta.replace_activations(
        first.model, "exo", lambda: FormulaLayer(zeta.activations.relu)
    )
    assert second.replaced[0].old == "Exo"
    assert [line.split(": ")[1] for line in second.lost] == ["gain, shift, alpha of Exo"]
    np.testing.assert_allclose(outputs(second.model), outputs(model), rtol=1e-6)
    assert len(second.model.weights) == 2
    third = zeta.replace_activations(first.model, "exo", "tanh", **options)
    assert third.replaced[0].gain


def test_activations_within_layers_are_reported():
    inputs = keras.Input((5, 4))
    x = layers.TimeDistributed(layers.Dense(3, activation="relu", name="d"), name="td")(inputs)
    x = layers.Bidirectional(layers.LSTM(2, activation="elu", name="lstm"), name="both")(x)
    model = keras.Model(inputs, layers.ReLU()(x))
    report = zeta.replace_activations(model, layers.ReLU, Exo)
    found = {(call.function, call.module) for call in report.calls}
    assert {("relu", "td/d"), ("elu", "both/forward_lstm")} <= found


def test_one_activation_at_two_widths_has_one_shift():
    inputs, shared = keras.Input((4,)), layers.ReLU(name="shared")
    model = keras.Model(inputs, shared(layers.Dense(1)(shared(layers.Dense(8)(inputs)))))
    options = {"match_gain": True, "example_inputs": X}
    matched = zeta.replace_activations(model, "relu", Exo, **options).model
    assert matched(X).shape == (5, 1)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_errors():
    with pytest.raises(ValueError, match=r"it has: .*Dense ×3.*ReLU.*Called as functions"):
        zeta.replace_activations(functional(), "silu", Exo)
    kept = [layers.Dense(2, activation="leaky_relu"), layers.Activation("glu")]
    model = keras.Sequential([keras.Input((4,)), *kept])
    with pytest.raises(ValueError, match=r"type LeakyReLU; .*Did you mean 'leaky_relu' \(1 of"):
        zeta.replace_activations(model, layers.LeakyReLU, Exo)
    with pytest.raises(ValueError, match="glu halves the width"):
        zeta.replace_activations(model, "glu", Exo)
    with pytest.raises(TypeError, match="subclassed Keras model"):
        zeta.replace_activations(Subclassed(), "relu", Exo)
    with pytest.raises(TypeError, match="must make a Keras layer, not dict"):
        zeta.replace_activations(functional(), "relu", dict)
    with pytest.raises(TypeError, match="a class or function"):
        zeta.replace_activations(functional(), "relu", Exo())
    with pytest.raises(TypeError, match="for models; this is a single layer"):
        zeta.replace_activations(layers.ReLU(), "relu", Exo, match_gain=True)
    one = Exo()
    with pytest.raises(TypeError, match="the same module again"):
        zeta.replace_activations(functional(), "relu", lambda: one)
    with pytest.raises(ValueError, match="call it once"):
        zeta.replace_activations(keras.Sequential([layers.ReLU()]), "relu", Exo)
    double = layers.Lambda(lambda x: 2 * x, name="lambda")
    with_lambda = keras.Sequential([keras.Input((4,)), double, layers.ReLU()])
    with pytest.raises(TypeError, match=r"lambda \(Lambda\) cannot be cloned"):
        zeta.replace_activations(with_lambda, "relu", Exo)
    per_channel = keras.Sequential([keras.Input((4,)), layers.PReLU()])
    with pytest.raises(ValueError, match="give example_inputs"):
        zeta.replace_activations(per_channel, layers.PReLU, Exo, match_gain=True)
