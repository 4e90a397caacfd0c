"""A formula and a linear map as one module."""

import pytest
import torch
from torch import nn

from zeta import activations
from zeta.nn import ActivatedLinear, FormulaModule, GatedUnit


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("f", [activations.exo, activations.swiglu_oai])
def test_equal_to_two_modules(f, learnable):
    block = ActivatedLinear(6, 3, f, learnable=learnable)
    kind = FormulaModule if len(f.inputs) == 1 else GatedUnit
    plain = nn.Sequential(kind(f, learnable=learnable), nn.Linear(6, 3))
    plain[1].load_state_dict(block.state_dict(), strict=False)
    x = torch.randn(4, 6 * len(f.inputs), requires_grad=True)
    results = []
    for module, linear in ((block, block), (plain, plain[1])):
        module.zero_grad()
        y = module(x)
        y.square().sum().backward()
        own = [
            p.grad for n, p in module.named_parameters() if "weight" not in n and "bias" not in n
        ]
        results.append((y, linear.weight.grad, linear.bias.grad, *own, x.grad))
        x.grad = None
    torch.testing.assert_close(*results)
    assert len(results[0]) == 4 + learnable * len(f.parameters)


def test_two_inputs_and_what_it_is_saved_as():
    block = ActivatedLinear(6, 3, activations.swiglu, bias=False)
    packed = torch.randn(2, 12)
    torch.testing.assert_close(block(packed), block(*packed.chunk(2, -1)))
    assert list(block.state_dict()) == ["weight"]
