"""The catalogue against mpmath, at its limits, and against PyTorch's own functions."""

import itertools
import math
import pickle

import mpmath
import numpy as np
import pytest
import torch

from cases import (
    DIFFERENTIABLE,
    DTYPES,
    FORMULAS,
    FULL_DTYPES,
    HALF_DTYPES,
    IN_ALL_DTYPES,
    LIMITS,
    SHARE,
    SHARE_OR_ALL,
    grid,
    name,
    truths,
    ulps,
)
from zeta import activations, formula, math as zm
from zeta._errors import UnknownNameError

# A result is right if it is within 4 ulp of the exact function at an input and parameters that
# are off by rounding: 4 ulp where the function is well conditioned.
ULPS = 4


def value_errors(f, y, dtype, allowed):
    """(x, error in ulp) wherever it exceeds ``allowed(condition)``."""
    found = []
    for x, got, truth in zip(grid(dtype).tolist(), y.tolist(), truths(f, dtype), strict=True):
        with mpmath.workdps(50):
            if abs(truth.value) > torch.finfo(dtype).max:
                off = 0.0 if abs(got) >= torch.finfo(dtype).max else math.inf
            else:
                off = ulps(mpmath.mpf(got) - truth.value, truth.value, dtype)
        if not off <= allowed(truth.condition):
            found.append((x, off))
    return found


def full_precision_bound(condition):
    return ULPS * max(1.0, condition)


def half_precision_bound(dtype):
    """One rounding of a float32 result."""
    float32_ulp = torch.finfo(torch.float32).eps / torch.finfo(dtype).eps
    return lambda condition: 0.5 + 2 * full_precision_bound(condition) * float32_ulp


@pytest.mark.parametrize("dtype", FULL_DTYPES, ids=name)
@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_values_are_within_four_ulp(f, dtype):
    assert not value_errors(f, f(grid(dtype)), dtype, full_precision_bound)


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=name)
@pytest.mark.parametrize("f", SHARE, ids=name)
def test_half_precision_rounds_once(f, dtype):
    y = f(grid(dtype))
    assert y.dtype == dtype
    assert not value_errors(f, y, dtype, half_precision_bound(dtype))


def test_a_wrong_formula_is_found():
    """The harness itself: a gate that is off by a hundred-thousandth turns it red."""

    @formula(alpha=1.0)
    def exo(x, alpha):
        gate = zm.sigmoid(1.00001 * alpha * x)
        return gate * x + (1 - gate) * zm.tanh(x)

    right = activations.exo
    for dtype, bound in [
        (torch.float32, full_precision_bound),
        (torch.float64, full_precision_bound),
    ]:
        y = exo(grid(dtype))
        assert value_errors(right, y, dtype, bound)


@pytest.mark.parametrize(
    ("f", "dtype"),
    [(f, dtype) for f in FORMULAS for dtype in (FULL_DTYPES if f in SHARE else [torch.float32])],
    ids=name,
)
def test_gradients_match_mpmath(f, dtype):
    """dx and every parameter's gradient, point by point, to rounding of the terms they sum."""
    x = grid(dtype).clone().requires_grad_()
    parameters = {
        k: torch.full_like(x, v).requires_grad_() for k, v in f.flat(f.parameters).items()
    }  # one value per element: a gradient per point
    # The truth is taken at the unrounded parameters; allow for their rounding as for x's.
    y = f(x, **f.grouped(parameters))
    gradients = torch.autograd.grad(y.sum(), [x, *parameters.values()])
    eps = torch.finfo(dtype).eps
    largest = torch.finfo(dtype).max
    for key, gradient in zip(["x", *parameters], gradients, strict=True):
        assert not gradient.isnan().any(), key
        for xi, got, truth in zip(x.tolist(), gradient.tolist(), truths(f, dtype), strict=True):
            slope = truth.slopes[key]
            if truth.kinks[key] or abs(slope) > largest or abs(xi) > 1e6:
                continue
            scale = max(1.0, abs(float(slope)), abs(xi))
            error = abs(got - float(slope)) / eps
            assert error <= 16 * scale or error <= 16 * truth.slope_drift(key), (key, xi)


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_numpy_gives_the_same_numbers(f):
    for dtype in FULL_DTYPES:
        y = f(grid(dtype).numpy())
        assert y.dtype == grid(dtype).numpy().dtype
        assert not value_errors(f, y, dtype, full_precision_bound)
    half = f(grid(torch.float16).numpy())
    assert half.dtype == np.float16
    if f in SHARE:
        assert not value_errors(f, half, torch.float16, half_precision_bound(torch.float16))


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_python_numbers_give_a_float(f):
    for x, truth in zip(grid(torch.float64).tolist(), truths(f, torch.float64), strict=True):
        y = f(x)
        assert type(y) is float
        if abs(truth.value) < torch.finfo(torch.float64).max:
            bound = full_precision_bound(truth.condition)
            assert ulps(y - truth.value, truth.value, torch.float64) <= bound


@pytest.mark.parametrize("f", SHARE_OR_ALL, ids=name)
def test_symbolic_form_is_the_same_function(f):
    import sympy

    expression = f.symbolic().expand(func=True)
    expression = expression.replace(
        lambda e: type(e).__name__ in ("sigmoid", "softplus", "erfc", "clip"),
        lambda e: {
            "sigmoid": lambda z: 1 / (1 + sympy.exp(-z)),
            "softplus": lambda z: sympy.log(1 + sympy.exp(z)),
            "erfc": lambda z: 1 - sympy.erf(z),
            "clip": lambda z, low, high: sympy.Min(sympy.Max(z, low), high),
        }[type(e).__name__](*e.args),
    )
    values = {sympy.Symbol(k, real=True): v for k, v in f.flat(f.parameters).items()}
    for x in (-3.3, -0.7, 0.4, 2.9):
        at = expression.subs(values | {sympy.Symbol("x", real=True): x})
        assert float(at) == pytest.approx(f(x), rel=1e-12)


@pytest.mark.parametrize(("f", "dtype"), IN_ALL_DTYPES, ids=name)
def test_limits_and_nan(f, dtype):
    assert f(torch.tensor(math.nan, dtype=dtype)).isnan()
    assert math.isnan(f(np.array([math.nan]))[0])
    for end, limit in zip((-math.inf, math.inf), LIMITS[f.name], strict=True):
        on_torch, on_numpy = f(torch.tensor(end, dtype=dtype)), f(np.array([end]))[0]
        if limit is None:
            assert not on_torch.isnan()
            assert not math.isnan(on_numpy)
            continue
        expected = torch.tensor(limit, dtype=dtype)
        torch.testing.assert_close(on_torch, expected, rtol=torch.finfo(dtype).eps, atol=0)
        np.testing.assert_allclose(on_numpy, limit, rtol=1e-15)
        assert float(f.reference(str(end))) == pytest.approx(limit)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_learnable_selu_variation_oscillates_for_ever(dtype):
    """Within λ(-α ± γ)."""
    y = activations.learnable_selu_variation(torch.tensor(-math.inf, dtype=dtype)).item()
    assert -1.0507 * 1.78 <= y <= -1.0507 * 1.57


@pytest.mark.parametrize(
    ("f", "dtype"),
    [(f, torch.float32) for f in FORMULAS] + list(zip(SHARE, itertools.cycle(DTYPES))),
    ids=name,
)
def test_the_largest_numbers_do_not_spoil_shared_parameters(f, dtype):
    info = torch.finfo(dtype)
    x = torch.tensor([-info.max, -1.0, 0.0, 1.0, info.max], dtype=dtype, requires_grad=True)
    shared = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in f.parameters.values()]
    own = [p.detach()[..., None].expand(*p.shape, 5).requires_grad_() for p in shared]
    dx, *sums = torch.autograd.grad(f(x, *shared).sum(), [x, *shared])
    terms = torch.autograd.grad(f(x, *own).sum(), own) if own else ()
    assert not dx.isnan().any()
    for total, each in zip(sums, terms, strict=True):
        assert not each.isnan().any()
        # Of infinite terms of both signs there is no sum.
        assert not total.isnan().any() or each.isinf().any()


POINTS = torch.tensor([-7.3, -2.1, -0.9, -0.2, 0.3, 0.8, 1.7, 4.2], dtype=torch.float64)


@pytest.mark.parametrize("f", DIFFERENTIABLE, ids=name)
def test_gradcheck_and_gradgradcheck(f):
    """First derivatives by the kernel, second ones through it."""
    scalar = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in f.parameters.values()
    ]
    channels = torch.tensor([[1.0], [1.1]], dtype=torch.float64)
    per_channel = [(v.detach()[..., None, None] * channels).requires_grad_() for v in scalar]
    for parameters in (scalar, per_channel):
        x = POINTS.reshape(2, 4).clone().requires_grad_()
        torch.autograd.gradcheck(f, (x, *parameters), check_forward_ad=True)
        torch.autograd.gradgradcheck(f, (x, *parameters))


@pytest.mark.parametrize("lengths", [(6, 4), (3, 3), (2, 4), (4, 1), (1, 2)], ids=str)
def test_rational_of_any_degrees_is_its_equation(lengths):
    numerator, denominator = (np.linspace(0.3, -0.7, n) for n in lengths)
    f = activations.rational.with_defaults(
        numerator=numerator.tolist(), denominator=denominator.tolist()
    )
    x = np.linspace(-5, 5, 102)
    expected = np.polyval(numerator[::-1], x) / (1 + abs(x * np.polyval(denominator[::-1], x)))
    np.testing.assert_allclose(f(x), expected, rtol=1e-12, atol=1e-12)


def test_unknown_name_suggests_the_nearest():
    message = r"unknown activation 'gelo'; did you mean 'gelu'"
    with pytest.raises(UnknownNameError, match=message) as caught:
        activations.get("gelo")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
