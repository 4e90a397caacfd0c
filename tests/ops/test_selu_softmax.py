"""SELU, then softmax."""

import inspect
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from zeta.ops import SELU_ALPHA, SELU_SCALE, selu_softmax


def written_out(x, dim, alpha=SELU_ALPHA, scale=SELU_SCALE):
    zero = torch.zeros_like(x)
    selu = scale * (torch.maximum(zero, x) + torch.minimum(zero, alpha * torch.expm1(x)))
    return F.softmax(selu, dim)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_is_softmax_of_selu_and_leaves_its_input_alone(dim):
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    y = selu_softmax(x, dim)
    torch.testing.assert_close(y, written_out(x, dim))
    torch.testing.assert_close(y.sum(dim), torch.ones_like(y.sum(dim)))
    assert torch.equal(x, before)
    y = selu_softmax(x, dim, alpha=0.5, scale=2.0)
    torch.testing.assert_close(y, written_out(x, dim, alpha=0.5, scale=2.0))


def test_scale_squared_gives_the_old_numbers():
    """Upstream called F.selu(x, alpha): alpha landed in ``inplace``, and scale came twice."""
    x = torch.randn(50, dtype=torch.float64)
    old = F.softmax(SELU_SCALE * F.selu(x.clone(), True), dim=0)
    torch.testing.assert_close(selu_softmax(x, dim=0, scale=SELU_SCALE**2), old, rtol=1e-14, atol=0)


def test_default_dim_is_the_documented_one():
    assert inspect.signature(selu_softmax).parameters["dim"].default == 0
    x = torch.randn(10)
    assert torch.equal(selu_softmax(x), selu_softmax(x, dim=0))


def test_leaving_dim_out_warns_once(clean_env):
    code = """
import torch, warnings
from zeta.ops import selu_softmax
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    selu_softmax(torch.randn(10))
    selu_softmax(torch.randn(2, 3), 0)
    assert not caught
    selu_softmax(torch.randn(2, 3))
    selu_softmax(torch.randn(2, 3))
assert len(caught) == 1, caught
assert "dim was left out" in str(caught[0].message)
assert caught[0].filename == "<string>"
"""
    subprocess.run([sys.executable, "-c", code], env=clean_env, check=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(dtype):
    x = torch.randn(8, 33).to(dtype)
    y = selu_softmax(x, -1)
    assert y.dtype == dtype
    exact = written_out(x.double(), -1)
    half_ulp = 0.5 * torch.finfo(dtype).eps * exact
    float32_error = 32 * torch.finfo(torch.float32).eps * exact
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert ((y.double() - exact).abs() <= half_ulp + float32_error + smallest).all()


def test_no_finite_input_gives_nan():
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([[largest, 0.0, -largest], [largest, largest, 1.0]], requires_grad=True)
    y = selu_softmax(x, -1)
    torch.testing.assert_close(y, torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]]))
    (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
    assert gradient.isfinite().all()


def test_infinities_give_the_limit():
    y = selu_softmax(torch.tensor([math.inf, 0.0, -math.inf]), -1)
    assert y.tolist() == [1, 0, 0]
    y = selu_softmax(torch.tensor([0.0, -math.inf]), -1)
    lowest = -SELU_ALPHA * SELU_SCALE
    torch.testing.assert_close(y, torch.tensor([0.0, lowest]).softmax(-1))
    assert selu_softmax(torch.tensor([0.0, math.nan]), -1).isnan().all()


def test_gradcheck():
    x = torch.tensor([[0.3, -0.7, 1.9], [-2.1, 0.4, -0.2]], dtype=torch.float64, requires_grad=True)
    for dim in (0, 1):
        torch.autograd.gradcheck(selu_softmax, (x, dim))
        torch.autograd.gradgradcheck(selu_softmax, (x, dim))


def test_bad_input():
    with pytest.raises(TypeError, match="selu_softmax: input must be a floating-point tensor"):
        selu_softmax(torch.arange(3))
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        selu_softmax(torch.randn(3), dim=0.7)
    with pytest.raises(IndexError, match=r"selu_softmax: dim must be in \[-1, 0\], got 1"):
        selu_softmax(torch.randn(3), dim=1)


def test_torch_compile_takes_it_whole():
    compiled = torch.compile(selu_softmax, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 4)
    torch.testing.assert_close(compiled(x, -1), selu_softmax(x, -1))
    torch.testing.assert_close(compiled(x), selu_softmax(x, 0))
