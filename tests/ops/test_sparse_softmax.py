"""Sparsemax and entmax15 against their definition, by a root finder in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq

from cases import DTYPES, FULL_DTYPES, name
from zeta.ops import entmax15, entmax15_loss, sparsemax, sparsemax_loss

# α, the map, and its loss
BOTH = [(2.0, sparsemax, sparsemax_loss), (1.5, entmax15, entmax15_loss)]
both = pytest.mark.parametrize(
    ("alpha", "probabilities", "loss"), BOTH, ids=["sparsemax", "entmax15"]
)


def exact(x, alpha):
    """p of one row, [(α - 1)·x - τ]₊^(1/(α - 1))."""
    z = (alpha - 1) * (x - x.max())
    tau = brentq(
        lambda t: (np.maximum(z - t, 0) ** (1 / (alpha - 1))).sum() - 1,
        -1,
        0,
        xtol=1e-18,
        rtol=1e-15,
    )
    return np.maximum(z - tau, 0) ** (1 / (alpha - 1))


def exact_loss(x, q, alpha):
    """Ω(q) + p·x - Ω(p) - q·x, Ω Tsallis' negative entropy."""
    p = exact(x, alpha)
    entropies = (np.sum(q**alpha) - np.sum(p**alpha)) / (alpha * (alpha - 1))
    return entropies + (p - q) @ (x - x.max())


def rows(dtype):
    """Logits close together and far apart, ties, one that leads, many below one, masked ones."""
    x = torch.randn(8, 40).double() * torch.tensor([[0.01], [0.3], [1], [3], [30], [1], [1], [1]])
    x[5] = -0.5
    x[5, 0] = 0
    x[6, 7] = 1e4
    x[7, ::3] = -math.inf
    return x.to(dtype)


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_probabilities_losses_and_gradients(alpha, probabilities, loss, dtype):
    x = rows(dtype).requires_grad_()
    target, q = torch.tensor([0, 3, 39, -100, 5, 0, 7, 1]), torch.rand(8, 40).double()
    q = (q / q.sum(-1, keepdim=True)).masked_fill(x == -math.inf, 0)
    q = (q / q.sum(-1, keepdim=True)).to(torch.promote_types(dtype, torch.float32))
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    eps, rounding = torch.finfo(wide).eps, torch.finfo(dtype).eps * (dtype.itemsize < 4)
    p = torch.stack([torch.from_numpy(exact(r, alpha)) for r in x.detach().double().numpy()])
    y = probabilities(x)
    # A logit as it is rounded, at most 1 or 2 below the largest, is z's error; p's slope is 2√p.
    bound = 8 * eps + rounding * p + torch.finfo(dtype).smallest_normal
    assert y.dtype == dtype
    assert ((y.double() - p).abs() <= bound).all()
    for goals in (target, q):
        soft = goals.is_floating_point()
        dense = goals.double() if soft else F.one_hot(goals.clamp(min=0), 40).double()
        counted = torch.ones(8) if soft else (goals != -100).double()
        each = loss(x, goals, reduction="none")
        finite = x.detach().double().masked_fill(x == -math.inf, -1e6).numpy()
        true = torch.tensor(
            [exact_loss(a, b, alpha) for a, b in zip(finite, dense.numpy(), strict=True)]
        )
        size = 1 + (dense.numpy() * (finite.max(-1, keepdims=True) - finite)).sum(-1)
        assert (each >= 0).all()
        assert (
            (each.double() - true * counted).abs() <= (16 * eps + rounding) * torch.from_numpy(size)
        ).all()
        (gradient,) = torch.autograd.grad(each.sum(), x)
        wanted = (p - dense) * counted[:, None]
        assert ((gradient.double() - wanted).abs() <= 8 * eps + rounding).all()


@both
def test_the_loss_of_a_target_that_leads_is_exactly_zero(alpha, probabilities, loss):
    x = torch.tensor([[0.0, 5.0, -1.0]])
    assert loss(x, torch.tensor([1])) == 0
    # Near it, the digits of a small loss are right; a difference of sums would have none.
    x, lead = torch.tensor([[0.0, 0.999 / (alpha - 1), -9.0]]), torch.tensor([1])
    true = exact_loss(x[0].double().numpy(), np.array([0.0, 1.0, 0.0]), alpha)
    torch.testing.assert_close(loss(x, lead).double(), torch.tensor(true), rtol=2e-3, atol=0)


@both
def test_many_small_probabilities_sum_to_one(alpha, probabilities, loss):
    """τ itself, near -0.5, would have two digits of what is above it."""
    x = torch.full((50_000,), -0.5)
    x[0] = 0
    p = probabilities(x)
    eps = torch.finfo(torch.float32).eps
    assert (p.double().sum() - 1).abs() <= 16 * eps
    true = exact(x.double().numpy(), alpha)[1]
    assert ((p[1:].double() - true).abs() <= 64 * eps * true).all()


@both
def test_derivatives_of_every_kind(alpha, probabilities, loss):
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    target, q = torch.tensor([0, -100, 2, 5]), torch.rand(4, 6, dtype=torch.float64).softmax(-1)
    kinds = {"check_forward_ad": True, "check_batched_grad": True}
    functions = [probabilities, lambda x: probabilities(x, 0)]
    functions += [
        lambda x, t=t, r=r: loss(x, t, reduction=r) for t in (target, q) for r in ("none", "mean")
    ]
    for function in functions:
        torch.autograd.gradcheck(function, x, fast_mode=True, **kinds)
        torch.autograd.gradgradcheck(function, x, fast_mode=True, check_fwd_over_rev=True)


@both
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does
def test_transforms_and_the_compiler(alpha, probabilities, loss):
    x, target = torch.randn(4, 6), torch.tensor([0, -100, 2, 5])

    def losses(x):
        return loss(x, target, reduction="none")

    torch.testing.assert_close(torch.func.vmap(probabilities)(x), probabilities(x))
    per_token = torch.func.vmap(torch.func.grad(lambda x, t: loss(x[None], t[None]).sum()))
    torch.testing.assert_close(
        per_token(x, target.clamp(min=0)),
        probabilities(x) - F.one_hot(target.clamp(min=0), 6),
        atol=1e-6,
        rtol=0,
    )
    options = {"fullgraph": True, "backend": "aot_eager", "dynamic": True}
    for function in (probabilities, losses):
        z = x.clone().requires_grad_()
        y, expected = torch.compile(function, **options)(z), function(z)
        torch.testing.assert_close(y, expected)
        found = [torch.autograd.grad(v.square().sum(), z)[0] for v in (y, expected)]
        torch.testing.assert_close(*found)


@both
@pytest.mark.parametrize("dtype", FULL_DTYPES, ids=name)
def test_infinities_large_logits_and_nan(alpha, probabilities, loss, dtype):
    inf = math.inf
    x = torch.tensor(
        [[inf, 0, -inf], [inf, inf, 0], [1e30, -3e30, 1e30]], dtype=dtype, requires_grad=True
    )
    eps = torch.finfo(dtype).eps
    expected = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]], dtype=dtype)
    torch.testing.assert_close(probabilities(x), expected, rtol=4 * eps, atol=0)
    (gradient,) = torch.autograd.grad(probabilities(x)[:, 0].sum(), x)
    assert gradient.isfinite().all()
    assert (gradient[probabilities(x) == 0] == 0).all()
    lost = torch.tensor([[math.nan, 0, 1], [-inf, -inf, -inf]], dtype=dtype)
    assert probabilities(lost).isnan().all()
    masked = torch.tensor([[0.0, -inf]], dtype=dtype, requires_grad=True)
    impossible = loss(masked, torch.tensor([1]))
    assert impossible == inf
    assert torch.autograd.grad(impossible, masked)[0].tolist() == [[1, -1]]


@both
def test_keeps_the_probabilities_alone(alpha, probabilities, loss):
    x, saved = torch.randn(5, 9, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = probabilities(x)
        assert [t.numel() for t in saved] == [y.numel()]
        saved.clear()
        loss(x, torch.arange(5))
    assert sum(t.numel() for t in saved if t.is_floating_point()) <= y.numel() + 5


@both
def test_reductions_and_shapes(alpha, probabilities, loss):
    x, target = torch.randn(3, 4, requires_grad=True), torch.tensor([1, -1, 3], dtype=torch.int8)
    each = loss(x, target, ignore_index=-1, reduction="none")
    torch.testing.assert_close(loss(x, target, ignore_index=-1), each.sum() / 2)
    torch.testing.assert_close(loss(x, target, ignore_index=-1, reduction="sum"), each.sum())
    nothing = loss(x, torch.full((3,), -100))
    assert nothing.isnan()
    assert torch.autograd.grad(nothing, x)[0].eq(0).all()
    assert probabilities(torch.tensor(3.0)) == 1
    assert [probabilities(torch.ones(s)).shape for s in ((0, 5), (3, 0))] == [(0, 5), (3, 0)]
    y = torch.randn(2, 5, 3)
    torch.testing.assert_close(probabilities(y, 1), probabilities(y.mT).mT)


@both
def test_bad_input(alpha, probabilities, loss):
    x, target = torch.randn(3, 4), torch.tensor([0, 1, 2])
    with pytest.raises(TypeError, match=f"{probabilities.__name__}: x must be a floating-point"):
        probabilities(torch.arange(3))
    with pytest.raises(IndexError, match="Dimension out of range"):
        probabilities(x, 2)
    for problem, kind, words in [
        ((x[0], target), ValueError, r"x must be \(N, C\), got shape \(4,\)"),
        ((x, target[:2]), ValueError, r"class indices \(3,\) or .* \(3, 4\), got int64 of shape"),
        ((x, [0, 1, 2]), TypeError, "class indices .* got list"),
        ((x, target + 2), IndexError, "target 4 is out of range for 4 classes"),
        ((x, torch.ones(3, 4)), ValueError, "of token 0 the least is 1 and the sum 4: divide"),
    ]:
        with pytest.raises(kind, match=words):
            loss(*problem)
    with pytest.raises(ValueError, match="reduction must be one of"):
        loss(x, target, reduction="average")
