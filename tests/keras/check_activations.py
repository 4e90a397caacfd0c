"""The catalogue on Keras tensors, run by test_backends.py on each backend."""

import functools
import math
import pickle

import hypothesis
import keras
import mpmath
import numpy as np
import pytest
from differentiate import BACKEND, value_and_gradients, values_and_gradients
from hypothesis import strategies as st
from keras import ops

import parity
import zeta.keras
import zeta.math as zm
from cases import LIMITS, SHARE, name
from zeta import activations

# XLA and TensorFlow take subnormal numbers for 0 on processors.
FLUSHED = 0.0 if BACKEND == "torch" else float(np.finfo(np.float32).smallest_normal)

# XLA takes a minute to compile them.
numbers_of_the_backend = pytest.mark.skipif(
    BACKEND == "jax",
    reason="zeta.jax's numbers, which tests/jax/test_activations.py holds to mpmath",
)


def run(f, x, dtype):
    x = ops.cast(np.asarray(x, np.float32), dtype)
    parameters = [np.full(x.shape, v, np.float32) for v in f.flat(f.parameters).values()]
    value, gradients = value_and_gradients(by_scalars(f), [x, *parameters])
    return {"value": value} | dict(zip(["x", *f.scalars], gradients, strict=True))


@functools.cache  # one function for each: programs are compiled for a function
def by_scalars(f):
    """The function of x and of all numbers, a vector's one by one."""
    function = getattr(zeta.keras, f.name)
    return lambda x, *numbers: function(x, **f.grouped(dict(zip(f.scalars, numbers, strict=True))))


@pytest.mark.parametrize("primitive", sorted(set(zm.__all__) - {"piecewise"}))
def test_primitives_agree_with_mpmath(primitive):
    function = getattr(zm, primitive)
    of_two = ("hypot", "logaddexp", "maximum", "minimum", "remainder", "with_gradient")
    further = (-0.5, 0.5) if primitive == "clip" else (0.25,) * (primitive in of_two)
    points = [0.3, 1.7, 4.2] if primitive in ("log", "rsqrt", "sqrt") else [-0.9, 0.3, 1.7]
    expected = [float(function(mpmath.mpf(x), *further)) for x in points]
    y = function(ops.convert_to_tensor(np.array(points, np.float32)), *further)
    assert ops.convert_to_numpy(y).tolist() == pytest.approx(expected, rel=1e-6)


def test_clip_stops_the_gradient_at_its_bounds_and_branches_keep_nan():
    _, (slopes,) = value_and_gradients(
        lambda x: zm.clip(x, 0, 1), [np.array([-0.1, 0.0, 0.5, 1.0, 1.1], np.float32)]
    )
    assert slopes.tolist() == [0, 0, 1, 0, 0]
    x = ops.convert_to_tensor(np.array([-1.0, 1.0, math.nan], np.float32))
    y = zm.piecewise(x, positive=lambda x: 1, otherwise=lambda x: 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(y), [0, 1, math.nan])


@numbers_of_the_backend
@pytest.mark.parametrize("dtype", parity.DTYPES)
@pytest.mark.parametrize("f", SHARE, ids=name)
def test_values_and_gradients_match_mpmath(f, dtype):
    parity.check_grid(run, f, dtype, FLUSHED)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tests/test_fuzz.py draws PyTorch's and JAX's")
@pytest.mark.parametrize("dtype", parity.DTYPES)
@pytest.mark.parametrize("f", SHARE, ids=name)
@hypothesis.settings(max_examples=5)
@hypothesis.given(data=st.data())
def test_drawn_inputs(f, dtype, data):
    parity.check_drawn(run, f, data.draw(parity.drawn_points(dtype)), dtype, FLUSHED)


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_limits_and_nan(f):
    y = getattr(zeta.keras, f.name)(np.array([-math.inf, math.inf, math.nan], np.float32))
    at_minus, at_plus, at_nan = ops.convert_to_numpy(y).tolist()
    lower, upper = LIMITS[f.name]
    assert math.isnan(at_nan)
    assert lower is None or at_minus == pytest.approx(lower, rel=1e-6)
    assert upper is None or at_plus == pytest.approx(upper, rel=1e-6)


def test_the_largest_numbers_do_not_spoil_shared_parameters():
    largest = np.finfo(np.float32).max
    x = np.array([-largest, -1.0, 0.0, 1.0, largest], np.float32)
    calls = [
        (getattr(zeta.keras, f.name), [x, *map(np.float32, f.parameters.values())]) for f in SHARE
    ]
    for f, (_, gradients) in zip(SHARE, values_and_gradients(calls), strict=True):
        assert not any(np.isnan(g).any() for g in gradients), f


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_as_an_activation_of_a_layer_and_in_a_functional_model(f, tmp_path):
    function = getattr(zeta.keras, f.name)
    x = inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation=function)(x)
    model = keras.Model(inputs, function(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    points = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    expected = ops.convert_to_numpy(model(points))
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(points)), expected)


def test_a_name_is_one_of_keras_own():
    """What the page on frameworks says: to be mended there when Keras looks further."""
    with pytest.raises(ValueError, match="Could not interpret activation function identifier: exo"):
        keras.layers.Dense(2, activation="exo")
    assert keras.layers.Dense(2, activation="mish").activation is keras.activations.mish


def test_symbolic_tensors_take_parameters():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, zeta.keras.exo(inputs, alpha=0.5))
    x = np.linspace(-2, 2, 3, dtype="float32")[None]
    expected = activations.exo(x, 0.5)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, rtol=1e-6)


def test_a_parameter_may_be_the_only_symbolic_tensor():
    alpha = keras.Input(())
    x = np.linspace(-2, 2, 3, dtype="float32")
    model = keras.Model(alpha, zeta.keras.exo(x, alpha=ops.mean(alpha)))
    y = ops.convert_to_numpy(model(np.array([0.5], "float32")))
    np.testing.assert_allclose(y, activations.exo(x, 0.5), rtol=1e-6)


def test_selu_softmax_is_numpys():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    for dim in (0, 1, -1):
        e = np.exp(activations.selu(x.astype(np.float64)))
        y = ops.convert_to_numpy(zeta.keras.selu_softmax(ops.convert_to_tensor(x), dim))
        np.testing.assert_allclose(y, e / e.sum(dim, keepdims=True), rtol=1e-5)
    largest = np.finfo(np.float32).max
    y = zeta.keras.selu_softmax(ops.convert_to_tensor([largest, 0.0, -largest]), -1)
    assert ops.convert_to_numpy(y).tolist() == [1, 0, 0]


def test_functions_pickle_and_know_their_signature():
    import inspect

    assert pickle.loads(pickle.dumps(zeta.keras.exo)) is zeta.keras.exo
    assert str(inspect.signature(zeta.keras.laplace)) == "(x, mu=0.707107, sigma=0.282095)"
    assert set(activations.CATALOGUE) < set(zeta.keras.__all__) & set(dir(zeta.keras))
    with pytest.raises(AttributeError, match=r"'zeta\.keras' has no attribute 'gelo'"):
        zeta.keras.gelo  # noqa: B018


def test_bad_input_is_named():
    x = np.zeros((2, 3), np.float32)
    for arguments, error, message in [
        ((np.arange(3),), TypeError, "exo: input must be a floating-point (tensor|array)"),
        ((x, np.ones(2, "f")), ValueError, r"alpha of shape \(2,\) does not broadcast"),
        ((x, np.ones((4, 2, 3), "f")), ValueError, "alpha of shape .* does not broadcast"),
        ((x, "1.0"), TypeError, "exo: alpha must be a number or an? (.*Tensor|array), got str"),
        ((x, np.ones(3, int)), TypeError, "exo: alpha must be a floating-point"),
        ((x, 1.0, 2.0), TypeError, "takes 1 parameters, got 2"),
    ]:
        with pytest.raises(error, match=message):
            zeta.keras.exo(*arguments)
    symbolic = keras.Input((3,))
    with pytest.raises(ValueError, match=r"alpha of shape \(2,\) does not broadcast"):
        zeta.keras.exo(symbolic, np.ones(2, "f"))
    with pytest.raises(TypeError, match=r"exo: alpha must be a number or an? (.*Tensor|array)"):
        zeta.keras.exo(symbolic, "1.0")
    with pytest.raises(TypeError, match="exo: input must be a floating-point"):
        zeta.keras.exo(keras.Input((3,), dtype="int32"))
    with pytest.raises(TypeError, match="selu_softmax: input must be a floating-point tensor"):
        zeta.keras.selu_softmax(ops.convert_to_tensor(np.arange(3)))
    with pytest.raises(IndexError, match=r"dim must be in \[-1, 0\], got 1"):
        zeta.keras.selu_softmax(ops.ones(3), dim=1)
    with pytest.raises(IndexError, match=r"dim must be in \[-2, 1\], got 2"):
        zeta.keras.SELUSoftmax(dim=2)(symbolic)
