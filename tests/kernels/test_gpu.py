"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter on CPU tensors."""

import math
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import mpmath
import pytest
import torch

import zeta.math as zm
from cases import (
    FORMULAS,
    SHARE,
    SHARE_OR_ALL,
    grid,
    name,
    rational,
    truths,
    ulps,
)
from codegen.random_formulas import random_formula
from codegen.test_random_formulas import plain, points, wrong_points
from zeta import activations, formula
from zeta._backends.torch_plain import ARRAYS, evaluate_plain
from zeta.kernels import dispatch, gpu
from zeta.kernels.build import are_one
from zeta.kernels.operands import Packing, find_layout, in_shape
from zeta.ops import gated

pytest.importorskip("triton", reason="Triton has no build for this platform")
# The interpreter computes with NumPy, which warns of what are values here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LSELU = activations.learnable_selu_variation
OAI = activations.swiglu_oai
GRID = grid(torch.float32)
# Of vectors there is none in the share.
SHARE_AND_VECTORS = [
    f if f in SHARE or f.vectors else pytest.param(f, marks=pytest.mark.slow) for f in FORMULAS
]


def run(f, x, parameters=None, layout=None):
    values = list(f.parameters.values()) if parameters is None else parameters
    y = torch.empty_like(x)
    kernel = gpu.kernel(f, x.dtype, values, layout, ())
    read = [v for v, one in zip(values, are_one(values), strict=True) if not one]
    gpu.launch(kernel, [x], [y], None, 0, [*map(on_device, scalars(read))], layout)
    return y


def on_device(value):
    return torch.as_tensor(value, device=DEVICE)


def scalars(parameters):
    """As kernels read them: those of a vector, a tuple, one by one."""
    return [n for value in parameters for n in (value if type(value) is tuple else (value,))]


def run_backward(f, x, parameters, upstream, layout=None):
    """The gradients by x and by every parameter, one for each number of a vector."""
    kernel = gpu.kernel(f, x.dtype, parameters, layout, ("x", *f.scalars))
    dx, read = torch.empty_like(x), scalars(parameters)
    sums = gpu.launch(kernel, [x], [dx], upstream, len(read), read, layout)
    pairs = zip(sums if read else (), read, strict=True)
    return [dx, *(in_shape(total[None], p, layout) for total, p in pairs)]


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_values_are_within_four_ulp(f):
    x = grid(torch.float32)
    values = run(f, x.to(DEVICE)).cpu()
    for at, got, truth in zip(x.tolist(), values.tolist(), truths(f, x.dtype), strict=True):
        if abs(truth.value) <= torch.finfo(x.dtype).max:
            off = ulps(mpmath.mpf(got) - truth.value, truth.value, x.dtype)
            assert off <= 4 * max(1.0, truth.condition), at


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("f", SHARE_OR_ALL, ids=name)
def test_half_types(f, dtype):
    """To one unit: the interpreter truncates bfloat16 where a GPU rounds."""
    x = torch.linspace(-6, 6, 1000, device=DEVICE).to(dtype)
    exact = evaluate_plain(f, x.double(), dict(f.parameters))
    bound = torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).smallest_normal
    assert ((run(f, x).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("f", SHARE_OR_ALL, ids=name)
def test_special_values_are_the_plain_formulas(f):
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([math.inf, math.nan, largest, -largest, -100.0, 1e-40, 0.0], device=DEVICE)
    torch.testing.assert_close(
        run(f, x), evaluate_plain(f, x, dict(f.parameters)), equal_nan=True, rtol=1e-6, atol=1e-42
    )


def test_powers():
    """Special numbers as PyTorch has them; the others to 2 units, and a tenth for each of p."""
    special = [0.0, 1.0, 0.5, 2.0, 3.0, 3.5, 9.0, math.inf, 1e-42, 3e38, 2.0**23 + 1, 2.0**24]
    special = torch.tensor([*special, *(-s for s in special), math.nan])
    p = torch.cat([special, torch.tensor([1.3, -2.3, 30.5, -0.01])])[:, None].to(DEVICE)
    x = torch.cat([special, GRID]).repeat(len(p), 1).to(DEVICE)
    got = run(formula(p=1.0)(lambda x, p: x**p), x, [p], find_layout(x, [p])).double()
    expected = torch.pow(x.double(), p.double()).float().double()
    bound = (2 + p.abs().clamp(max=1e3).nan_to_num() / 10) * torch.finfo(torch.float32).eps
    near = (got - expected).abs() <= bound * expected.abs() + 1.5e-45
    right = (got == expected) | near | (got.isnan() & expected.isnan())
    assert right.all(), (x[~right], p.expand_as(x)[~right], got[~right])


@pytest.mark.parametrize("f", SHARE_AND_VECTORS, ids=name)
def test_gradients(f):
    """Knots are among the points, and parameters are at them."""
    # Numbers of float32, so that both take the same side of a knot.
    x = torch.linspace(-6, 6, 3001, dtype=torch.float64, device=DEVICE).float()
    upstream = torch.randn_like(x)
    parameters = f.grouped({name: on_device(v) for name, v in f.flat(f.parameters).items()})
    arguments = (f, x, [*parameters.values()], upstream)
    dx, *sums = got = run_backward(*arguments)
    (of_x, bound), *of_parameters = terms(*arguments)
    assert ((dx - of_x).abs() <= bound).all()
    for total, (each, bounds), scalar in zip(sums, of_parameters, f.scalars, strict=True):
        assert (total - each.sum()).abs() <= bounds.sum(), scalar
    again = run_backward(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


def terms(f, x, parameters, upstream):
    """Of each gradient, point by point: the truth, and how far rounding may take it."""
    x = x.double().requires_grad_()
    own = [p.double().expand_as(x).clone().requires_grad_() for p in scalars(parameters)]
    y = evaluate_plain(f, x, f.grouped(dict(zip(f.scalars, own, strict=True))))
    # By a parameter that is a knot alone they are 0.
    options = {"create_graph": True, "materialize_grads": True}
    for slope in torch.autograd.grad(y.sum(), [x, *own], **options):
        # As for the CPU's, by the size of the slope, and by what x's rounding makes of it.
        (drift,) = torch.autograd.grad((x * slope).sum(), x, retain_graph=True)
        size = torch.stack([torch.ones_like(x), slope.abs(), drift.abs()]).amax(0)
        yield upstream * slope.detach(), 16 * torch.finfo(torch.float32).eps * upstream.abs() * size


@pytest.mark.parametrize("seed", [40, 160, 320, 360, 440, 560, 720])
def test_random_formulas(seed):
    """Judged as the CPU's."""
    f, x = random_formula(seed), points()
    numbers = [*map(on_device, f.parameters.values())]
    got = plain(f, x, torch.float32, nullcontext())
    x = x.float().to(DEVICE)
    got[0] = run(f, x)
    slope, dx = gpu.kernel(f, x.dtype, numbers, None, ("x",)), torch.empty_like(x)
    gpu.launch(slope, [x], [dx], torch.ones_like(x), 0, numbers, None)
    got[1] = dx
    assert wrong_points(f, got, torch.float32)[0] == []


def test_no_nan_from_the_largest_numbers():
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([-largest, -1.0, 1.0, largest], device=DEVICE)
    for f in SHARE:
        parameters = [torch.tensor(v, device=DEVICE) for v in f.parameters.values()]
        gradients = run_backward(f, x, parameters, torch.ones_like(x))
        assert not any(g.isnan().any() for g in gradients), f


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((4, 3, 50), 1), ((6, 5), 1), ((3, 7), 0), ((2, 3, 4, 5), 3), ((1100, 3), 1), ((3, 2100), 0)],
)
def test_per_channel_parameters(shape, dim):
    x = torch.randn(shape, device=DEVICE)
    own = [1] * len(shape)
    own[dim] = shape[dim]
    parameters = [torch.rand(own, device=DEVICE) + 0.5 for _ in LSELU.parameters]
    layout = find_layout(x, parameters)
    leaves = [t.double().requires_grad_() for t in (x, *parameters)]
    expected = evaluate_plain(LSELU, leaves[0], LSELU.bind(*leaves[1:]))
    got = run(LSELU, x, parameters, layout)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(x)
    ours = run_backward(LSELU, x, parameters, upstream, layout)
    theirs = torch.autograd.grad(expected, leaves, upstream.double())
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_an_empty_tensor():
    assert run(LSELU, torch.empty(0, 3, device=DEVICE)).shape == (0, 3)


def test_float64_takes_the_plain_formula():
    assert gpu.kernel(LSELU, torch.float64, [], None, ()) is None


@pytest.fixture
def through_kernels(monkeypatch):
    """What dispatch does for CUDA tensors, done for the interpreter's CPU tensors."""
    if DEVICE == "cpu":
        monkeypatch.setattr(dispatch, "cpu", gpu)
    dispatch._call.cache_clear()
    yield
    dispatch._call.cache_clear()


def check_by_kernels(y, expected, inputs):
    """The value and every gradient are the plain operations', and kernels computed them."""
    torch.testing.assert_close(y, expected)
    assert "Fused" in y.grad_fn.name()
    upstream = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def learned(f, shape=()):
    """The formula's parameters as leaves, each near its default and different in every channel."""
    near = torch.linspace(0.9, 1.1, math.prod(shape), device=DEVICE).reshape(shape)
    values = [torch.tensor(value, device=DEVICE) for value in f.parameters.values()]
    return [(v.view((*v.shape, *[1] * len(shape))) * near).requires_grad_() for v in values]


@pytest.mark.usefixtures("through_kernels")
@pytest.mark.parametrize(
    ("f", "own"),
    [(LSELU, ()), (rational, ()), (rational, (7,)), (rational, (33, 1))],
    ids=["scalars", "vectors", "vectors per column", "vectors per channel"],
)
def test_a_formula_is_differentiable_through_the_kernels(f, own):
    x = torch.randn(33, 7, device=DEVICE, requires_grad=True)
    parameters = learned(f, own)
    expected = evaluate_plain(f, x, f.bind(*parameters))
    check_by_kernels(f(x, *parameters), expected, [x, *parameters])


@pytest.mark.usefixtures("through_kernels")
@pytest.mark.parametrize(
    ("f", "own"),
    [(activations.swiglu, ()), (OAI, ()), (OAI, (3, 1))],
    ids=["swiglu", "swiglu_oai", "per channel"],
)
def test_a_gate_of_two_tensors(f, own):
    inputs = [t.requires_grad_() for t in torch.randn(2, 5, 3, 70, device=DEVICE).mul(6)]
    parameters = learned(f, own)
    expected = ARRAYS.evaluate(f, inputs, f.bind(*parameters))
    check_by_kernels(f(*inputs, *parameters), expected, [*inputs, *parameters])


@formula(bound=2.0)
def blend(gate, value, shift, bound):
    return zm.minimum(zm.clip(gate, -1, 1) * value, bound) + zm.tanh(shift)


@pytest.mark.usefixtures("through_kernels")
@pytest.mark.parametrize("own", [(), (3, 1), (70,)], ids=str)
def test_three_tensors(own):
    """One of them not contiguous."""
    inputs = [*torch.randn(2, 5, 3, 70, device=DEVICE), torch.randn(5, 3, 140, device=DEVICE)]
    inputs = [t.requires_grad_() for t in (*inputs[:2], inputs[2][..., ::2])]
    parameters = learned(blend, own)
    expected = ARRAYS.evaluate(blend, inputs, blend.bind(*parameters))
    check_by_kernels(blend(*inputs, *parameters), expected, [*inputs, *parameters])


@pytest.mark.usefixtures("through_kernels")
@pytest.mark.parametrize("f", [activations.swiglu, OAI], ids=name)
def test_a_gate_of_two_halves_of_a_tensor(f):
    packed = torch.randn(5, 3, 140, device=DEVICE).mul(6).requires_grad_()
    inputs, parameters = packed.chunk(2, -1), learned(f)
    expected = ARRAYS.evaluate(f, inputs, f.bind(*parameters))
    check_by_kernels(f(*inputs, *parameters), expected, [packed, *parameters])


@pytest.mark.usefixtures("through_kernels")
@pytest.mark.parametrize("layout", ["halves", "interleaved"])
@pytest.mark.parametrize(
    ("f", "dim", "own"),
    [(activations.swiglu, -1, ()), (OAI, 1, ()), (OAI, -1, (70,)), (OAI, 1, (6, 1))],
    ids=["inner", "outer", "inner, per channel", "outer, per channel"],
)
def test_a_gate_of_one_tensor_that_holds_both(f, dim, own, layout):
    shape = [5, 6, 70]
    shape[dim] *= 2
    x = torch.randn(shape, device=DEVICE).mul(6).requires_grad_()
    parameters = learned(f, own)
    by_name = dict(zip(f.parameters, parameters, strict=True))
    y = gated(f, x, dim, layout=layout, gate_first=False, **by_name)
    value, gate = Packing(dim % 3, layout == "interleaved", 0).views(x)
    expected = ARRAYS.evaluate(f, (gate, value), by_name)
    check_by_kernels(y, expected, [x, *parameters])


@pytest.mark.usefixtures("through_kernels")
@pytest.mark.parametrize("layout", ["halves", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gate_of_half_precision(dtype, layout):
    """To one unit, as above."""
    x = torch.randn(40, 70, device=DEVICE).mul(3).to(dtype).requires_grad_()
    y = gated(activations.swiglu, x, layout=layout)
    assert "Fused" in y.grad_fn.name()
    exact = x.detach().double().requires_grad_()
    expected = gated(activations.swiglu, exact, layout=layout)
    (slope,), (true_slope,) = (
        torch.autograd.grad(t.sum(), u) for t, u in ((y, x), (expected, exact))
    )
    for got, truth in ((y, expected), (slope, true_slope)):
        bound = torch.finfo(dtype).eps * truth.abs() + torch.finfo(dtype).eps / 64
        assert ((got.double() - truth).abs() <= bound).all()


@pytest.mark.parametrize("wanted", [(), ("x",)], ids=["value", "slope"])
def test_a_formula_without_a_kernel_says_so(wanted):
    @formula
    def decided(x):
        return x if x > 0 else 0 * x

    with pytest.warns(RuntimeWarning, match="decided runs as plain operations: a kernel decides"):
        assert gpu.kernel(decided, torch.float32, [], None, wanted) is None
    gpu.kernel(decided, torch.float16, [], None, wanted)


@pytest.mark.parametrize("more", [[], pytest.param(["everything"], marks=pytest.mark.slow)])
def test_every_primitive_and_formula_compiles_for_a_gpu(more, clean_env, tmp_path):
    """To a program for an H100, without one: the interpreter runs what the compiler refuses."""
    environment = clean_env | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, Path(__file__).with_name("check_triton.py"), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.rpartition(": ") for line in done.stdout.splitlines()]
    assert len(found) > 4 * len(SHARE)
    assert not [f"{kernel}: {error}" for kernel, _, error in found if error]
