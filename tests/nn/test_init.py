"""Gains of weights: 1/√E[f(z)²], against mpmath's quadrature."""

import math

import mpmath
import pytest
import torch

from cases import SHARE, name
from zeta import activations, formula
from zeta.math import clip, exp, sin
from zeta.nn import Exo, init


def by_mpmath(f, points=(-38, -8, -3, -1, 0, 1, 3, 8, 38), **parameters):
    with mpmath.workdps(20):
        values = f.bind(**parameters)
        weighted = lambda z: f(z, **values) ** 2 * mpmath.npdf(z)
        return float(1 / mpmath.sqrt(mpmath.quad(weighted, points, maxdegree=7)))


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_the_catalogues_gains(f):
    assert init.calculate_gain(f) == pytest.approx(by_mpmath(f), rel=1e-10)


def test_known_gains():
    assert init.calculate_gain("relu") == pytest.approx(math.sqrt(2), rel=1e-12)
    slope = init.calculate_gain("leaky_relu", negative_slope=0.2)
    assert slope == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.2), rel=1e-12)
    assert init.calculate_gain(activations.selu) == pytest.approx(1, abs=1e-6)
    assert init.calculate_gain("exo", alpha=0.3) == pytest.approx(
        by_mpmath(activations.exo, alpha=0.3), rel=1e-10
    )


def test_kinks_anywhere():
    @formula(at=0.7)
    def ramp(x, at):
        return clip(x, -1 / 3, 0.7) + at

    points = (-38, -8, -mpmath.mpf(1) / 3, mpmath.mpf("0.7"), 8, 38)
    assert init.calculate_gain(ramp) == pytest.approx(by_mpmath(ramp, points), rel=1e-10)


def test_a_layer_keeps_the_second_moment():
    x = torch.randn(2000, 400, generator=torch.Generator().manual_seed(1))
    weight = torch.empty(400, 400)
    std = init.calculate_gain("mish") / math.sqrt(400)
    torch.nn.init.normal_(weight, std=std, generator=torch.Generator().manual_seed(2))
    # The mean of 800,000 squares, which share 160,000 weights.
    assert (activations.mish(x) @ weight).square().mean().item() == pytest.approx(1, abs=0.05)


def test_what_has_no_gain_says_so():
    @formula
    def nothing(x):
        return 0 * x

    @formula
    def explosive(x):
        return exp(x * x)

    @formula
    def restless(x):
        return sin(1e6 * x)

    for f in (nothing, explosive, restless):
        with pytest.raises(ValueError, match=rf"calculate_gain: .* of {f.name}"):
            init.calculate_gain(f)
    with pytest.raises(TypeError, match=r"one input, and swiglu\(gate, value\) takes 2"):
        init.calculate_gain("swiglu")
    with pytest.raises(ValueError, match="unknown activation 'exoo'; did you mean 'exo'"):
        init.calculate_gain("exoo")
    with pytest.raises(TypeError, match="must be a Formula or a name of the catalogue, got Exo"):
        init.calculate_gain(Exo())
    with pytest.raises(TypeError, match="'beta' is not a parameter"):
        init.calculate_gain("exo", beta=1.0)


def test_a_narrow_bump_far_from_zero_counts():
    @formula(c=1.0)
    def bump(x, c):
        z = (x - 1.7) * c
        return exp(-z * z)

    # E[f²] = ∫ e^(-2c²(z - 1.7)²) φ(z) dz, a product of two Gaussians.
    for c in (1.0, 10.0, 100.0):
        variance = 1 + 1 / (4 * c * c)
        moment = math.exp(-(1.7**2) / (2 * variance)) / (2 * c * math.sqrt(variance))
        assert init.calculate_gain(bump, c=c) == pytest.approx(moment**-0.5, rel=1e-9)
