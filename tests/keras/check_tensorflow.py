"""TensorFlow's graphs, and TensorFlow Lite; run by test_backends.py on that backend.

In a graph the primitives are other operations than in eager calls.
"""

import inspect
import math

import keras
import mpmath
import numpy as np
import pytest
import tensorflow as tf
import torch
from check_mixture import TARGET, K, V, inputs, loss_of

import parity
import zeta.keras
import zeta.math as zm
from cases import FORMULAS, LIMITS, SHARE, name, truths
from zeta import formula
from zeta._backends import evaluate

pytestmark = pytest.mark.filterwarnings(
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)
POINTS = parity.points("float32")
# What is taken for 0: half of x where e^x - 1 is formed, then subnormal numbers.
FLUSHED = 2 * float(np.finfo(np.float32).smallest_normal)
EPSILON = float(np.finfo(np.float32).eps)
_TWO_OVER_SQRT_PI = 2 / mpmath.sqrt(mpmath.pi)
# Lowest and highest argument where nothing underflows, first and second derivative.
TRACED = {
    "erfc": (
        -9,
        9,
        lambda x: -_TWO_OVER_SQRT_PI * mpmath.exp(-x * x),
        lambda x: 2 * x * _TWO_OVER_SQRT_PI * mpmath.exp(-x * x),
    ),
    "expm1": (-80, 80, mpmath.exp, mpmath.exp),
    "log1p": (-0.999, 80, lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2),
    "softplus": (-80, 80, zm.sigmoid, lambda x: zm.sigmoid(x) * zm.sigmoid(-x)),
}
LITE_HEADS = ["selu_softmax", "mixture"]


@pytest.mark.parametrize("holder", [evaluate, evaluate.Arrays])
def test_autograph_can_rewrite_what_evaluates_a_formula(holder):
    """It says on the terminal what it cannot, an assignment in an expression for one."""
    functions = {k: f for k, f in vars(holder).items() if inspect.isfunction(f) and k[:2] != "__"}
    for function in functions.values():
        if function.__module__ == evaluate.__name__:
            tf.autograph.to_graph(function)


def test_a_formula_of_a_variable_is_a_tensor():
    x = tf.Variable([1.0, -2.0])
    y = formula(lambda x: x)(x)
    x.assign([0.0, 0.0])
    np.testing.assert_array_equal(y, [1, -2])


@pytest.mark.parametrize("xla", [False, True])
def test_in_a_graph_with_any_number_of_tokens(xla):
    arrays = inputs()

    @tf.function(
        jit_compile=xla, input_signature=None if xla else [tf.TensorSpec((None,), tf.int64)]
    )
    def loss(target):
        hidden, log_prior, *decoder = (tf.constant(a) for a in arrays)
        n = tf.shape(target)[0]
        return loss_of(
            hidden[:n],
            log_prior[:n],
            *decoder,
            target=target,
            reduction="none",
            max_chunk_bytes=2 * K * V * 4,
        )

    eager = loss_of(*map(tf.constant, arrays), reduction="none")
    np.testing.assert_allclose(loss(tf.constant(TARGET)), eager, rtol=1e-5)
    bad = np.where(TARGET == 6, V, TARGET)
    assert np.isnan(loss(tf.constant(bad))).tolist() == [t == 6 for t in TARGET]


def slopes(function, order):
    """The derivative of a function of one tensor."""
    if order == 0:
        return function

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = slopes(function, order - 1)(x)
        return tape.gradient(y, x)

    return slope


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("primitive", TRACED)
def test_primitives_of_graphs_and_their_derivatives_agree_with_mpmath(primitive, xla):
    f = getattr(zm, primitive)
    lowest, highest, *derivatives = TRACED[primitive]
    magnitudes = np.concatenate([np.logspace(-20, -1, 39), np.linspace(0.1, highest, 399)])
    x = np.concatenate([-magnitudes, [0], magnitudes]).astype(np.float32)
    x = x[x >= lowest]

    @tf.function(jit_compile=xla)
    def graph(x):
        return [slopes(f, order)(x) for order in range(3)]

    for order, values in enumerate(graph(tf.constant(x))):
        for xi, got in zip(map(mpmath.mpf, x.tolist()), values.numpy().tolist(), strict=True):
            right = (f, *derivatives)[order](xi)
            # Slopes of erfc as TensorFlow has them: x² is rounded in e^(-x²).
            rounded = xi * xi if order > 0 and primitive == "erfc" else 0
            allowed = 4 + 8 * rounded
            assert abs(got - right) <= allowed * EPSILON * abs(right), (order, xi, got)


@pytest.mark.parametrize("primitive", TRACED)
def test_primitives_of_graphs_at_infinity_and_nan(primitive):
    f = getattr(zm, primitive)
    x = tf.constant([-math.inf, math.inf, math.nan])
    graph = tf.function(lambda x: [slopes(f, order)(x) for order in range(2)])
    for got, wanted in zip(graph(x), (slopes(f, order)(x) for order in range(2)), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("in_graph", [False, True])
def test_two_equal_values_share_the_slope(in_graph):
    """As in kernels, PyTorch and JAX (tests/test_math.py)."""

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = zm.maximum(x, 0) + 2 * zm.minimum(1, x) + 4 * zm.maximum(x, -x)
        return y, tape.gradient(y, x)

    y, dx = (tf.function(slope) if in_graph else slope)(tf.constant([-1.0, 0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(y, [2, 0, 3.5, 7, 12])
    np.testing.assert_array_equal(dx, [-2, 2.5, 7, 6, 5])


@pytest.mark.parametrize("xla", [False, True])
def test_activations_in_graphs_match_mpmath(xla):
    inputs = [
        [
            tf.constant(POINTS, tf.float32),
            *(tf.fill(POINTS.shape, v) for v in f.flat(f.parameters).values()),
        ]
        for f in SHARE
    ]

    @tf.function(jit_compile=xla)
    def graph(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = [
                getattr(zeta.keras, f.name)(
                    own[0], **f.grouped(dict(zip(f.scalars, own[1:], strict=True)))
                )
                for f, own in zip(SHARE, inputs, strict=True)
            ]
        return values, tape.gradient(values, inputs, unconnected_gradients="zero")

    for f, value, gradients in zip(SHARE, *graph(inputs), strict=True):
        keys = ["value", "x", *f.scalars]
        got = {k: t.numpy().astype(float) for k, t in zip(keys, [value, *gradients], strict=True)}
        parity.check(got, POINTS, truths(f, torch.float32), "float32", FLUSHED)


def check_values(values, f, most_ulps=parity.ULPS):
    for xi, y, right in zip(POINTS, values.tolist(), truths(f, torch.float32), strict=True):
        lost = FLUSHED * (1 + max(abs(xi), abs(float(right.slopes["x"]))))
        accepted = parity.taken(right, FLUSHED)
        values = [parity.value_is_right(y, t, "float32", lost, most_ulps) for t in accepted]
        assert any(values), (xi, y, right)


def test_activations_in_graphs_without_gradients_match_mpmath():
    """There TensorFlow may fuse: x·tanh(softplus(x)), into an operation that is 0 at -20."""
    graph = tf.function(lambda x: [getattr(zeta.keras, f.name)(x) for f in FORMULAS])
    for f, value in zip(FORMULAS, graph(tf.constant(POINTS, tf.float32)), strict=True):
        check_values(value.numpy(), f)


@pytest.fixture(scope="module")
def lite():
    """TensorFlow Lite's answers for a model of everything there is, and the model's own."""
    x, logits = keras.Input((len(POINTS),)), keras.Input((5,))
    fixed = {f.name: zeta.keras.FormulaLayer(f)(x) for f in SHARE}
    per_feature = {
        f"{f.name}_per_feature": zeta.keras.FormulaLayer(f, shared_axes=[])(x)
        for f in SHARE
        if f.parameters
    }
    heads = {
        "selu_softmax": zeta.keras.SELUSoftmax(dim=-1)(logits),
        "separate": zeta.keras.MixtureOfSoftmaxes(3, 5, 7)(logits),
        "shared": zeta.keras.MixtureOfSoftmaxes(3, 5, 7, decoder="shared")(logits),
    }
    model = keras.Model([x, logits], fixed | per_feature | heads)
    inputs = [
        np.stack([POINTS, np.resize([-math.inf, math.inf, math.nan], len(POINTS))]),
        np.random.default_rng(0).normal(size=(2, 5)),
    ]
    inputs = [array.astype(np.float32) for array in inputs]
    # By builtin operators alone, which is the converter's default.
    converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    run = tf.lite.Interpreter(model_content=converted).get_signature_runner()
    names = [tensor.name for tensor in model.inputs]
    return run(**dict(zip(names, inputs, strict=True))), model(inputs)


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_activations_in_tensorflow_lite_match_mpmath(lite, f):
    got, _ = lite
    for values in (got[key][0] for key in (f.name, f"{f.name}_per_feature") if key in got):
        # TensorFlow Lite's own operators are off by more than TensorFlow's.
        check_values(values, f, most_ulps=8)


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_limits_in_tensorflow_lite(lite, f):
    got, _ = lite
    at_minus, at_plus, at_nan = got[f.name][1, :3].tolist()
    below, above = LIMITS[f.name]
    assert below is None or at_minus == pytest.approx(below, rel=1e-6)
    assert at_plus == pytest.approx(above, rel=1e-6)
    # TensorFlow Lite's e^NaN is 0.
    assert math.isnan(at_nan) or f.name == "sigmoid"


@pytest.mark.parametrize("head", ["selu_softmax", "separate", "shared"])
def test_heads_in_tensorflow_lite(lite, head):
    got, right = lite
    np.testing.assert_allclose(got[head], right[head], rtol=1e-6)
