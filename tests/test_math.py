"""The primitives: every backend defines them all, and they agree."""

import importlib
import inspect
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch

import zeta.math as zm
from zeta._backends.protocol import Backend

ONE = [n for n in zm.__all__ if [*inspect.signature(getattr(zm, n)).parameters] == ["x"]]
TWO = ["hypot", "logaddexp", "remainder"]


@pytest.mark.parametrize(
    "backend", ["torch", "jax", "numpy", "number", "sympy", "mpmath", "tracer"]
)
def test_a_backend_defines_every_primitive(backend):
    module = importlib.import_module(f"zeta._backends.{backend}")
    needed = {name for name in vars(Backend) if not name.startswith("_")}
    assert needed == {*zm.__all__, "evaluate"}
    assert not [name for name in needed if not hasattr(module, name)]


@pytest.mark.parametrize("primitive", ONE + TWO)
def test_frameworks_agree(primitive):
    function = getattr(zm, primitive)
    points = [0.3, 1.7, 4.2] if primitive in ("log", "sqrt", "rsqrt") else [-0.9, 0.3, 1.7]
    others = [[2.5, -0.7, 1.7]] if primitive in TWO else []
    expected = [float(function(*map(mpmath.mpf, at))) for at in zip(points, *others, strict=True)]
    numbers = [function(*at) for at in zip(points, *others, strict=True)]
    assert numbers == pytest.approx(expected, rel=1e-14)
    with jax.enable_x64(True):
        for array in (lambda v: torch.tensor(v, dtype=torch.float64), np.array, jnp.array):
            y = function(*map(array, [points, *others]))
            assert y.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("primitive", [n for n in ONE + TWO if n != "stop_gradient"])
def test_symbolic_derivatives_are_autograds(primitive):
    import sympy

    function = getattr(zm, primitive)
    count = 2 if primitive in TWO else 1
    symbols = sympy.symbols("x, y", real=True)[:count]
    at = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, -1.3)[:count]]
    expected = torch.autograd.grad(function(*at), at)
    own = {"sigmoid": lambda z: 1 / (1 + math.exp(-z))}
    for symbol, slope in zip(symbols, expected, strict=True):
        derivative = sympy.lambdify(symbols, function(*symbols).diff(symbol), [own, "math"])
        assert derivative(*(0.7, -1.3)[:count]) == pytest.approx(slope.item(), rel=1e-14)


def test_minimum_maximum_and_clip():
    x = torch.tensor([-1.0, 0.5, 2.0, math.nan])
    for array, wrap in (
        (x, torch.Tensor.tolist),
        (x.numpy(), np.ndarray.tolist),
        (jnp.asarray(x.numpy()), np.asarray),
    ):
        np.testing.assert_array_equal(wrap(zm.minimum(array, 0.5)), [-1, 0.5, 0.5, math.nan])
        np.testing.assert_array_equal(wrap(zm.maximum(0.5, array)), [0.5, 0.5, 2, math.nan])
        np.testing.assert_array_equal(wrap(zm.clip(array, 0, 1)), [0, 0.5, 1, math.nan])
    assert zm.minimum(mpmath.mpf(1), 2) == 1
    assert mpmath.isnan(zm.maximum(mpmath.nan, 2))


def test_clip_stops_the_gradient_at_its_bounds():
    x = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1], requires_grad=True)
    zm.clip(x, 0, 1).sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 0, 0]
    slopes = jax.grad(lambda x: zm.clip(x, 0, 1).sum())(jnp.asarray(x.detach().numpy()))
    assert slopes.tolist() == [0, 0, 1, 0, 0]


def test_two_equal_values_share_the_slope():
    """As in kernels (codegen/test_graph.py) and TensorFlow (keras/check_tensorflow.py)."""

    def total(x):
        return (zm.maximum(x, 0) + 2 * zm.minimum(1, x) + 4 * zm.maximum(x, -x)).sum()

    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    expected = [-2, 2.5, 7, 6, 5]
    assert torch.autograd.grad(total(x), x)[0].tolist() == expected
    assert jax.grad(total)(jnp.asarray(x.detach().numpy())).tolist() == expected


def test_an_unselected_branch_cannot_overflow():
    """What a plain torch.where does wrong: exp overflows where it is not even selected."""
    x = torch.tensor([1e4, -1.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    y = zm.piecewise(x, positive=lambda x: x, otherwise=lambda x: zm.expm1(scale * x))
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert scale.grad.isfinite()

    careless = torch.where(x > 0, x, torch.expm1(scale * x))
    (grad,) = torch.autograd.grad(careless.sum(), scale)
    assert grad.isnan()


def test_piecewise_constant_branches_keep_nan():
    x = torch.tensor([-1.0, 1.0, math.nan])
    y = zm.piecewise(x, positive=lambda x: 1, otherwise=lambda x: 0)
    np.testing.assert_array_equal(y.tolist(), [0, 1, math.nan])
    y = zm.piecewise(x.numpy(), positive=lambda x: 1, otherwise=lambda x: 0)
    np.testing.assert_array_equal(y, [0, 1, math.nan])


def test_a_parameter_as_a_branch_keeps_nan():
    x, bound = np.array([-1.0, 1.0, math.nan], np.float32), np.array(0.5, np.float32)
    for wrap in (torch.from_numpy, jnp.asarray, np.asarray):
        low = wrap(bound)
        y = zm.piecewise(wrap(x), positive=lambda x: x, otherwise=lambda x, low=low: low)
        np.testing.assert_array_equal(np.asarray(y), [0.5, 1, math.nan])


def test_sine_of_an_overflowed_argument_stays_within_one():
    x = torch.tensor([-3e38, 3e38]) * 2
    for y in (zm.sin(x), zm.cos(x), torch.tensor(zm.sin(x.numpy()))):
        assert (y.abs() <= 1).all()
