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
    expected = torch.autograd.grad(function(*at) + 0 * sum(at), at)  # steps alone have none
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


def slopes_of(function, *values):
    """Value and derivatives on PyTorch by plain operations, and on JAX."""
    leaves = [torch.tensor(v, requires_grad=True) for v in values]
    y = function(*leaves)
    gradients = torch.autograd.grad(y.sum(), leaves)
    yield [t.tolist() for t in (y, *gradients)]
    arrays = list(map(jnp.array, values))
    every = tuple(range(len(arrays)))
    gradients = jax.grad(lambda *arrays: function(*arrays).sum(), every)(*arrays)
    yield [a.tolist() for a in (function(*arrays), *gradients)]


def test_a_value_has_its_surrogates_gradient_and_its_own_bits():
    def step(x, k):
        return zm.with_gradient(x > 0, k * x) + zm.stop_gradient(k) * zm.with_gradient(0.1, x * x)

    for y, dx, dk in slopes_of(step, [-1.0, 0.0, 2.0], 3.0):
        assert y == pytest.approx([0.3, 0.3, 1.3])
        assert dx == [-3, 3, 15]
        assert dk == 1
    x = torch.tensor([-0.0, math.inf, 1e30, math.nan], requires_grad=True)
    y = zm.with_gradient(x, x * x * 1e30)  # overflows
    assert torch.equal(y.view(torch.int32), x.view(torch.int32))
    assert torch.autograd.grad(y.sum(), x)[0][[0, 2]].isfinite().all()


def test_a_surrogate_within_transforms_compilation_and_export():
    quantised = lambda x: zm.with_gradient(zm.round(4 * x) / 4, x**3)
    x = torch.tensor([-0.7, 0.3, 1.9], dtype=torch.float64)
    slope = torch.func.grad(lambda x: quantised(x).sum())
    torch.testing.assert_close(slope(x), 3 * x * x)
    torch.testing.assert_close(torch.func.grad(lambda x: slope(x).sum())(x), 6 * x)
    torch.testing.assert_close(torch.func.jvp(quantised, (x,), (x,))[1], 3 * x**3)
    compiled = torch.compile(quantised, fullgraph=True, backend="aot_eager")

    class Layer(torch.nn.Module):
        def forward(self, x):
            return quantised(x)

    for function in (compiled, torch.export.export(Layer(), (x,)).module()):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        assert y.tolist() == [-0.75, 0.25, 2.0]
        torch.testing.assert_close(torch.autograd.grad(y.sum(), leaf)[0], 3 * x * x)


def test_steps_have_no_slope_and_a_remainder_has_the_divisors_sign():
    for step in (zm.sign, zm.round, zm.floor):
        for y, dx in slopes_of(lambda x, step=step: x + step(zm.exp(x)), [-0.3, 1.5, 100.0]):
            assert not math.isnan(y[0])
            assert dx == [1, 1, 1]
    assert [zm.round(x) for x in (0.5, 1.5, -2.5)] == [0, 2, -2]
    for y, dx, dy in slopes_of(zm.remainder, [5.5, -5.5, 5.5, -5.5], [2.0, 2.0, -2.0, -2.0]):
        assert y == [1.5, 0.5, -0.5, -1.5]
        assert dx == [1, 1, 1, 1]
        assert dy == [-2, 3, 3, -2]


def test_slopes_where_the_textbook_form_is_none():
    for y, dx, dy in slopes_of(zm.hypot, [0.0, 3e37, 3e-38], [0.0, 4e37, 4e-38]):
        assert y == pytest.approx([0, 5e37, 5e-38])
        assert dx == pytest.approx([0, 0.6, 0.6])
        assert dy == pytest.approx([0, 0.8, 0.8])
    assert zm.hypot(torch.tensor([0.0, math.nan]), torch.tensor([math.nan, 0.0])).isnan().all()
    ends = [math.inf, -math.inf, math.inf, 1.0], [math.inf, -math.inf, -math.inf, 1.0]
    for y, dx, dy in slopes_of(zm.logaddexp, *ends):
        assert y == pytest.approx([math.inf, -math.inf, math.inf, 1 + math.log(2)])
        assert [a + b for a, b in zip(dx, dy, strict=True)] == [1, 1, 1, 1]
    for y, dx in slopes_of(zm.sinc, [0.0, 1e-4, 1.0]):
        assert y == pytest.approx([1, 1 - math.pi**2 / 6e8, 0], abs=1e-7)
        assert dx == pytest.approx([0, -(math.pi**2) / 3e4, -1])


def test_several_knots():
    def bent(x, low, high):
        knots = (low, high)
        return zm.piecewise(x, knots, zm.exp, lambda x: low * x, lambda x: zm.sqrt(x - high))

    x = [-1e4, -1.0, -0.5, 1.0, 5.0]
    for y, dx, dlow, dhigh in slopes_of(bent, x, -1.0, 1.0):
        assert y == pytest.approx([0, math.exp(-1), 0.5, -1, 2])
        assert dx == pytest.approx([0, math.exp(-1), -1, -1, 0.25])
        assert dlow == pytest.approx(0.5)
        assert dhigh != dhigh  # of a root at its end, which is not taken: 0·inf, as any branch's
    assert math.isnan(zm.piecewise(math.nan, (0, 1), *[lambda x: 0] * 3))


@pytest.mark.parametrize(
    ("arguments", "named", "error"),
    [
        ([(0, 1), abs, abs], {}, "one branch more than these; got 2 branches for 2 knots"),
        ([(0,), abs, abs], {"positive": abs}, "got 3 branches for 1 knots"),
        ([], {"positive": abs}, "got 1 branches for 1 knots"),
        ([(1, 0), abs, abs, abs], {}, "knots in rising order, got \\(1, 0\\)"),
    ],
)
def test_wrong_knots(arguments, named, error):
    with pytest.raises((TypeError, ValueError), match=error):
        zm.piecewise(1.0, *arguments, **named)
