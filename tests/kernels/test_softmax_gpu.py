"""The softmax of a formula by Triton: on a GPU, else in Triton's interpreter on CPU tensors."""

import math
from functools import lru_cache

import pytest
import torch

import zeta.math as zm
from cases import name, rational
from zeta import activations, formula
from zeta.kernels import softmax

pytest.importorskip("triton", reason="Triton has no build for this platform")
# The interpreter computes with NumPy, which warns of what are values here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGEST = torch.finfo(torch.float32).max


@formula(slope=0.7, bend=0.2)
def tilted(x, slope, bend):
    """A user's own; of its derivative by bend, slope·sin(x), a sum takes the slope out."""
    return slope * (x + bend * zm.sin(x))


@formula
def overflowing(x):
    return x * x * x


@pytest.fixture(autouse=True)
def through_triton(monkeypatch):
    """What is done for CUDA tensors, done for the interpreter's CPU tensors."""
    if DEVICE == "cpu":
        monkeypatch.setattr(softmax, "_call", lru_cache(softmax._TritonSoftmax))


def make(f, shape, dtype):
    """x, the parameters as leaves, and an upstream gradient."""
    x = torch.randn(shape, device=DEVICE).mul(2).to(dtype).requires_grad_()
    values = [torch.tensor(v, device=DEVICE).requires_grad_() for v in f.parameters.values()]
    return [x, *values], torch.randn(shape, device=DEVICE).to(dtype)


def outcome(function, f, leaves, upstream, dim, logs):
    """The result, and the gradients by all leaves."""
    y = function(f, leaves[0], f.bind(*leaves[1:]), dim, logs)
    assert function is softmax.plain or "Fused" in y.grad_fn.name()
    return [y, *torch.autograd.grad(y, leaves, upstream, allow_unused=True)]


def doubled(leaves):
    return [t.detach().double().requires_grad_() for t in leaves]


# One program and several, one block of classes and several, each in both arrangements.
CASES = [
    (activations.softcap, (1,), 0),
    (activations.selu, (7, 10), 1),
    (tilted, (150, 7), 1),
    (rational, (2, 257), 1),
    (tilted, (2, 9000), 1),
    (activations.selu, (33, 5, 2), 0),
    (activations.softcap, (2, 40, 33), 1),
]
HALVES = [(activations.selu, (5000,), 0), (activations.softcap, (2, 9, 5), 1)]


@pytest.mark.parametrize("logs", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize(
    ("f", "shape", "dim", "dtype"),
    [
        *[(*case, torch.float32) for case in CASES],
        *[(*case, dtype) for case in HALVES for dtype in (torch.float16, torch.bfloat16)],
    ],
    ids=str,
)
def test_errs_no_more_than_plain_operations(f, shape, dim, logs, dtype):
    """Against float64: twice their error, and some roundings of the sizes that are summed."""
    leaves, upstream = make(f, shape, dtype)
    ours = outcome(softmax.fused, f, leaves, upstream, dim, logs)
    theirs = outcome(softmax.plain, f, leaves, upstream, dim, logs)
    exact = outcome(softmax.plain, f, doubled(leaves), upstream.double(), dim, logs)
    assert ours[0].dtype == ours[1].dtype == dtype
    half = torch.finfo(dtype).eps if dtype.itemsize < 4 else 0.0  # the interpreter truncates
    for k, (a, b, truth) in enumerate(zip(ours, theirs, exact, strict=True)):
        off, plain_off = ((t.double() - truth).abs().max() for t in (a, b))
        size = upstream.abs().sum() if k > 1 else truth.abs().max()
        rounding = 16 * torch.finfo(torch.float32).eps + half * (k < 2)
        assert off <= 2 * plain_off + rounding * size, k


@pytest.mark.parametrize("logs", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "f", [activations.selu, activations.softcap, activations.identity, overflowing], ids=name
)
def test_special_values_are_the_plain_formulas(f, logs):
    """Also the gradients, wherever these have some; a row with a NaN has none."""
    numbers = [LARGEST, -LARGEST, 1e30, -1e30, 1e5, -1e5, 1e-42, 0.0, 1.0]
    special = [math.inf, -math.inf, math.nan]
    rows = [[a, b, 0.5] for a in (*special, *numbers) for b in (*numbers, math.inf)]
    x = torch.tensor(rows, device=DEVICE).requires_grad_()
    values = make(f, (1,), x.dtype)[0][1:]
    upstream = torch.linspace(-1, 2, x.numel(), device=DEVICE).view_as(x)
    ours, theirs = (
        outcome(function, f, [x, *values], upstream, 1, logs)
        for function in (softmax.fused, softmax.plain)
    )
    torch.testing.assert_close(ours[0], theirs[0], equal_nan=True, rtol=1e-5, atol=1e-42)
    sound = ~theirs[0].isnan().any(1, keepdim=True)
    known = theirs[1].isfinite() & sound
    torch.testing.assert_close(ours[1][known], theirs[1][known], rtol=1e-5, atol=1e-6)
    assert not (ours[1].isnan() & sound).any()


def test_an_impossible_class_may_have_an_infinite_slope():
    """Where plain operations multiply 0 by it."""
    x = torch.tensor([[0.0, 1e8, 1e8]], device=DEVICE, requires_grad=True)
    y = softmax.fused(formula(lambda x: zm.sqrt(x)), x, {}, 1, False)
    assert torch.autograd.grad(y[0, 1], x)[0][0, 0] == 0


def test_the_same_bits_again():
    leaves, upstream = make(tilted, (150, 7), torch.float32)
    ours, again = (outcome(softmax.fused, tilted, leaves, upstream, 1, False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))


def test_what_one_class_of_a_long_row_does_to_the_others():
    """A later block's is far above an earlier one's maximum, or infinite, or NaN."""
    x = torch.zeros(3, 9000, device=DEVICE)
    x[0, 8999], x[1, 4096], x[2, 5000] = 500.0, math.inf, math.nan
    y = softmax.fused(activations.selu, x, dict(activations.selu.parameters), 1, False)
    assert y[0, 8999] == y[1, 4096] == 1
    assert y[:2].sum() == 2
    assert y[2].isnan().all()


def test_is_differentiable_again_and_takes_strided_tensors():
    f, whole = tilted, torch.randn(6, 20, device=DEVICE, requires_grad=True)
    slope = torch.tensor(0.5, device=DEVICE, requires_grad=True)
    found = []
    for function in (softmax.fused, softmax.plain):
        y = function(f, whole.t()[::2], {"slope": slope, "bend": 0.3}, 1, False)
        upstream = torch.linspace(-1, 1, 60, device=DEVICE).view(6, 10).t()
        first = torch.autograd.grad(y, (whole, slope), upstream, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), (whole, slope))
        alone = torch.autograd.grad(
            function(f, whole.t()[::2], {"slope": slope, "bend": 0.3}, 1, False), slope, upstream
        )
        found.append((y, *first, *second, *alone))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name)
def test_saves_the_input_and_two_numbers_of_each_distribution(dtype):
    (x, *_), _ = make(activations.selu, (4, 10), dtype)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        softmax.fused(activations.selu, x, dict(activations.selu.parameters), 1, False)
    assert saved[0].data_ptr() == x.data_ptr()
    assert [(t.dtype, t.numel()) for t in saved[1:]] == [(torch.float32, 2 * 4)]


def test_what_it_leaves_to_plain_operations(monkeypatch):
    x, f = torch.randn(2, 3, device=DEVICE), activations.softcap
    assert softmax.fused(f, x, {"cap": 3.0}, 1, False) is not None
    assert softmax.fused(f, x.double(), {"cap": 3.0}, 1, False) is None
    assert softmax.fused(f, x, {"cap": torch.ones(3, device=DEVICE)}, 1, False) is None
    assert softmax.fused(f, x, {"cap": torch.ones((), device="meta")}, 1, False) is None
    monkeypatch.setattr(softmax, "has_triton", lambda: False)
    assert softmax.fused(f, x, {"cap": 4.0}, 1, False) is None
    expected = softmax.plain(f, x, {"cap": 4.0}, 1, False)
    torch.testing.assert_close(f.softmax(x, cap=4.0), expected)
