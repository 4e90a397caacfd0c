"""The formulas made for logits: values, slopes and limits."""

import math

import pytest
import torch

from cases import grid, name
from zeta import activations

LIMITS = {
    "temperature": (-math.inf, math.inf),
    "softcap": (-30.0, 30.0),
    "softcap_rsqrt": (-15.0, 15.0),
    "sigsoftmax": (-math.inf, math.inf),
    "taylor_softmax": (math.inf, math.inf),
    "stablemax": (-math.inf, math.inf),
    "shifted_sigmoid": (0.0, 23.0),
}
# What each is the logarithm of, as its paper has it.
POSITIVE = {
    "sigsoftmax": lambda x: x.exp() * x.sigmoid(),
    "taylor_softmax": lambda x: 1 + x + x * x / 2,
    "stablemax": lambda x: torch.where(x >= 0, x + 1, 1 / (1 - x)),
}


def test_all_have_a_limit_here():
    assert LIMITS.keys() == activations.LOGITS.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name)
@pytest.mark.parametrize("f", activations.LOGITS.values(), ids=name)
def test_values_and_slopes_over_the_whole_range(f, dtype):
    """Within four roundings of mpmath; x may be wrong by one, and x / cap by the least number."""
    x = grid(dtype).requires_grad_()
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.isfinite().all()
    eps = torch.finfo(dtype).eps
    least = 32 * torch.finfo(dtype).smallest_normal * eps
    for at, ours in zip(x.tolist(), y.tolist(), strict=True):
        truth = f.reference(at)
        if abs(truth) > torch.finfo(dtype).max:
            assert ours == math.copysign(math.inf, truth)
            continue
        change = abs(f.reference(at * (1 + 2**-40)) - truth) * 2**40
        assert abs(ours - truth) <= 4 * eps * max(abs(truth), change) + least, at


@pytest.mark.parametrize("f", activations.LOGITS.values(), ids=name)
def test_limits(f):
    x = torch.tensor([-torch.inf, torch.inf, torch.nan])
    assert f(x)[:2].tolist() == pytest.approx(LIMITS[f.name])
    assert f(x)[2].isnan()


@pytest.mark.parametrize("f", POSITIVE)
def test_is_the_logarithm_of_what_its_paper_has(f):
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    expected = POSITIVE[f](x).log()
    torch.testing.assert_close(activations.LOGITS[f](x), expected)
    assert activations.get(f) is activations.LOGITS[f]
