"""The fused softmax of a formula, against the same by plain operations in float64."""

import pytest
import torch
import torch.nn.functional as F

import zeta.math as zm
from cases import DTYPES, fraction, name
from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta.kernels import softmax

FORMULAS = [activations.selu, activations.tanh, activations.learnable_selu_variation]
SHAPES = [
    (7,),
    (5, 10),
    (3, 1000),
    (2, 2500),
    (4, 33, 5),
    (2, 3, 70),
    (64, 17, 64),
    (300, 2),
    (1, 1),
]


def plain(x, formula, dim, logs=False, parameters=None):
    value = evaluate_plain(formula, x, parameters or dict(formula.parameters))
    return (F.log_softmax if logs else F.softmax)(value, dim)


def fused(x, formula, dim, logs=False, parameters=None):
    return softmax.fused(formula, x, parameters or dict(formula.parameters), dim, logs)


@pytest.mark.parametrize(
    ("formula", "dtype", "shape"), fraction(2, FORMULAS, DTYPES, SHAPES), ids=name
)
def test_equals_plain_operations(formula, dtype, shape):
    eps = torch.finfo(torch.float32 if dtype.itemsize < 4 else dtype).eps
    for dim in range(len(shape)):
        x = torch.randn(shape).to(dtype).requires_grad_()
        upstream = torch.randn(shape).to(dtype)
        exact = x.detach().double().requires_grad_()
        y, expected = fused(x, formula, dim), plain(exact, formula, dim)
        gradient = torch.autograd.grad(y, x, upstream)[0]
        slope = torch.autograd.grad(expected, exact, upstream.double())[0]
        assert y.dtype == gradient.dtype == dtype
        # 32 roundings of the arithmetic, and one of the result; dx sums terms up to |upstream|.
        rounding = torch.finfo(dtype).eps / 2 if dtype.itemsize < 4 else 0.0
        bound = (32 * eps + rounding) * expected + torch.finfo(dtype).smallest_normal
        assert ((y.double() - expected).abs() <= bound).all(), dim
        size = upstream.abs().max() * expected * 4
        bound = 64 * eps * size + rounding * slope.abs() + torch.finfo(dtype).smallest_normal
        assert ((gradient.double() - slope).abs() <= bound).all(), dim


@pytest.mark.parametrize(
    ("formula", "logs", "dtype", "shape"),
    fraction(2, [activations.softcap, activations.selu], [False, True], DTYPES, SHAPES),
    ids=name,
)
def test_logarithms_and_parameters(formula, logs, dtype, shape):
    """Gradients by parameters that are tensors; a sum errs as its terms' absolute values do."""
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    eps, rounding = torch.finfo(wide).eps, torch.finfo(dtype).eps * (dtype.itemsize < 4)
    for dim in range(len(shape)):
        x = torch.randn(shape).to(dtype).requires_grad_()
        upstream = torch.randn(shape).to(dtype)
        exact = x.detach().double().requires_grad_()
        given = {k: torch.tensor(v, dtype=wide) for k, v in formula.parameters.items()}
        truths = {k: v.double().requires_grad_() for k, v in given.items()}
        given = {k: v.requires_grad_() for k, v in given.items()}
        y = fused(x, formula, dim, logs, given)
        value = formula.function(exact, **truths)
        expected = (torch.log_softmax if logs else torch.softmax)(value, dim)
        ours = torch.autograd.grad(y, (x, *given.values()), upstream)
        theirs = torch.autograd.grad(expected, (exact, *truths.values(), value), upstream.double())
        bound = (64 * eps + rounding) * expected.abs() + 64 * eps
        assert ((y.double() - expected).abs() <= bound).all(), dim
        scale = upstream.abs().max() * (upstream.abs().sum() if logs else 4)
        bound = 64 * eps * scale + rounding * theirs[0].abs()
        assert ((ours[0].double() - theirs[0]).abs() <= bound).all(), dim
        # A half type's own rounding has no part in the sums.
        size = scale * (1 + value.abs().max()) * x.numel() ** 0.5
        for a, b in zip(ours[1:], theirs[1:-1], strict=True):
            assert (a.double() - b).abs() <= 64 * eps * size, dim


def test_far_apart_values_keep_their_logarithms():
    x = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    y = fused(x, activations.softcap, 1, True, {"cap": 1000.0})
    assert y.isfinite().all()
    torch.testing.assert_close(y, plain(x, activations.softcap, 1, True, {"cap": 1000.0}))


@formula(scale=1.0)
def square(x, scale):
    return scale * (x * x)


@formula(shift=0.0)
def root(x, shift):
    return zm.sqrt(x + shift)


def gradients(function, f, x, values, upstream, dim, logs):
    """By x alone, and by x and the parameters."""
    y = function(f, x, f.bind(*values), dim, logs)
    alone = torch.autograd.grad(y, x, upstream, retain_graph=True)
    return *alone, *torch.autograd.grad(y, [x, *values], upstream)


def wide_of(dtype):
    return torch.float32 if dtype.itemsize < 4 else dtype


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_past_an_overflow_there_is_no_gradient(dtype, logs, dim, sign):
    """Although the formula's slope is finite; where x is 0 it is 0 too."""
    rows = torch.tensor([[20, 20, 0], [20, -20, 20], [20, 0, 0], [0, 20, 0]])
    x = (rows if dim else rows.t().contiguous()).to(dtype).requires_grad_()
    wide = wide_of(dtype)
    scale = torch.tensor(sign * torch.finfo(wide).max / 100, dtype=wide, requires_grad=True)
    upstream = torch.linspace(-1, 2, x.numel()).view_as(x).to(dtype)
    for gradient in gradients(softmax.fused, square, x, [scale], upstream, dim, logs):
        assert (gradient == 0).all()


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("logs", [False, True])
def test_what_is_beside_an_overflow_has_its_gradient(logs, dim):
    rows = torch.tensor([[1e20, 0.5, -0.7], [0.5, -1e20, 1e19], [0.3, 0.2, 0.4]])
    x = (rows if dim else rows.t().contiguous()).requires_grad_()
    upstream = torch.linspace(-1, 2, 9).view_as(x)
    for sign in (1.0, -1.0):
        scale = torch.tensor(sign, requires_grad=True)
        ours, theirs = (
            gradients(function, square, x, [scale], upstream, dim, logs)
            for function in (softmax.fused, softmax.plain)
        )
        for gradient in ours[:2]:
            torch.testing.assert_close(gradient, theirs[0])
        # Of the homogeneous formula, where plain operations multiply 0 by the infinite value.
        torch.testing.assert_close(ours[2], sign * (ours[0] * x).sum() / 2)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_an_impossible_class_may_have_an_infinite_slope(dtype, dim):
    """Where plain operations multiply 0 by it."""
    far = 1e8 if dtype == torch.float64 else 4e4
    x = torch.tensor([[0.0, far, far]])
    x = (x if dim else x.t().contiguous()).to(dtype).requires_grad_()
    shift = torch.zeros((), dtype=wide_of(dtype), requires_grad=True)
    upstream = torch.tensor([[2.0, 1.0, 0.0]]).view_as(x).to(dtype)
    for gradient in gradients(softmax.fused, root, x, [shift], upstream, dim, False):
        assert gradient.isfinite().all()
        assert gradient.dim() == 0 or gradient.flatten()[0] == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_saves_the_input_and_the_output_or_two_numbers_per_distribution(dtype):
    x = torch.randn(50, 100).to(dtype).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = fused(x, activations.selu, -1)
    saved = [t for t in saved if t.dim()]  # numbers are the formula's
    assert saved[0].data_ptr() == x.data_ptr()
    if dtype.itemsize < 4:  # the output has lost digits
        assert [(t.dtype, t.numel()) for t in saved[1:]] == [(torch.float32, 2 * 50)]
    else:
        assert [t.data_ptr() for t in saved[1:]] == [y.data_ptr()]


@pytest.mark.parametrize("dim", [0, 1])
def test_the_same_bits_for_any_number_of_threads(dim):
    x = torch.randn(512, 640, requires_grad=True)
    upstream = torch.randn_like(x)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = fused(x, activations.selu, dim)
            found.append((y, *torch.autograd.grad(y, x, upstream)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_strided_input_and_upstream():
    whole = torch.randn(6, 20, requires_grad=True)
    x = whole.t()[::2]
    y = fused(x, activations.selu, 1)
    torch.testing.assert_close(y, plain(x, activations.selu, 1))
    (gradient,) = torch.autograd.grad(y, whole, torch.randn(6, 10).t())
    assert gradient.isfinite().all()


def test_what_it_leaves_to_pytorch():
    assert fused(torch.randn(0, 3), activations.selu, 1) is None
    assert fused(torch.tensor(1.0), activations.selu, 0) is None
    assert fused(torch.randn(3), activations.selu, 1) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_the_default_device_is_no_matter(dtype):
    x = torch.randn(3, 5).to(dtype).requires_grad_()
    expected = torch.autograd.grad(fused(x, activations.elu, 1).square().sum(), x)[0]
    with torch.device("meta"):
        gradient = torch.autograd.grad(fused(x, activations.elu, 1).square().sum(), x)[0]
    assert torch.equal(gradient, expected)
