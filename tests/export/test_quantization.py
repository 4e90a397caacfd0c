"""Quantised networks: the matrices are integers, the activations between them what they were."""

import copy

import pytest
import torch
from torch import nn

from networks import Classifier

quantization = pytest.importorskip("torchao.quantization", reason="pip install torchao")


def linears(model):
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_int8_weights():
    """Exactly the network of the weights that the integers stand for."""
    quantized = Classifier().eval()
    quantization.quantize_(quantized, quantization.Int8WeightOnlyConfig(version=2))
    expected = copy.deepcopy(quantized)
    for layer in linears(expected):
        assert type(layer.weight) is not nn.Parameter
        layer.weight = nn.Parameter(layer.weight.dequantize(), requires_grad=False)
    x = torch.randn(9, 16)
    torch.testing.assert_close(quantized(x), expected(x), rtol=1e-5, atol=1e-5)


def test_int8_weights_and_inputs():
    model = Classifier().eval()
    quantized = copy.deepcopy(model)
    config = quantization.Int8DynamicActivationInt8WeightConfig(version=2)
    quantization.quantize_(quantized, config)
    x = torch.randn(256, 16)
    assert 0 < distance(quantized(x), model(x)) < 0.05


def test_pt2e():
    """Exported, observed, converted: linears on integers, as torchao's quantizer for x86 has it."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    model, x = Classifier().eval(), torch.randn(256, 16)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program.module(), quantizer)
    prepared(x)
    quantized = convert_pt2e(prepared)
    names = [str(node.target) for node in quantized.graph.nodes]
    assert sum("dequantize_per_channel" in name for name in names) >= len(linears(model))
    fresh = torch.randn(64, 16)
    assert 0 < distance(quantized(fresh), model(fresh)) < 0.05


def distance(ours, theirs):
    """Relative, in the Euclidean norm."""
    return ((ours - theirs).norm() / theirs.norm()).item()
