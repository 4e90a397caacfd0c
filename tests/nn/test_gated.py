"""A gate as a module."""

import copy

import pytest
import torch

from zeta import activations
from zeta.nn import ActivatedLinear, GatedUnit


def test_one_packed_tensor_or_two():
    unit = GatedUnit(activations.swiglu, dim=1, layout="interleaved", gate_first=False)
    packed = torch.randn(3, 8, 5)
    gate, value = packed[:, 1::2], packed[:, ::2]
    torch.testing.assert_close(unit(packed), unit(gate, value))
    assert repr(unit) == "GatedUnit(swiglu, dim=1, layout='interleaved', gate_first=False)"


@pytest.mark.parametrize("channels", [1, 4])
def test_its_parameters_learn(channels):
    unit = GatedUnit(
        activations.swiglu_oai, {"limit": 2.0}, learnable=True, num_parameters=channels
    )
    before = copy.deepcopy(unit.state_dict())
    unit(4 * torch.randn(5, 8)).sum().backward()
    torch.optim.SGD(unit.parameters(), 0.1).step()
    assert all((unit.state_dict()[k] != v).any() for k, v in before.items())
    unit.reset_parameters()
    assert (unit.limit == 2).all()
    assert (unit.alpha == torch.tensor(1.702)).all()


def test_compiled_and_exported():
    unit = GatedUnit(activations.swiglu)
    packed = torch.randn(4, 6)
    for run in (
        torch.compile(unit, backend="aot_eager", fullgraph=True),
        torch.export.export(unit, (packed,)).module(),
    ):
        torch.testing.assert_close(run(packed), unit(packed))


@pytest.mark.parametrize("make", [GatedUnit, lambda f, **own: ActivatedLinear(5, 3, f, **own)])
def test_a_gradient_over_its_input(make):
    module = make(activations.swiglu, reuse="inputs")
    assert "reuse='inputs'" in repr(module)
    packed = torch.randn(4, 10, requires_grad=True) * 1
    (slope,) = torch.autograd.grad(module(packed).sum(), packed)
    assert slope.data_ptr() == packed.data_ptr()
    with pytest.raises(ValueError, match="one tensor that holds"):
        module(*packed.chunk(2, -1))


def test_a_formula_of_one_input_is_refused():
    with pytest.raises(TypeError, match=r"gelu\(x\) has 1 inputs, and a gate has two"):
        GatedUnit(activations.gelu)
