"""Derivatives of the graph, as kernels compute them: right wherever plain operations' are."""

import math
import time

import pytest
import torch

from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta.codegen.graph import ordered
from zeta.codegen.trace import gradient_program, value_program
from zeta.math import (
    clip,
    cos,
    exp,
    expm1,
    log1p,
    maximum,
    minimum,
    piecewise,
    sigmoid,
    sin,
    tanh,
    with_gradient,
)


def assert_as_plain(f, x, **parameters):
    """One fused kernel each way, whose numbers are those of plain operations and autograd."""
    x = torch.tensor(x, requires_grad=True)
    values = {k: torch.tensor(v, requires_grad=True) for k, v in parameters.items()}
    y, plain = f(x, **values), evaluate_plain(f, x, values)
    assert "Fused" in y.grad_fn.name()
    torch.testing.assert_close(y, plain, equal_nan=True)
    inputs = [x, *values.values()]
    ours, theirs = (torch.autograd.grad(v.sum(), inputs) for v in (y, plain))
    assert all(gradient.isfinite().all() for gradient in theirs)
    torch.testing.assert_close(ours, theirs)
    return ours


@formula(alpha=2.0)
def capped(x, alpha):
    return clip(x, 0, alpha)


def test_a_bound_that_is_a_parameter_has_a_gradient():
    dx, dalpha = assert_as_plain(capped, [-1.0, 0.0, 1.5, 2.0, 3.0, 4.0], alpha=2.0)
    assert dx.tolist() == [0, 0, 1, 0, 0, 0]
    assert dalpha.item() == 3


def test_a_bound_that_is_a_parameter_under_vmap():
    x, alpha = torch.randn(5, 3), torch.rand(5)
    got = torch.vmap(lambda x, alpha: capped(x, alpha))(x, alpha)
    torch.testing.assert_close(got, x.clamp(min=0).minimum(alpha[:, None]))


def test_a_bound_that_is_a_parameter_on_jax():
    jax = pytest.importorskip("jax", reason="pip install 'zeta-nn[jax]'")
    x = jax.numpy.asarray([-1.0, 0.0, 1.5, 2.0, 3.0, 4.0])
    dx, dalpha = jax.grad(lambda x, alpha: capped(x, alpha).sum(), (0, 1))(x, 2.0)
    assert dx.tolist() == [0, 0, 1, 0, 0, 0]
    assert dalpha == 3


NESTED = {
    "relu6": lambda x: minimum(maximum(x, 0), 6),
    "clamp": lambda x: maximum(minimum(x, 1.5), -0.5),
    "maxout": lambda x: maximum(maximum(0.5 * x, 1 - x), 2 * x - 1),
    "composed": lambda x: activations.elu(activations.leaky_relu(x)),
    "choices": lambda x: piecewise(
        x,
        positive=lambda x: piecewise(x - 1, positive=lambda u: u * u, otherwise=lambda u: -u),
        otherwise=lambda x: piecewise(x + 1, positive=lambda u: 2 * u, otherwise=lambda u: x),
    ),
}


@pytest.mark.parametrize("function", NESTED.values(), ids=NESTED)
def test_choices_within_choices(function):
    assert_as_plain(formula(function), [-3.0, -1.0, -0.5, 0.0, 0.4, 1.0, 1.5, 6.0, 7.0])


@formula(low=-0.5)
def bounded(x, low):
    return minimum(maximum(x, low), 1.5) * maximum(low, 0.25 + x)


def test_extrema_keep_nan_and_share_the_slope_of_a_tie():
    assert_as_plain(bounded, [-2.0, -0.5, 0.3, 1.2, 1.5, 7.0], low=-0.5)
    (dx,) = assert_as_plain(formula(lambda x: maximum(x, 0)), [-1.0, 0.0, 1.0])
    assert dx.tolist() == [0, 0.5, 1]
    nan = torch.tensor([math.nan])
    for function in (
        lambda x: minimum(2 * x, 3),
        lambda x: maximum(x, 0) ** 1.7,
        lambda x: 1 + 0 * x,
        lambda x: x * (x > 0),
    ):
        assert formula(function)(nan).isnan().all()


def test_a_branch_that_is_not_taken_has_no_say():
    f = formula(k=1.0)(
        lambda x, k: piecewise(
            x, positive=lambda x: k * x**0.5, otherwise=lambda x: k / (1 - x) + maximum(x, -1)
        )
    )
    assert_as_plain(f, [-3.0, -0.5, 0.25, 1.0, 4.0], k=1.5)
    x = torch.tensor([0.0, -1e30, 1e30], requires_grad=True)
    assert torch.autograd.grad(f(x).sum(), x)[0].isfinite().all()


PADE = formula(
    lambda x: (
        x * (1 + x * (0.5 + x * (0.3 + x * (0.2 + x * 0.1))))
        / (1 + x * (0.1 + x * (0.7 + x * (0.1 + x * 0.2))))
    )
)  # fmt: skip


def test_finite_where_plain_operations_are():
    far = [-3e38, -1e30, -2e19, -1e10, 1e10, 2e19, 1e30, 3e38]
    assert_as_plain(formula(beta=1.0)(lambda x, beta: x * sigmoid(beta * x)), far, beta=1.5)
    quotient = formula(b=1.0)(lambda x, b: x**5 / (1 + b * x**4))
    assert_as_plain(quotient, [-2e5, -1e4, 0.0, 2e5, 1e6], b=0.5)
    assert_as_plain(PADE, [-2e5, -1.4e5, 1.4e5, 1e6])
    x = torch.tensor([-1e20, 1e20], requires_grad=True)
    slope = torch.autograd.grad(formula(lambda x: x * exp(-x * x))(x).sum(), x)[0]
    assert slope.tolist() == [0, 0]


def assert_gradients_are_plain(f, x):
    """Values and slopes, whatever they are."""
    x = torch.tensor(x, requires_grad=True)
    y, plain = f(x), evaluate_plain(f, x, dict(f.parameters))
    assert "Fused" in y.grad_fn.name()
    torch.testing.assert_close(y, plain, equal_nan=True)
    slopes = [torch.autograd.grad(v.sum(), x)[0] for v in (y, plain)]
    torch.testing.assert_close(*slopes, equal_nan=True)


def test_numbers_that_plain_operations_take_for_constants_have_no_slope():
    at = [-math.inf, -1e20, -1.0, 1.0, 1e20, math.inf, math.nan]
    assert_gradients_are_plain(formula(lambda x: cos(x * 1e30) + sin(x * 1e30)), at)
    assert_gradients_are_plain(formula(lambda x: x * sigmoid(-x)), at)
    assert_gradients_are_plain(formula(lambda x: clip(x, -1.0, 2.0) + abs(x)), at)
    assert_gradients_are_plain(
        formula(lambda x: piecewise(x, positive=lambda x: 1.0, otherwise=lambda x: 0.5)), at
    )


def test_a_small_factor_is_multiplied_before_what_would_overflow():
    small = formula(a=1e-9)(lambda x, a: a * x * x * x * x)
    assert_gradients_are_plain(small, [1e10, 1e11, 1e14])


def test_a_factor_of_a_branch_that_is_not_taken_has_no_say():
    unused = formula(a=0.0)(
        lambda x, a: piecewise(x, positive=lambda x: x, otherwise=lambda x: expm1(x / (a - a)))
    )
    assert_gradients_are_plain(unused, [0.5, 2.0])


def test_what_two_branches_share_has_no_say_in_a_third():
    """1/x, of which both outer branches make two things: its slope at 0 is infinite."""

    @formula
    def bent(x):
        outer = lambda x: (1 / x) * (2 + 1 / x)
        return piecewise(x, (-1, 1), outer, lambda x: 3 * x, outer)

    x = torch.tensor([-2.0, -1e-40, 0.0, 1e-40, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(bent(x).sum(), x)
    assert slope.tolist() == [-0.25, 3, 3, 3, -0.75]


def test_what_cancels_in_plain_operations_cancels():
    assert_as_plain(formula(lambda x: 1 + 1e9 * (x * x - x * x)), [0.3, 1.7, -5.1])


def test_zero_keeps_its_sign():
    x = torch.tensor([0.0, -0.0])
    for function in (
        lambda x: sigmoid(1 / tanh(x * x)),
        lambda x: sigmoid(1 / expm1(x)),
        lambda x: sigmoid(1 / log1p(x)),
        lambda x: sigmoid(1 / -(x * (1.5 - 1.5))),
    ):
        f = formula(function)
        assert f(x).tolist() == evaluate_plain(f, x, {}).tolist()


def test_a_power_does_not_lose_its_slope_by_underflow():
    f = formula(lambda x: x * x * (x * 40) ** -2)
    x = torch.tensor([1e18, 1e19], requires_grad=True)
    assert torch.autograd.grad(f(x).sum(), x)[0].abs().max() < 1e-24


def test_limits_survive_composition():
    f = formula(lambda x: x * activations.tanh(activations.gelu(x)))
    at = torch.tensor([-math.inf, -1e30])
    assert f(at).tolist() == evaluate_plain(f, at, {}).tolist() == [0, 0]


@formula
def chebyshev(x):
    """T₆₄ by its recurrence."""
    before, now = 1, x
    for _ in range(63):
        before, now = now, 2 * x * now - before
    return now


KNOTS = 32
NAMES = [f"c{i}" for i in range(KNOTS)]


def _spline(x, *c):
    return sum(ci * maximum(x - i / KNOTS, 0) ** 3 for i, ci in enumerate(c))


_namespace = {"spline": _spline}
exec(f"def spline_(x, {', '.join(NAMES)}): return spline(x, {', '.join(NAMES)})", _namespace)
spline = formula(**dict.fromkeys(NAMES, 0.5))(_namespace["spline_"])


def test_long_recurrences_and_many_coefficients():
    for f in (chebyshev, spline):
        start = time.perf_counter()
        gradient_program(f, {}, ("x", *f.parameters))
        assert time.perf_counter() - start < 0.2  # measured: 3 and 4 ms
    assert_as_plain(chebyshev, [-0.9, -0.1, 0.3, 1.0])
    assert_as_plain(spline, [-0.5, 0.1, 0.5, 1.2], **{k: 0.1 * i for i, k in enumerate(NAMES)})


def test_nested_choices_with_one_alternative_are_one():
    """Within a clip's two bounds."""
    slope = gradient_program(formula(lambda x: clip(x, -1, 1)), {}, ("x",)).stores[0]
    assert [node.op for node in ordered([slope])].count("where") == 1
    assert_as_plain(formula(lambda x: x * clip(x, -1, 1)), [-2.0, -1.0, 0.5, 1.0, 2.0])


@formula(low=-1.0, high=1.0)
def srelu(x, low, high):
    return piecewise(
        x,
        (low, high),
        lambda x: low + 0.2 * (x - low),
        lambda x: x,
        lambda x: high + (x - high) / 3,
    )


def test_knots_that_are_parameters():
    _, dlow, dhigh = assert_as_plain(srelu, [-3.0, -1.0, 0.0, 1.0, 1.5, 7.0], low=-1.0, high=1.0)
    assert dlow.item() == pytest.approx(1.6)
    assert dhigh.item() == pytest.approx(4 / 3)


@formula(k=2.0)
def spike(x, k):
    return with_gradient(x > 0, sigmoid(k * x)) * exp(x)


def test_a_surrogate_is_computed_in_backward_alone():
    assert_as_plain(spike, [-3.0, -0.0, 0.5, 2.0], k=2.0)
    assert "sigmoid" not in [n.op for n in ordered(value_program(spike, {}).stores)]
    slope = gradient_program(formula(lambda x: with_gradient(tanh(x), x * x)), {}, ("x",))
    assert "tanh" not in [n.op for n in ordered(slope.stores)]
