"""The primitives in kernels against mpmath: over all exponents, where they bend, at limits."""

import math

import mpmath
import numpy as np
import pytest
import torch

import zeta.math as zm
from cases import FULL_DTYPES, name, ulps
from zeta import formula
from zeta._backends.torch_plain import evaluate_plain


def _named(of, function, **parameters):
    made = formula(**parameters)(function)
    made.name = of
    return made


def _primitive(of):
    return _named(of, lambda x: getattr(zm, of)(x))


def _to_the(p):
    return _named(f"power {p}", lambda x: x**p)


power = _named("power", lambda x, p: x**p, p=1.0)
# Each with its derivative, and the least x that it is defined at.
FUNCTIONS = {
    _primitive("erf"): (lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x), -math.inf),
    _primitive("erfc"): (lambda x: -2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x), -math.inf),
    _primitive("exp"): (mpmath.exp, -math.inf),
    _primitive("expm1"): (mpmath.exp, -math.inf),
    _primitive("softplus"): (lambda x: 1 / (1 + mpmath.exp(-x)), -math.inf),
    _primitive("log"): (lambda x: 1 / x, 0),
    _primitive("log1p"): (lambda x: 1 / (1 + x), -1),
    _primitive("sin"): (mpmath.cos, -math.inf),
    _primitive("cos"): (lambda x: -mpmath.sin(x), -math.inf),
    _primitive("sqrt"): (lambda x: 1 / (2 * mpmath.sqrt(x)), 0),
    _primitive("rsqrt"): (lambda x: -1 / (2 * x * mpmath.sqrt(x)), 0),
    _primitive("asinh"): (lambda x: 1 / mpmath.sqrt(1 + x * x), -math.inf),
    _primitive("sinc"): (lambda x: (mpmath.cospi(x) - mpmath.sincpi(x)) / x, -math.inf),
    _named("hypot", lambda x: zm.hypot(x, 1.5)): (
        lambda x: x / mpmath.sqrt(x * x + 2.25),
        -math.inf,
    ),
    _named("logaddexp", lambda x: zm.logaddexp(x, 1.5)): (
        lambda x: 1 / (1 + mpmath.exp(1.5 - x)),
        -math.inf,
    ),
    **{_to_the(p): (lambda x, p=p: p * x ** (p - 1), 0) for p in (1.5, -0.5, -2.5, 7.5, 2.75)},
    **{_to_the(p): (lambda x, p=p: p * x ** (p - 1), -math.inf) for p in (3, -3, 5, 8, 9)},
}


def points(dtype, least):
    info = torch.finfo(dtype)
    lowest, highest = math.frexp(info.tiny * info.eps)[1], math.frexp(info.max)[1]
    exponents = np.arange(lowest, highest, 1 if dtype == torch.float32 else 13)
    random = np.random.default_rng(0)
    every = np.ldexp(random.uniform(0.5, 1, exponents.size), exponents)
    # Where both signs are defined, they take turns.
    signed = np.where(np.arange(every.size) % 2, -every, every) if least < 0 else every
    x = [*signed, *np.linspace(-7, 7, 141), *random.normal(1, 0.01, 20), -26.5, -9.5, 9.5]
    x = torch.tensor([*x, 26.5, 1.0, info.max, info.tiny]).to(dtype)
    return x[(x > least) & (x != 0) & x.isfinite()].unique().requires_grad_()


def assert_near(got, expected, at, dtype, bound, factor=1):
    """Within the bound; a factor that is multiplied last may come too late at the range's ends."""
    info = torch.finfo(dtype)
    edge = info.max * min(factor, 1 / factor)
    if abs(expected) > edge * (1 - 8 * bound * info.eps):
        assert abs(got) > edge * (1 - 16 * bound * info.eps), at
    else:
        late = abs(expected) < info.tiny * factor
        assert ulps(mpmath.mpf(got) - expected, expected, dtype) <= bound + factor * late, at


@pytest.mark.parametrize("dtype", FULL_DTYPES, ids=name)
@pytest.mark.parametrize("f", FUNCTIONS, ids=name)
def test_values_and_slopes(f, dtype):
    """Within four units of the exact function, and slope, of an x that is off by rounding."""
    derivative, least = FUNCTIONS[f]
    x = points(dtype, least)
    y = f(x)
    assert "Fused" in y.grad_fn.name()
    (slopes,) = torch.autograd.grad(y.sum(), x)
    change = mpmath.fadd(1, mpmath.ldexp(1, -60), exact=True)
    for at, value, slope in zip(x.tolist(), y.tolist(), slopes.tolist(), strict=True):
        with mpmath.workdps(50 - min(0, math.frexp(at)[1])):
            exact, steepness = f(mpmath.mpf(at)), derivative(mpmath.mpf(at))
            condition = abs(at * steepness / exact) if exact else 0
            moved = derivative(at * change) / steepness if steepness else 1
            drift = abs(moved - 1) / (change - 1)
        assert_near(value, exact, at, dtype, 4 * max(1, condition))
        assert_near(slope, steepness, at, dtype, 4 * max(1, drift), factor=10)


@pytest.mark.parametrize("dtype", FULL_DTYPES, ids=name)
@pytest.mark.parametrize("p", [1.3, -2.3, 9.0, 30.5, 1e-3, 200.1])
def test_powers_of_a_parameter(p, dtype):
    """To 1 unit, and a tenth of one for each of the exponent; their gradients to a few more."""
    x = points(dtype, 0)
    exponent = torch.full_like(x, p).requires_grad_()
    y = power(x, exponent)
    gradients = torch.autograd.grad(y.sum(), [x, exponent])
    p = mpmath.mpf(exponent[0].item())
    bound = 1 + float(abs(p)) / 10
    rounding = abs(mpmath.mpf((exponent - 1)[0].item()) - (p - 1)) / torch.finfo(dtype).eps
    for at, value, *slopes in zip(*(t.tolist() for t in (x, y, *gradients)), strict=True):
        base = mpmath.mpf(at)
        logarithm = mpmath.log(base)
        assert_near(value, base**p, at, dtype, bound)
        size = max(1, abs(logarithm))
        near = bound + 2 + 2 * size * rounding
        assert_near(slopes[0], p * base ** (p - 1), at, dtype, near, factor=abs(p))
        assert_near(slopes[1], base**p * logarithm, at, dtype, bound + 3, factor=size)
    mirrored = power(-x, exponent)
    assert torch.equal(mirrored, -y) if p == 9 else mirrored.isnan().all()


@pytest.mark.parametrize("dtype", FULL_DTYPES, ids=name)
def test_powers_of_special_numbers(dtype):
    """As PyTorch's, with its gradients: of 0, infinities and NaN; whole exponents; huge ones."""
    info = torch.finfo(dtype)
    numbers = [0.0, 1.0, 0.5, 2.0, 3.0, 3.5, info.tiny, info.max, 1 + info.eps, 1 - info.eps]
    numbers += [math.inf, 2 / info.eps, 1 / info.eps + 1, 1 / info.eps / 4 + 0.5, 1e30]
    numbers = torch.tensor([*numbers, *(-n for n in numbers), math.nan], dtype=dtype)
    x, p = (t.flatten().requires_grad_() for t in torch.meshgrid(numbers, numbers, indexing="ij"))
    ours, plain = power(x, p), evaluate_plain(power, x, {"p": p})
    close = {"rtol": 8 * info.eps, "atol": info.tiny * info.eps, "equal_nan": True}
    torch.testing.assert_close(ours, plain, **close)
    for mine, other in zip(
        torch.autograd.grad(ours.sum(), [x, p]),
        torch.autograd.grad(plain.sum(), [x, p]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, **close)


@pytest.mark.parametrize("dtype", FULL_DTYPES, ids=name)
def test_limits(dtype):
    ends = torch.tensor([-math.inf, 0.0, math.inf, math.nan], dtype=dtype)
    for of, expected in {
        "erf": (-1, 0, 1),
        "erfc": (2, 1, 0),
        "log": (math.nan, -math.inf, math.inf),
        "log1p": (math.nan, 0, math.inf),
        "softplus": (0, math.log(2), math.inf),
        "sqrt": (math.nan, 0, math.inf),
        "rsqrt": (math.nan, math.inf, 0),
        "asinh": (-math.inf, 0, math.inf),
        "sinc": (0, 1, 0),
        "sign": (-1, 0, 1),
        "round": (-math.inf, 0, math.inf),
        "floor": (-math.inf, 0, math.inf),
    }.items():
        y = _primitive(of)(ends)
        torch.testing.assert_close(
            y, torch.tensor([*expected, math.nan], dtype=dtype), equal_nan=True
        )
