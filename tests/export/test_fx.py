"""Symbolic tracing by torch.fx: an activation is one node, which is saved and loaded."""

import pickle

import pytest
import torch
from torch import fx, nn

from cases import SHARE, name
from zeta.activations import exo
from zeta.nn import LaplaceActivation, MixtureOfSoftmaxes, SELUSoftmax
from zeta.ops import selu_softmax


@pytest.mark.parametrize("f", SHARE, ids=name)
@pytest.mark.parametrize("learnable", [False, True])
def test_traces(f, learnable):
    model = nn.Sequential(nn.Linear(4, 4), f.module(learnable=learnable))
    graph_module = fx.symbolic_trace(model)
    assert f in {node.target for node in graph_module.graph.nodes}
    x = torch.randn(3, 4)
    for traced in (graph_module, pickle.loads(pickle.dumps(graph_module))):
        torch.testing.assert_close(traced(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("make", [exo.module, LaplaceActivation])
def test_values_per_channel(make, learnable):
    model = nn.Sequential(nn.Linear(4, 4), make(learnable=learnable, num_parameters=4))
    with torch.no_grad():
        for value in model[1].state_dict().values():
            value.mul_(torch.linspace(0.5, 2, 4))
    graph_module = fx.symbolic_trace(model)
    for x in (torch.randn(3, 4), torch.randn(2, 4, 4)):  # shapes are known when it runs
        for traced in (graph_module, pickle.loads(pickle.dumps(graph_module))):
            torch.testing.assert_close(traced(x), model(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="expected 4 channels in dimension 1, got 5"):
        graph_module(torch.randn(3, 5, 4))
    graph_module(torch.randn(3, 4)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_selu_softmax():
    graph_module = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), SELUSoftmax()))
    assert selu_softmax in {node.target for node in graph_module.graph.nodes}
    y = pickle.loads(pickle.dumps(graph_module))(torch.randn(3, 4))
    torch.testing.assert_close(y.sum(-1), torch.ones(3))


def test_a_mixture_is_a_leaf():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), MixtureOfSoftmaxes(2, 4, 5)

        def forward(self, x):
            p, weights = self.head(self.body(x), need_weights=True)
            return p, weights, self.head(x)

    model, x = Model(), torch.randn(3, 4)
    traced = fx.symbolic_trace(model)
    leaves = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert leaves == ["body", "head", "head"]
    torch.testing.assert_close(traced(x), model(x), rtol=0, atol=0)
