"""Symbolic tracing by torch.fx: an activation is one node, which is saved and loaded."""

import pickle

import pytest
import torch
from torch import fx, nn

from zeta.activations import CATALOGUE


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("learnable", [False, True])
def test_traces(name, learnable):
    model = nn.Sequential(nn.Linear(4, 4), CATALOGUE[name].module(learnable=learnable))
    graph_module = fx.symbolic_trace(model)
    assert CATALOGUE[name] in {node.target for node in graph_module.graph.nodes}
    x = torch.randn(3, 4)
    for traced in (graph_module, pickle.loads(pickle.dumps(graph_module))):
        torch.testing.assert_close(traced(x), model(x), rtol=0, atol=0)
