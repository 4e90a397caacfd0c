"""Kernels on every layout and number of threads, against the plain formula."""

import pytest
import torch

from cases import DTYPES, SHARE, name, rational
from zeta import activations
from zeta._backends.torch_plain import evaluate_plain
from zeta.kernels.operands import find_layout

LSELU = activations.learnable_selu_variation
SHAPE = (3, 5, 4, 6)


def layouts():
    x = torch.randn(SHAPE)
    return {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(0, 3),
        "strided": torch.randn(6, 5, 4, 12)[::2, :, :, ::2],
        "rows apart": torch.randn(3, 5, 4, 13)[..., 3:9],
        "rows apart unevenly": torch.randn(3, 9, 4, 6)[:, 2:7, :, :4],
        "expanded": torch.randn(5, 1, 6).expand(3, 5, 4, 6),
        "empty": torch.randn(3, 0, 4, 6),
        "scalar": torch.randn(()),
    }


def assert_equals_plain(f, x, parameters):
    """Values and gradients, in units of what the same sums in the same dtype can be off by."""
    x = x.detach().requires_grad_()
    parameters = {k: v.detach().requires_grad_() for k, v in parameters.items()}
    inputs = [x, *parameters.values()]
    y, plain = f(x, **parameters), evaluate_plain(f, x, parameters)
    assert "Fused" in y.grad_fn.name()
    assert y.stride() == torch.empty_like(x).stride()
    upstream = torch.randn_like(y)
    torch.testing.assert_close(y, plain)
    ours = torch.autograd.grad(y, inputs, upstream)
    theirs = torch.autograd.grad(plain, inputs, upstream)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(mine, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", layouts())
def test_memory_layouts(layout):
    x = layouts()[layout]
    parameters = {k: torch.tensor(v) for k, v in LSELU.parameters.items()}
    assert_equals_plain(LSELU, x, parameters)


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "transposed"])
def test_one_value_per_channel(layout, dim):
    x = layouts()[layout]
    shape = [1] * 4
    shape[dim] = x.shape[dim]
    parameters = {k: v + torch.rand(shape) for k, v in LSELU.parameters.items()}
    assert_equals_plain(LSELU, x, parameters)


@pytest.mark.parametrize(
    ("x_shape", "parameter_shape"),
    [
        ((700, 3), (3,)),
        ((3, 5000), (3, 1)),
        ((130, 1100), (1100,)),
        ((2, 3, 4), (3, 4)),
        ((2, 3, 4), (2, 3, 4)),
        ((2, 3, 4), (2, 1, 4)),  # dimensions that lie apart: the plain formula
        ((0, 4), (4,)),
    ],
    ids=str,
)
def test_any_broadcast(x_shape, parameter_shape):
    x = torch.randn(x_shape, requires_grad=True)
    mu = torch.rand(parameter_shape, requires_grad=True)
    parameters = {"mu": mu, "sigma": 0.5}
    y, plain = (
        activations.laplace(x, **parameters),
        evaluate_plain(activations.laplace, x, parameters),
    )
    torch.testing.assert_close(y, plain, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(y)
    ours = torch.autograd.grad(y, [x, mu], upstream)
    theirs = torch.autograd.grad(plain, [x, mu], upstream)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_scalars_and_channels_mix():
    x = torch.randn(2, 3, 50)
    assert_equals_plain(
        activations.laplace, x, {"mu": torch.rand(3, 1), "sigma": torch.tensor(0.5)}
    )
    parameters = {"mu": torch.rand(3, 1, dtype=torch.float64), "sigma": torch.tensor(0.5)}
    assert_equals_plain(activations.laplace, x, parameters)


@pytest.mark.parametrize("f", [activations.exo, LSELU, activations.laplace, rational], ids=name)
@pytest.mark.parametrize("shape", [(300_001,), (3, 100_000), (2000, 150)], ids=str)
def test_same_bits_for_any_number_of_threads(f, shape):
    x = torch.randn(shape, requires_grad=True)
    channels = {(300_001,): (), (3, 100_000): (3, 1), (2000, 150): (150,)}[shape]
    ones = torch.ones(channels)
    parameters = {
        k: (torch.tensor(v).view(-1, *[1] * len(channels)) * ones).requires_grad_()
        if k in f.vectors
        else (v * ones).requires_grad_()
        for k, v in f.parameters.items()
    }
    upstream = torch.randn(shape)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = f(x, **parameters)
            results.append([y, *torch.autograd.grad(y, [x, *parameters.values()], upstream)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("f", [activations.exo, LSELU, activations.laplace], ids=name)
def test_parameter_gradients_are_nearer_the_truth_than_plain_ones(f):
    x = torch.randn(1 << 18)
    upstream = torch.randn(1 << 18)

    def gradients(function, dtype):
        parameters = {
            k: torch.tensor(v).to(dtype).requires_grad_() for k, v in f.parameters.items()
        }
        y = function(f, x.to(dtype), parameters)
        return torch.stack(torch.autograd.grad(y, parameters.values(), upstream.to(dtype)))

    truth = gradients(evaluate_plain, torch.float64)
    plain = gradients(evaluate_plain, torch.float32)
    ours = gradients(lambda f, x, p: f(x, **p), torch.float32)
    scale = truth.abs() + (1 << 9)  # a sum of 2^18 terms of random sign is about 2^9
    assert ((ours - truth).abs() / scale <= 1e-6).all()
    assert ((ours - truth).abs().max() <= 4 * (plain - truth).abs().max() + 1e-4).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("f", SHARE, ids=name)
def test_tails_of_every_length(f, dtype):
    whole = torch.randn(70).to(dtype)
    expected = f(whole)
    for length in (1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65):
        assert torch.equal(f(whole[:length].clone()), expected[:length])


def test_sine_of_huge_arguments():
    x = -torch.logspace(0, 38, 400)
    plain = evaluate_plain(LSELU, x.double(), dict(LSELU.parameters))
    moderate = x > -5e4
    torch.testing.assert_close(LSELU(x)[moderate].double(), plain[moderate], rtol=2e-6, atol=1e-6)
    assert LSELU(x, omega=10.0).isfinite().all()


def test_large_tensors_take_the_prefetching_loop():
    x = torch.randn((3 << 20) + 5, requires_grad=True)
    y = activations.silu(x)
    torch.testing.assert_close(y, evaluate_plain(activations.silu, x, {}))


def test_layout_of_dimensions_apart_is_none():
    assert find_layout(torch.empty(2, 3, 4), [torch.empty(2, 1, 4)]) is None


def test_the_default_device_is_no_matter():
    """Kernels read memory, which a tensor made on another device does not have."""
    x = torch.randn(64, requires_grad=True)
    slope = torch.tensor(0.3, requires_grad=True)
    with torch.device("meta"):
        fixed, learned = activations.leaky_relu(x, 0.123), activations.leaky_relu(x, slope)
        gradients = torch.autograd.grad(learned.sum(), [x, slope])
    assert torch.equal(fixed, torch.where(x > 0, x, 0.123 * x))
    torch.testing.assert_close(gradients[1], x.clamp(max=0).sum())
