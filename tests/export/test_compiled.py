"""`torch.compile`, `torch.export` and AOTInductor: whole graphs, any batch, the same numbers."""

import pytest
import torch

from cases import FORMULAS, name
from networks import CHANNELS, Classifier, EveryActivation, EveryHead, points
from zeta.kernels import compiler

ANY_BATCH = ({0: torch.export.Dim.DYNAMIC},)
# Of sums whose terms a compiler orders otherwise, and of its own exp and tanh.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("make", [EveryActivation, EveryHead, Classifier])
def test_exported_programs_take_any_batch(make, tmp_path):
    module = make().eval()
    of = {EveryActivation: points, EveryHead: lambda n: torch.randn(n, CHANNELS),
          Classifier: lambda n: torch.randn(n, 16)}[make]  # fmt: skip
    program = torch.export.export(module, (of(3),), dynamic_shapes=ANY_BATCH)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for batch in (1, 7):
        x = of(batch)
        torch.testing.assert_close(loaded(x), module(x), **TOLERANCE)


@pytest.mark.parametrize("f", FORMULAS, ids=name)
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


def test_heads_have_no_graph_break():
    torch._dynamo.reset()
    module = EveryHead()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 5):
        x = torch.randn(batch, CHANNELS)
        torch.testing.assert_close(compiled(x), module(x), **TOLERANCE)


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
