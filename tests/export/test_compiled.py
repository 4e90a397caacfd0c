"""`torch.compile`, `torch.export` and AOTInductor: whole graphs, any batch, the same numbers."""

import pytest
import scipy.stats
import torch
from torch import nn

from cases import SHARE, name
from networks import (
    CHANNELS,
    Classifier,
    EveryActivation,
    EveryGate,
    EveryHead,
    GatedBlock,
    gate_points,
    points,
)
from zeta.kernels import compiler
from zeta.nn import MixtureOfSoftmaxes

ANY_BATCH = ({0: torch.export.Dim.DYNAMIC},)
# Of sums whose terms a compiler orders otherwise, and of its own exp and tanh.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("make", [EveryActivation, EveryGate, GatedBlock, EveryHead, Classifier])
def test_exported_programs_take_any_batch(make, tmp_path):
    module = make().eval()
    of = {EveryActivation: points, EveryGate: gate_points}
    of[Classifier] = lambda n: torch.randn(n, 16)
    of = of.get(make, lambda n: torch.randn(n, CHANNELS))
    program = torch.export.export(module, (of(3),), dynamic_shapes=ANY_BATCH)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for batch in (1, 7):
        x = of(batch)
        torch.testing.assert_close(loaded(x), module(x), **TOLERANCE)


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_no_graph_break(f):
    """Forward and backward, of a learnable module and of the function."""
    torch._dynamo.reset()
    module = f.module(learnable=True, num_parameters=CHANNELS)
    x = torch.randn(3, CHANNELS, requires_grad=True)
    inputs = [x, *module.parameters()]
    call = lambda x: module(x) + f(x)
    results = []
    for function in (torch.compile(call, fullgraph=True, backend="aot_eager"), call):
        y = function(x)
        results.append((y, *torch.autograd.grad(y.sum(), inputs)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("make", [EveryGate, GatedBlock])
def test_gates_have_no_graph_break(make):
    torch._dynamo.reset()
    module = make()
    x = torch.randn(3, CHANNELS, requires_grad=True)
    results = []
    for run in (torch.compile(module, fullgraph=True, backend="aot_eager"), module):
        y = run(x)
        loss = sum(t.square().sum() for t in y) if make is EveryGate else y.square().sum()
        results.append((y, *torch.autograd.grad(loss, [x, *module.parameters()])))
    torch.testing.assert_close(*results, **TOLERANCE)


def test_heads_have_no_graph_break():
    torch._dynamo.reset()
    module = EveryHead()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 5):
        x = torch.randn(batch, CHANNELS)
        torch.testing.assert_close(compiled(x), module(x), **TOLERANCE)


class Sampler(nn.Module):
    """Draws from both decoders, without options and with all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.separate = MixtureOfSoftmaxes(3, CHANNELS, 5)
        self.shared = MixtureOfSoftmaxes(3, CHANNELS, 5, decoder="shared")

    def forward(self, x):
        options = {"temperature": 0.7, "top_k": 4, "top_p": 0.95}
        return self.separate.sample(x, 8), self.shared.sample(x, 8, **options)


def by_compiler(sampler, _):
    torch._dynamo.reset()
    return torch.compile(sampler, fullgraph=True, backend="aot_eager", dynamic=True)


def by_exporter(sampler, path):
    example = (torch.randn(3, CHANNELS),)
    program = torch.export.export(sampler, example, dynamic_shapes=ANY_BATCH)
    torch.export.save(program, path / "program.pt2")
    return torch.export.load(path / "program.pt2").module()


@pytest.mark.parametrize("make", [by_compiler, by_exporter])
def test_sampling_in_whole_graphs_draws_alike(make, tmp_path):
    """χ² of two samples at a level of one in a thousand; another batch is another draw."""
    sampler = Sampler().eval()
    whole = make(sampler, tmp_path)
    assert [drawn.shape for drawn in whole(torch.randn(1, CHANNELS))] == [(1, 8), (1, 8)]
    x = 3 * torch.randn(CHANNELS).expand(1000, CHANNELS)
    for ours, theirs in zip(whole(x), sampler(x), strict=True):
        counts = torch.stack([torch.bincount(d.flatten(), minlength=5) for d in (ours, theirs)])
        counts = counts[:, counts.any(0)].numpy()
        assert counts.shape[1] > 1
        assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


@pytest.mark.slow
def test_inductor_compiles_every_activation():
    torch._dynamo.reset()
    module = EveryActivation()
    x = torch.randn(2, CHANNELS, 50)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x), **TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(compiler.disabled(), reason="needs a C++ compiler: apt install g++")
def test_an_aot_inductor_package(tmp_path):
    module = Classifier().eval()
    program = torch.export.export(module, (torch.randn(3, 16),), dynamic_shapes=ANY_BATCH)
    path = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "classifier.pt2")
    )
    loaded = torch._inductor.aoti_load_package(path)
    for batch in (2, 9):
        x = torch.randn(batch, 16)
        torch.testing.assert_close(loaded(x), module(x), **TOLERANCE)
