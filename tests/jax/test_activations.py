"""The catalogue on JAX arrays: mpmath's numbers, every transformation, PyTorch's errors."""

import functools
import inspect
import math
import pickle

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.test_util import check_grads

import parity
import zeta.jax
import zeta.math as zm
from cases import FORMULAS, LIMITS, SHARE, name
from zeta import activations, formula

# XLA takes subnormal numbers for 0 on processors.
FLUSHED = float(np.finfo(np.float32).smallest_normal)


def public(f):
    return getattr(zeta.jax, f.name)


@jax.jit
def values_and_gradients(x, parameters):
    """Of every formula that has parameters here, even none: XLA takes long for any program."""

    def one(f):
        value, pull_back = jax.vjp(lambda x, p: public(f)(x, **f.grouped(p)), x, parameters[f.name])
        dx, d_parameters = pull_back(jnp.ones_like(value))
        return {"value": value, "x": dx, **d_parameters}

    return {name: one(activations.get(name)) for name in parameters}


def run(f, x, dtype):
    """A formula's value and gradients, the parameters in float32."""
    together = SHARE if f in SHARE else FORMULAS
    parameters = {
        f.name: {k: jnp.full(x.shape, v, jnp.float32) for k, v in f.flat(f.parameters).items()}
        for f in together
    }
    answers = values_and_gradients(jnp.asarray(x, dtype), parameters)[f.name]
    assert answers["value"].dtype == answers["x"].dtype == dtype
    return {k: np.asarray(v, np.float64) for k, v in answers.items()}


@pytest.mark.parametrize(
    ("f", "dtype"), [(f, d) for f in FORMULAS for d in parity.DTYPES[: 1 + (f in SHARE)]], ids=name
)
def test_values_and_gradients_match_mpmath(f, dtype):
    parity.check_grid(run, f, dtype, FLUSHED)


@pytest.mark.parametrize("dtype", parity.DTYPES)
@pytest.mark.parametrize("f", SHARE, ids=name)
@hypothesis.settings(max_examples=8)
@hypothesis.given(data=st.data())
def test_drawn_inputs(f, dtype, data):
    parity.check_drawn(run, f, data.draw(parity.drawn_points(dtype)), dtype, FLUSHED)


@functools.cache
def at_the_ends():
    ends = jnp.array([-math.inf, math.inf, math.nan])
    return jax.jit(lambda x: {f.name: public(f)(x) for f in FORMULAS})(ends)


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_limits_and_nan(f):
    *ends, at_nan = at_the_ends()[f.name].tolist()
    assert math.isnan(at_nan)
    for end, limit in zip(ends, LIMITS[f.name], strict=True):
        assert limit is None or end == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_largest_numbers_do_not_spoil_shared_parameters(dtype):
    largest = float(jnp.finfo(dtype).max)
    x = jnp.array([-largest, -1.0, 0.0, 1.0, largest], dtype)
    parameters = {
        f.name: {k: jnp.asarray(v, dtype) for k, v in f.flat(f.parameters).items()} for f in SHARE
    }
    for f, answers in values_and_gradients(x, parameters).items():
        del answers["value"]
        assert not any(jnp.isnan(gradient).any() for gradient in answers.values()), f


@pytest.mark.usefixtures("xla_compiles_quickly")
def test_every_derivative_of_second_order():
    """Of every primitive's, in float64, whose results are those of PyTorch to the last digits."""
    kinds = ("exo", "learnable_selu_variation", "laplace", "gelu_tanh", "mish", "snake")
    formulas = [activations.get(kind) for kind in kinds]
    with jax.enable_x64(True):
        x = jnp.array([[-7.3, -2.1, -0.9, -0.2], [0.3, 0.8, 1.7, 4.2]])
        xs = {f.name: x for f in formulas}
        parameters = {
            f.name: {k: jnp.array([[v], [1.1 * v]]) for k, v in f.flat(f.parameters).items()}
            for f in formulas
        }

        @jax.jit
        def values(xs, parameters):
            return {
                f.name: public(f)(xs[f.name], **f.grouped(parameters[f.name])) for f in formulas
            }

        check_grads(values, (xs, parameters), order=2, modes=("fwd", "rev"))
        for f in formulas:
            y = public(f)(x)
            assert y.dtype == jnp.float64
            np.testing.assert_allclose(y, f(np.asarray(x)), rtol=1e-14, err_msg=f.name)


@pytest.mark.usefixtures("xla_compiles_quickly")
def test_transformations_agree():
    x = jnp.linspace(-3, 3, 12)

    @jax.jit
    def transformed(x):
        def one(function):
            kept = jax.checkpoint(function)
            slopes = {
                "grad": jax.grad(lambda x: function(x).sum())(x),
                "jacfwd": jnp.diag(jax.jacfwd(function)(x)),
                "jacrev": jnp.diag(jax.jacrev(function)(x)),
                "vmap": jax.vmap(jax.grad(function))(x),
                "checkpoint": jax.grad(lambda x: kept(x).sum())(x),
            }
            return slopes, (function(x), jax.vmap(function)(x.reshape(3, 4)).ravel())

        return {f.name: one(public(f)) for f in SHARE}

    # XLA may fuse a multiplication and an addition in one place and not in the other.
    equal = {"rtol": 1e-5, "atol": 1e-6}
    for f, (slopes, (values, by_rows)) in transformed(x).items():
        for way, slope in slopes.items():
            np.testing.assert_allclose(slope, slopes["grad"], err_msg=f"{f} by {way}", **equal)
        np.testing.assert_allclose(by_rows, values, err_msg=f, **equal)


def test_another_value_of_a_parameter_traces_nothing():
    traced = []

    @jax.jit
    def step(x, **parameters):
        traced.append(parameters)
        return zeta.jax.learnable_selu_variation(x, **parameters)

    x = jnp.linspace(-2, 2, 5)
    for alpha in (1.0, 1.5, 2.0):
        expected = activations.learnable_selu_variation(np.asarray(x), alpha=alpha)
        np.testing.assert_allclose(step(x, alpha=alpha), expected, rtol=1e-5)
    assert len(traced) == 1


def test_the_compiled_function_is_shared_between_calls_and_values():
    from zeta._backends.jax import _compiled

    x = jnp.ones((3, 5, 7))
    zeta.jax.exo(x, 0.25)
    before = _compiled._cache_size()
    zeta.jax.exo(x, 0.75)
    zeta.jax.exo(x, alpha=-1.5)
    assert _compiled._cache_size() == before


def test_arrays_of_other_kinds_become_jaxs():
    """Data are often NumPy's while a parameter is traced."""
    x = np.linspace(-2, 2, 5, dtype=np.float32)
    assert isinstance(zeta.jax.exo(x), jax.Array)
    slope = jax.grad(lambda alpha: zeta.jax.exo(x, alpha).sum())(0.5)
    assert jnp.isfinite(slope)
    assert jnp.isfinite(jax.grad(zeta.jax.exo)(1.0))


def test_a_users_formula_runs_on_arrays():
    @formula(beta=1.0)
    def swish(x, beta):
        return x * zm.sigmoid(beta * x)

    x = jnp.linspace(-2, 2, 5)
    np.testing.assert_allclose(swish(x, 2.0), x * jax.nn.sigmoid(2 * x), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(swish)(x, 1.0), jax.nn.silu(x), rtol=1e-6)


def test_usual_activations_equal_jaxs():
    x = jnp.linspace(-20, 20, 1001)
    theirs = {
        "relu": jax.nn.relu,
        "leaky_relu": jax.nn.leaky_relu,
        "elu": jax.nn.elu,
        "selu": jax.nn.selu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": jax.nn.gelu,
        "silu": jax.nn.silu,
        "mish": jax.nn.mish,
        "softplus": jax.nn.softplus,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "hardswish": jax.nn.hard_swish,
        "squared_relu": lambda x: jax.nn.relu(x) ** 2,
    }
    ours = [getattr(zeta.jax, own) for own in theirs]

    @jax.jit
    def values_and_slopes(x):
        of = lambda f: (f(x), jax.vmap(jax.grad(f))(x[1:-1:2]))
        return list(map(of, ours)), list(map(of, theirs.values()))

    bound = 8 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(x), 1)
    for own, (y, dy), (right, d_right) in zip(theirs, *values_and_slopes(x), strict=True):
        assert (jnp.abs(y - right) <= bound).all(), own
        assert (jnp.abs(dy - d_right) <= bound[1:-1:2]).all(), own


def test_signatures_and_documentation_are_the_formulas():
    signature = inspect.signature(zeta.jax.laplace)
    assert str(signature) == "(x, mu=0.707107, sigma=0.282095)"
    assert zeta.jax.laplace.__doc__ == activations.laplace.__doc__
    assert set(activations.CATALOGUE) < set(zeta.jax.__all__) & set(dir(zeta.jax))
    with pytest.raises(AttributeError, match=r"'zeta\.jax' has no attribute 'gelo'"):
        zeta.jax.gelo  # noqa: B018


def test_functions_pickle():
    assert pickle.loads(pickle.dumps(zeta.jax.exo)) is zeta.jax.exo


def test_bad_input_is_named():
    x = jnp.zeros((2, 3))
    for arguments, error, message in [
        ((jnp.arange(3),), TypeError, "exo: input must be a floating-point array .* got int32"),
        (("x",), TypeError, "exo: input must be an array, got str"),
        ((x, jnp.ones(2)), ValueError, r"alpha of shape \(2,\) does not broadcast .* \(2, 3\)"),
        ((x, jnp.ones((4, 2, 3))), ValueError, r"alpha of shape \(4, 2, 3\) does not broadcast"),
        ((x, "1.0"), TypeError, "exo: alpha must be a number or an array, got str"),
        ((x, jnp.ones(3, int)), TypeError, "exo: alpha must be a floating-point array"),
        ((x, 1.0, 2.0), TypeError, "takes 1 parameters, got 2"),
    ]:
        with pytest.raises(error, match=message):
            zeta.jax.exo(*arguments)
    with pytest.raises(TypeError, match="'beta' is not a parameter"):
        zeta.jax.exo(x, beta=1.0)
    with pytest.raises(ValueError, match=r"one value per element of x, shape \(2, 3\)"):
        formula(lambda x: 1.0)(x)
