"""Every layer by Keras's own tests, and what they do not cover; run by test_backends.py."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from differentiate import BACKEND
from keras import ops
from keras.src import testing

import zeta.keras
from zeta import activations, formula
from zeta.activations import rational

ONE_EACH = {"Exo": 1, "LearnableSELUVariation": 5, "LaplaceActivation": 2}


# Keras's own test trains from a generator, and layers without weights too.
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
class LayerTest(testing.TestCase):
    def test_the_backend_is_known(self):
        assert BACKEND in ("tensorflow", "jax", "torch")

    def check(self, cls, init_kwargs, trainable=0, fixed=0, shape=(2, 3, 4), **options):
        self.run_layer_test(
            cls,
            init_kwargs=init_kwargs,
            input_shape=shape,
            expected_output_shape=options.pop("expected_output_shape", shape),
            expected_num_trainable_weights=trainable,
            expected_num_non_trainable_weights=fixed,
            expected_num_seed_generators=options.pop("expected_num_seed_generators", 0),
            expected_num_losses=0,
            supports_masking=True,
            **options,
        )

    def test_exo(self):
        self.check(zeta.keras.Exo, {"alpha": 0.5})
        self.check(zeta.keras.Exo, {"learnable": True}, trainable=1)
        self.check(zeta.keras.Exo, {"learnable": True, "shared_axes": [1]}, trainable=1)
        self.check(zeta.keras.Exo, {"shared_axes": 2}, fixed=1)

    def test_learnable_selu_variation(self):
        self.check(zeta.keras.LearnableSELUVariation, {}, trainable=5)
        self.check(zeta.keras.LearnableSELUVariation, {"shared_axes": []}, trainable=5)

    def test_laplace_activation(self):
        self.check(zeta.keras.LaplaceActivation, {"mu": 0.1, "sigma": 0.7})
        self.check(zeta.keras.LaplaceActivation, {"learnable": True}, trainable=2)

    def test_formula_layer(self):
        arguments = {"formula": "elu", "values": {"alpha": 0.5}, "learnable": True}
        self.check(zeta.keras.FormulaLayer, arguments, trainable=1)
        self.check(zeta.keras.FormulaLayer, {"formula": "mish"})

    def test_selu_softmax(self):
        self.check(zeta.keras.SELUSoftmax, {"dim": 1})

    def test_softmax_head(self):
        sizes = {"input_size": 4, "num_classes": 5, "logits": "softcap"}
        self.check(zeta.keras.SoftmaxHead, sizes, trainable=2, expected_output_shape=(2, 3, 5))

    def test_mixture_of_softmaxes(self):
        sizes = {"num_mixtures": 2, "input_size": 4, "num_classes": 5}
        shapes = {"expected_output_shape": (2, 3, 5)}
        self.check(zeta.keras.MixtureOfSoftmaxes, sizes, trainable=4, **shapes)
        self.check(
            zeta.keras.MixtureOfSoftmaxes,
            sizes | {"decoder": "shared", "bias": False, "prior_bias": False, "dropout": 0.1},
            trainable=4,
            expected_num_seed_generators=1,
            # Keras's own dropout counts its seed's state.
            expected_num_non_trainable_variables=1,
            **shapes,
        )


@pytest.mark.parametrize("cls", ONE_EACH)
def test_starting_values_are_exact(cls):
    options = {} if cls == "LearnableSELUVariation" else {"learnable": True}
    layer = getattr(zeta.keras, cls)(**options)
    layer.build((None, 3))
    assert len(layer.trainable_variables) == ONE_EACH[cls]
    for variable in layer.trainable_variables:
        assert variable.shape == ()
        value = np.float32(layer.formula.parameters[variable.name])
        assert ops.convert_to_numpy(variable.value) == value


def test_one_parameter_per_channel_as_prelu_has_them():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("float32")
    layer = zeta.keras.Exo(learnable=True, shared_axes=[1, 2])
    layer.build(x.shape)
    prelu = keras.layers.PReLU(shared_axes=[1, 2])
    prelu.build(x.shape)
    assert layer.alpha.shape == prelu.alpha.shape == (1, 1, 3)
    values = np.array([0.5, 1.0, 1.5], "float32")
    layer.alpha.assign(values.reshape(1, 1, 3))
    y = ops.convert_to_numpy(layer(x))
    for channel, alpha in enumerate(values.tolist()):
        expected = activations.exo(x[..., channel], alpha)
        np.testing.assert_allclose(y[..., channel], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="expected axis 3"):
        layer(x[..., :2])


def test_groups_share_and_some_parameters_alone_are_learned():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    options = {"learnable": ["mu"], "shared_axes": {"mu": [1]}, "groups": 2}
    layer = zeta.keras.FormulaLayer("laplace", **options)
    layer.build(x.shape)
    assert [(v.name, v.shape) for v in layer.trainable_variables] == [("mu", (1, 2))]
    assert not layer.non_trainable_variables
    layer.mu.assign(np.array([[0.1, 0.9]], "float32"))
    y = ops.convert_to_numpy(layer(x))
    for group, mu in enumerate((0.1, 0.9)):
        part = x[..., 2 * group : 2 * group + 2]
        expected = activations.laplace(part, mu)
        found = y[..., 2 * group : 2 * group + 2]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    config = json.loads(json.dumps(layer.get_config()))
    again = zeta.keras.FormulaLayer.from_config(config)
    assert (again.learnable, again.shared_axes, again.groups) == (("mu",), {"mu": [1]}, 2)
    for wrong, error, message in (
        ({"groups": 2}, ValueError, "groups must be at least 1, with shared_axes beside it"),
        ({"shared_axes": {"nu": 1}}, TypeError, "shared_axes has 'nu', which is not a parameter"),
        ({"learnable": "nu"}, TypeError, "learnable='nu' is not a parameter; it has mu, sigma"),
    ):
        with pytest.raises(error, match=message):
            zeta.keras.FormulaLayer("laplace", **wrong)
    with pytest.raises(ValueError, match="axis 2 of size 4 cannot be divided into 3 groups"):
        zeta.keras.FormulaLayer("laplace", shared_axes=1, groups=3).build(x.shape)


def test_a_vector_is_saved_with_its_length(tmp_path):
    shorter = rational.with_defaults(numerator=(0.0, 1.0))
    layers = [
        zeta.keras.FormulaLayer(rational, {"denominator": [1, 2, 3, 4]}, learnable="numerator"),
        zeta.keras.FormulaLayer(shorter, shared_axes=[1], groups=2),
    ]
    model = keras.Sequential([keras.Input((3, 4)), *layers])
    assert [v.shape for v in model.trainable_variables] == [(6,), (2, 1, 2), (4, 1, 2)]
    start = ops.convert_to_numpy(layers[1].denominator.value)
    np.testing.assert_array_equal(start[:, 0, 1], np.float32(rational.parameters["denominator"]))
    x = np.random.default_rng(0).normal(size=(8, 3, 4)).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, np.ones_like(x), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert again.layers[1].formula.parameters["numerator"] == (0.0, 1.0)


def test_shared_axes_are_any_integers_and_are_saved_as_a_list():
    for shared_axes in (1, np.int64(1), (1,), np.array([1]), range(1, 2)):
        layer = zeta.keras.Exo(shared_axes=shared_axes)
        config = json.loads(json.dumps(layer.get_config()))
        assert config["shared_axes"] == [1]
        assert zeta.keras.Exo.from_config(config).shared_axes == [1]


def test_shared_axes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"shared_axes 3 is no axis .* accepted: 1 to 2"):
        zeta.keras.Exo(shared_axes=[3]).build((None, 4, 5))
    with pytest.raises(ValueError, match=r"axis 1 of the input's shape .* has no fixed size"):
        zeta.keras.Exo(shared_axes=[2]).build((None, None, 5))
    with pytest.raises(TypeError, match="'beta' is not a parameter"):
        zeta.keras.FormulaLayer("exo", {"beta": 1.0})


def test_mixed_precision_keeps_parameters_in_float32_and_rounds_once():
    x = ops.cast(np.linspace(-4, 4, 101, dtype="float32"), "bfloat16")
    layer = zeta.keras.LearnableSELUVariation(dtype="mixed_bfloat16")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {v.dtype for v in layer.variables} == {"float32"}
    wide = zeta.keras.learnable_selu_variation(ops.cast(x, "float32"))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(y, "float32")),
        ops.convert_to_numpy(ops.cast(ops.cast(wide, "bfloat16"), "float32")),
    )


def test_values_given_to_laplaces_call_win():
    x = np.linspace(-1, 2, 5, dtype="float32")
    layer = zeta.keras.LaplaceActivation(learnable=True)
    for given in ({"mu": 0.1, "sigma": 0.7}, {"mu": 0.1}, {"sigma": 0.7}):
        expected = activations.laplace(x, **given)
        y = ops.convert_to_numpy(layer(x, **given))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_a_users_formula_is_a_layer_but_is_not_saved_by_name():
    double = formula(factor=2.0)(lambda x, factor: factor * x)
    layer = zeta.keras.FormulaLayer(double, learnable=True)
    y = ops.convert_to_numpy(layer(np.ones((1, 2), "float32")))
    assert y.tolist() == [[2, 2]]
    with pytest.raises(ValueError, match="is not in zeta's catalogue"):
        layer.get_config()
    taken = formula(name=1.0)(lambda x, name: name * x)
    with pytest.raises(ValueError, match="layers have an attribute 'name' of their own"):
        zeta.keras.FormulaLayer(taken)


@pytest.mark.skipif(BACKEND != "torch", reason="what is saved is the same on each backend")
def test_a_saved_model_loads_in_a_fresh_process(tmp_path, clean_env):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, activation=zeta.keras.exo),
            zeta.keras.Exo(learnable=True, shared_axes=[]),
            zeta.keras.LearnableSELUVariation(),
            zeta.keras.LaplaceActivation(learnable=True),
            zeta.keras.FormulaLayer("gelu"),
            keras.layers.Dense(4, activation=zeta.keras.Exo(0.5)),
            zeta.keras.MixtureOfSoftmaxes(3, 4, 5, decoder="shared"),
            zeta.keras.SELUSoftmax(),
        ]
    )
    x = np.random.default_rng(0).normal(size=(7, 6)).astype("float32")
    for variable in model.trainable_variables:
        variable.assign(variable.value * 1.1)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    code = """
import keras, numpy, zeta.keras
model = keras.saving.load_model("model.keras")
numpy.save("y.npy", keras.ops.convert_to_numpy(model(numpy.load("x.npy"))))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean_env, check=True)
    expected = ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-6)
