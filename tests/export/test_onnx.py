"""ONNX: what `torch.onnx.export` writes gives PyTorch's numbers in ONNX Runtime.

Compared is each number by itself with PyTorch's own operations, relative to its own size, so that a
lower tail of 1e-30 must have its digits too. A runtime may take subnormal numbers for 0.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from cases import FORMULAS, LIMITS, SHARE
from networks import (
    CHANNELS,
    EveryActivation,
    EveryGate,
    EveryHead,
    GatedBlock,
    gate_points,
    points,
)
from zeta.kernels import compiler

pytest.importorskip("onnxscript", reason="pip install 'zeta-nn[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

OPSET = 20
RELATIVE = 1e-6
SMALLEST_NORMAL = torch.finfo(torch.float32).smallest_normal


def session(module, x, names):
    """The module in ONNX Runtime: a function of an array of any batch."""
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        module.eval(), (x,), dynamo=True, dynamic_shapes=dynamic, output_names=names, verbose=False
    )
    assert program.model.opset_imports[""] == OPSET
    runtime = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (taken,) = runtime.get_inputs()
    assert isinstance(taken.shape[0], str), "the batch must be dynamic"
    return lambda x: runtime.run(None, {taken.name: x.numpy()})


@pytest.fixture(autouse=True)
def _plain_operations(monkeypatch):
    """Fused kernels round otherwise; the tests of kernels hold them to mpmath."""
    monkeypatch.setattr(compiler, "disabled", lambda: True)


@pytest.fixture(
    scope="module",
    params=[SHARE, pytest.param(FORMULAS, marks=pytest.mark.slow)],
    ids=["share", "all"],
)
def every_activation(request):
    module = EveryActivation(request.param)
    return module, session(module, points(2), module.names)


def check(names, got, want, moved=()):
    """Every number within `RELATIVE` of PyTorch's, or of what an input's relative error `moved`."""
    every = itertools.zip_longest(names, got, want, moved, fillvalue=torch.tensor(0.0))
    errors = {name: relative_error(*of_one) for name, *of_one in every}
    assert not {name: error for name, error in errors.items() if not error <= RELATIVE}


def relative_error(got: np.ndarray, want: torch.Tensor, moved: torch.Tensor) -> float:
    """The largest, beyond what a subnormal number that is taken for 0 explains."""
    expected = want.detach().double().numpy()
    size = np.maximum(np.abs(expected), moved.nan_to_num(posinf=0).numpy())
    assert got.shape == expected.shape
    with np.errstate(invalid="ignore"):  # inf where inf is wanted
        error = np.where(got == expected, 0, np.abs(got - expected))
    lost = np.maximum(error - SMALLEST_NORMAL, 0)
    return float((lost / np.maximum(size, SMALLEST_NORMAL)).max(initial=0))


@pytest.mark.parametrize("batch", [1, 5])
def test_every_activation_gives_pytorchs_numbers(every_activation, batch):
    module, run = every_activation
    x = points(batch)
    given = x.clone().requires_grad_()
    want = module(given)
    # Where a function crosses zero its value has the error of x times the slope.
    slopes = [torch.autograd.grad(y.sum(), given, retain_graph=True)[0] for y in want]
    check(module.names, run(x), want, [(x * slope).abs() for slope in slopes])


@pytest.mark.parametrize("make", [EveryGate, GatedBlock])
def test_gates_give_pytorchs_numbers(make):
    module = make()
    of = gate_points if make is EveryGate else lambda n: torch.randn(n, CHANNELS)
    names = module.names if make is EveryGate else ["y"]
    run = session(module, of(2), names)
    for batch in (1, 5):
        x = of(batch)
        y = module(x)
        if make is EveryGate:
            check(names, run(x), y)
        else:  # of sums, which are added in another order
            np.testing.assert_allclose(run(x)[0], y.detach(), rtol=1e-5, atol=1e-6)
    assert run(of(0))[0].shape == (0, *run(of(1))[0].shape[1:])


def test_an_empty_batch(every_activation):
    _, run = every_activation
    assert {y.shape for y in run(points(0))} == {points(0).shape}


def test_limits_and_nan(every_activation):
    module, run = every_activation
    x = torch.zeros_like(points(1))
    x[0, :, :3] = torch.tensor([-math.inf, math.inf, math.nan])
    answers = dict(zip(module.names, run(x), strict=True))
    for f in FORMULAS:
        if f"y_{f.name}" in answers:
            *ends, at_nan = answers[f"y_{f.name}"][0, 0, :3]
            assert math.isnan(at_nan), f
            for end, limit in zip(ends, LIMITS[f.name], strict=True):
                assert limit is None or end == pytest.approx(limit, rel=RELATIVE), f


@pytest.mark.parametrize("shape", [(1, CHANNELS), (7, CHANNELS)])
def test_heads_give_pytorchs_numbers(shape):
    module = EveryHead()
    run = session(module, torch.randn(3, CHANNELS), module.names)
    x = torch.randn(shape)
    check(module.names, run(x), module(x))


def test_the_comparison_can_fail():
    """The exporter's own erfc, 1 - erf, has no digit left in laplace's lower tail."""

    class Plain(nn.Module):
        def forward(self, x):
            return 0.5 * torch.erfc(-x)

    x = torch.tensor([[-4.5]])
    (got,) = session(Plain(), x, ["y"])(x)
    assert relative_error(got, Plain()(x), torch.tensor(0.0)) > 0.1
