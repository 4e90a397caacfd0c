"""The catalogue against what frameworks ship of it."""

import pytest
import torch
import torch.nn.functional as F

from oracles import ORACLES
from zeta import activations

# To 20, where F.softplus starts to return x itself.
POINTS = torch.cat([torch.linspace(-30, 20, 1001), torch.tensor([-6.0, -3.0, -1.0, 0.0, 1.0, 3.0])])
CASES = [(library, name) for library, functions in ORACLES.items() for name in functions]
EPS = torch.finfo(torch.float32).eps
# PyTorch's slope of hardsigmoid is a sixth rounded to float32.
TORCHS_SIXTH = 6e-9


def test_every_activation_that_pytorch_has_too_is_compared():
    has = {name for name in activations.CATALOGUE if hasattr(F, name)}
    assert has <= set(ORACLES["torch"])


@pytest.mark.parametrize(("library", "name"), CASES)
def test_values_are_the_same(library, name):
    """In float32, within what rounding does to theirs."""
    ours, theirs = activations.get(name)(POINTS), ORACLES[library][name](POINTS)
    bound = 8 * EPS * torch.maximum(ours.abs(), POINTS.abs().clamp(min=1))
    assert ((ours - theirs).abs() <= bound).all()


@pytest.mark.parametrize("name", ORACLES["torch"])
def test_slopes_are_pytorchs(name):
    """Off the bounds of clips, where PyTorch's is 1 here and 0 there."""
    x = (1.001 * POINTS).requires_grad_()
    values = activations.get(name)(x), ORACLES["torch"][name](x)
    ours, theirs = (torch.autograd.grad(y.sum(), x)[0] for y in values)
    bound = 8 * EPS * torch.maximum(ours.abs(), x.abs().clamp(min=1))
    assert ((ours - theirs).abs() <= bound + TORCHS_SIXTH).all()
