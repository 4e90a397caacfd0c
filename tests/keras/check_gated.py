"""Gates as Keras functions and as a layer, on the backend; run by test_backends.py."""

import keras
import numpy as np
import pytest
from keras import ops

import zeta.keras
from cases import GATES_IN_LAYOUTS, name
from zeta import activations
from zeta.activations import GATES

PACKED = np.random.default_rng(0).standard_normal((3, 8)).astype("float32") * 4


def numbers(y):
    return ops.convert_to_numpy(ops.cast(y, "float32"))


def halves(layout, gate_first):
    parts = [PACKED[:, :4], PACKED[:, 4:]]
    parts = parts if layout == "halves" else [PACKED[:, ::2], PACKED[:, 1::2]]
    return parts if gate_first else parts[::-1]


@pytest.mark.parametrize(("f", "layout", "gate_first"), GATES_IN_LAYOUTS, ids=name)
def test_functions_and_layer_give_numpys_numbers(f, layout, gate_first):
    gate, value = halves(layout, gate_first)
    expected = f(gate.astype("float64"), value.astype("float64"))
    close = {"rtol": 1e-5, "atol": 1e-4}
    options = {"layout": layout, "gate_first": gate_first}
    two = numbers(getattr(zeta.keras, f.name)(gate, value))
    np.testing.assert_allclose(two, expected, **close)
    np.testing.assert_allclose(
        numbers(zeta.keras.gated(f.name, PACKED, **options)), expected, **close
    )
    unit = zeta.keras.GatedUnit(f.name, **options)
    np.testing.assert_allclose(numbers(unit(PACKED)), expected, **close)
    np.testing.assert_allclose(numbers(unit(gate, value)), expected, **close)


def test_half_precision_is_rounded_once():
    y = zeta.keras.gated("swiglu", ops.cast(PACKED, "bfloat16"))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    gate, value = np.split(numbers(ops.cast(PACKED, "bfloat16")), 2, -1)
    np.testing.assert_allclose(numbers(y), GATES["swiglu"](gate, value), rtol=2**-8)
    unit = zeta.keras.GatedUnit("swiglu_oai", learnable=True, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(unit(PACKED).dtype) == "bfloat16"
    assert all(w.dtype == "float32" for w in unit.weights)


@pytest.mark.parametrize("two", [False, True])
def test_a_model_is_saved_trained_and_loaded(two, tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    unit = zeta.keras.GatedUnit("swiglu_oai", {"limit": 0.5}, learnable=True, shared_axes=[])
    dense = keras.layers.Dense(8)
    y = unit(dense(x), keras.layers.Dense(8)(x)) if two else unit(dense(x))
    half = zeta.keras.gated("geglu", keras.layers.Dense(6)(y), layout="interleaved")
    model = keras.Model(x, zeta.keras.swiglu(half, half))
    assert model.output_shape == (None, 3)
    assert unit.limit.shape == ((8,) if two else (4,))
    before = numbers(unit.alpha.value).copy()  # whose gradient is no clamp's
    model.compile("sgd", "mse")
    model.fit(PACKED, np.ones((3, 3)), epochs=1, verbose=0)
    assert (numbers(unit.alpha.value) != before).any()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(loaded(PACKED)), numbers(model(PACKED)), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: zeta.keras.GatedUnit("mish"), TypeError, "has 1 inputs"),
        (lambda: zeta.keras.gated("swiglu", PACKED[:, :7]), ValueError, "must be even"),
        (lambda: zeta.keras.gated("swiglu", PACKED, layout="thirds"), ValueError, "'thirds'"),
        (lambda: zeta.keras.gated("swiglu", np.ones((2, 4), "int32")), TypeError, "int32"),
        (lambda: zeta.keras.FormulaLayer("swiglu"), TypeError, "needs a formula of one input"),
        (lambda: zeta.keras.swiglu(PACKED), TypeError, "takes 2 inputs"),
        (lambda: zeta.keras.GatedUnit("swiglu")(keras.Input((7,))), ValueError, "must be even"),
    ],
)
def test_bad_input_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_gate_of_ones_own_is_not_saved_in_silence():
    own = zeta.formula(lambda gate, value: gate * value)
    with pytest.raises(ValueError, match=r"register it, with zeta\.activations\.register"):
        zeta.keras.GatedUnit(own).get_config()
    assert activations.get("swiglu") is GATES["swiglu"]
