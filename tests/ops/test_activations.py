"""The documents' functions: signatures, defaults, parameters as tensors."""

import inspect

import pytest
import torch

from zeta import activations, ops

FUNCTIONS = {
    ops.exo: activations.exo,
    ops.learnable_selu_variation: activations.learnable_selu_variation,
    ops.laplace: activations.laplace,
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_signature_and_defaults_are_the_formulas(function):
    parameters = inspect.signature(function).parameters
    defaults = {k: p.default for k, p in parameters.items() if k != "input"}
    assert defaults == dict(FUNCTIONS[function].parameters)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_numbers_scalar_tensors_and_channels_agree(function):
    x = torch.randn(4, 3, 5)
    defaults = FUNCTIONS[function].parameters
    expected = function(x)
    scalars = {k: torch.tensor(v, requires_grad=True) for k, v in defaults.items()}
    channels = {k: torch.full((3, 1), v, requires_grad=True) for k, v in defaults.items()}
    for parameters in (scalars, channels):
        y = function(x, **parameters)
        torch.testing.assert_close(y, expected)
        y.sum().backward()
        assert all(p.grad.isfinite().all() for p in parameters.values())
    for k in defaults:
        torch.testing.assert_close(channels[k].grad.sum(), scalars[k].grad)


def test_exo_uses_alpha():
    x = torch.randn(100)
    gate = torch.sigmoid(0.5 * x)
    torch.testing.assert_close(ops.exo(x, 0.5), gate * x + (1 - gate) * torch.tanh(x))


def test_laplace_keeps_its_lower_tail():
    x = torch.tensor(-2.0)
    z = (x.double() - 0.707107) / (0.282095 * 2**0.5)
    expected = 0.5 * torch.erfc(-z)
    assert 0 < expected < 1e-20
    torch.testing.assert_close(ops.laplace(x).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3, 4, 5)])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_any_shape_and_strides(function, shape):
    x = torch.randn(shape)
    assert function(x).shape == shape
    if x.dim() == 4:
        torch.testing.assert_close(function(x.to(memory_format=torch.channels_last)), function(x))
        torch.testing.assert_close(function(x[:, ::2, 1:, ::3]), function(x)[:, ::2, 1:, ::3])
