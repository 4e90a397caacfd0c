"""Calls by the launcher in C++ are those by Python, to the bit; and what it leaves to Python."""

import subprocess
import sys
import threading

import pytest
import torch

from cases import DTYPES, SHARE, fraction, name, rational
from zeta.activations import GATES, exo, laplace, learnable_selu_variation, selu, softcap, swiglu
from zeta.kernels import compiler, cpu, dispatch, native, softmax
from zeta.ops import gated

pytestmark = pytest.mark.usefixtures("launched_by_native")


@pytest.fixture
def by_python(monkeypatch):
    """Calls a function while there is no launcher in C++."""

    def call(function):
        with monkeypatch.context() as patch:
            patch.setattr(native, "extension", None)
            patch.setattr(native, "count", lambda: None)
            return function()

    return call


def by_native(y):
    return y.grad_fn is not None and "CppNode" in y.grad_fn.name()


def assert_same(function, by_python):
    """One value and gradients, to the bit; the C++ one is a node of C++."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "launch", None)  # neither way
        patch.setattr(softmax._Softmax, "_launch", None)
        y, *gradients = function()
    expected, *others = by_python(function)
    assert by_native(y)
    assert not by_native(expected)
    assert y.stride() == expected.stride()
    assert torch.equal(y, expected)
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient.shape, gradient.dtype) == (other.shape, other.dtype)
        assert gradient.stride() == other.stride()
        assert torch.equal(gradient, other)


def differentiated(call, tensors, upstream=None):
    def run():
        y = call(*tensors)
        above = torch.ones_like(y) if upstream is None else upstream
        wanted = [t for t in tensors if t.requires_grad]
        return y, *torch.autograd.grad(y, wanted, above)

    return run


@pytest.mark.parametrize(
    ("f", "dtype"), [(f, d) for f in SHARE for d in (DTYPES if f in SHARE[:3] else [torch.float32])]
)
def test_a_formula_and_all_its_gradients(f, dtype, by_python):
    x = torch.randn(3, 341).to(dtype).requires_grad_()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = [torch.tensor(v, dtype=wide, requires_grad=True) for v in f.parameters.values()]
    assert_same(differentiated(f, [x, *parameters], torch.randn(3, 341).to(dtype)), by_python)
    assert_same(differentiated(f, [x]), by_python)


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)])
def test_wanted_gradients(wanted, by_python):
    tensors = [torch.randn(500), torch.tensor([0.7]), torch.tensor(0.4)]
    tensors = [t.requires_grad_(bool(want)) for t, want in zip(tensors, wanted, strict=True)]
    assert_same(differentiated(laplace, tensors), by_python)


def test_a_gradient_that_nobody_asks_for_is_not_formed():
    x, alpha = torch.randn(9, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    y = exo(x, alpha)
    only = torch.autograd.grad(y.sum(), alpha, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(y.sum(), [x, alpha])[1], only, rtol=0, atol=0)


@pytest.mark.parametrize("wanted", [(1, 1, 1), (0, 1, 0), (1, 0, 1)])
def test_vectors(wanted, by_python):
    tensors = [torch.randn(9, 500), *map(torch.tensor, rational.parameters.values())]
    tensors[2] = tensors[2].view(4, 1, 1)
    tensors = [t.requires_grad_(bool(want)) for t, want in zip(tensors, wanted, strict=True)]
    assert_same(differentiated(rational, tensors, torch.randn(9, 500)), by_python)
    assert_same(differentiated(rational, [tensors[0].detach().requires_grad_()]), by_python)


@pytest.mark.parametrize(
    ("f", "dim", "layout"),
    fraction(2, [*GATES.values()], [0, 1, 2], ["halves", "interleaved"]),
    ids=name,
)
def test_packed_gates(f, dim, layout, by_python):
    packed = torch.randn(4, 6, 14, requires_grad=True)
    upstream = torch.randn_like(gated(f, packed, dim, layout=layout))
    call = lambda p: gated(f, p, dim, layout=layout, gate_first=False)
    assert_same(differentiated(call, [packed], upstream), by_python)


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_a_softmax(dtype, dim, logs, by_python):
    x = torch.randn(4, 1, 21).to(dtype).requires_grad_()
    call = lambda x: (softcap.log_softmax if logs else softcap.softmax)(x, cap=2.0, dim=dim)
    assert_same(differentiated(call, [x], torch.randn_like(x)), by_python)
    upstream = torch.randn(21, 1, 4).to(dtype).transpose(0, 2)
    assert_same(differentiated(call, [x], upstream), by_python)
    with torch.no_grad():
        assert torch.equal(call(x), by_python(lambda: call(x)))


@pytest.mark.parametrize("wanted", [(1, 1), (0, 1), (1, 0)])
def test_a_softmax_whose_parameter_is_a_tensor(wanted, by_python):
    """Gradients by parameters are left to Python."""
    x, coefficients = torch.randn(4, 21), torch.tensor(rational.parameters["denominator"])
    x, coefficients = (
        t.requires_grad_(bool(want)) for t, want in zip((x, coefficients), wanted, strict=True)
    )
    run = differentiated(lambda x, c: rational.softmax(x, denominator=c), [x, coefficients])
    y, *found = run()
    expected, *others = by_python(run)
    assert by_native(y)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(found, others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name)
def test_what_a_softmax_keeps_may_come_back_lying_otherwise(dtype):
    x = torch.randn(6, 4).to(dtype).requires_grad_()
    turned = lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.dim() else t
    with torch.autograd.graph.saved_tensors_hooks(turned, lambda t: t):
        y = selu.softmax(x, dim=1)
    upstream = torch.randn_like(x)
    (expected,) = torch.autograd.grad(selu.softmax(x, dim=1), x, upstream)
    assert torch.equal(torch.autograd.grad(y, x, upstream)[0], expected)


def test_a_softmax_is_differentiated_in_every_way():
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = selu.softmax(x)
    assert by_native(y)
    assert torch.autograd.gradgradcheck(selu.softmax, x)
    seen = []
    y.register_hook(seen.append)
    y[:, 0].sum().backward(retain_graph=True)
    first = x.grad.clone()
    y[:, 0].sum().backward()
    assert torch.equal(x.grad, 2 * first)
    assert len(seen) == 2
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    basis = torch.eye(15, dtype=x.dtype).view(15, 3, 5)
    (found,) = torch.autograd.grad(selu.softmax(x), x, basis, is_grads_batched=True)
    expected = torch.func.jacrev(selu.softmax)(x.detach()).view(15, 3, 5)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.func.vmap(selu.softmax)(x), y)
    _, slope = torch.func.jvp(selu.softmax, (x.detach(),), (basis[0],))
    torch.testing.assert_close(slope.flatten(), found[:, 0, 0])


def test_another_number_takes_no_memory_in_a_softmax():
    x = torch.randn(6, requires_grad=True)
    y = softcap.softmax(x, cap=0.123456)
    before = softmax._call.cache_info().currsize
    expected = torch.autograd.grad(y[0], x)[0]
    for i in range(300):
        softcap.softmax(x, cap=0.2 + i)[0].backward()
    assert softmax._call.cache_info().currsize == before
    found = torch.autograd.grad(softcap.softmax(x, cap=0.123456)[0], x)[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("f", GATES.values(), ids=name)
def test_two_inputs_of_which_one_may_be_wanted(f, by_python):
    gate, value = torch.randn(7, 30, requires_grad=True), torch.randn(7, 30)
    assert_same(differentiated(f, [gate, value]), by_python)
    assert_same(differentiated(f, [gate.detach(), value.requires_grad_()]), by_python)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(()),
        torch.randn(1),
        torch.randn(6, 5).t(),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    ],
    ids=["scalar", "one", "transposed", "channels last"],
)
def test_shapes_and_strides(x, by_python):
    x = x.requires_grad_()
    for upstream in (None, torch.randn(x.shape), torch.tensor(0.3).expand(x.shape)):
        assert_same(differentiated(exo, [x], upstream), by_python)


def test_rows_that_lie_apart(by_python):
    gate, value = torch.randn(6, 10).chunk(2, 1)
    assert_same(differentiated(exo, [gate.requires_grad_()], torch.randn(6, 5)), by_python)
    tensors = [gate, value.requires_grad_()]
    assert_same(differentiated(swiglu, tensors, torch.randn(6, 5)), by_python)
    assert_same(differentiated(swiglu, [gate.detach(), value]), by_python)


@pytest.mark.parametrize("launcher", ["C++", "Python"])
def test_what_was_saved_may_come_back_lying_otherwise(launcher, by_python):
    """As from `save_on_cpu`, which answers contiguous tensors."""

    def slopes(keep):
        packed, rows = torch.arange(48.0).view(2, 3, 8), torch.arange(60.0).view(6, 10) / 10
        packed = (packed.transpose(0, 1).contiguous().transpose(0, 1) / 10).requires_grad_()
        gate, value = (half.requires_grad_() for half in rows.chunk(2, 1))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            y = gated(swiglu, packed).sum() + swiglu(gate, value).sum() + exo(gate).sum()
        return torch.autograd.grad(y, [packed, gate, value])

    call = by_python if launcher == "Python" else lambda function: function()
    found = call(lambda: slopes(lambda t: t.clone(memory_format=torch.contiguous_format)))
    for gradient, expected in zip(found, call(lambda: slopes(lambda t: t)), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_what_is_left_to_python():
    x = torch.randn(4, 6, requires_grad=True)
    alphas = {
        "another dtype": torch.tensor(0.7, dtype=torch.float64),
        "per channel": torch.full((6,), 0.7),
    }
    for alpha in alphas.values():
        assert not by_native(exo(x, alpha))
        torch.testing.assert_close(exo(x, alpha), exo(x, 0.7))
    assert exo(torch.empty(0, 3, requires_grad=True)).shape == (0, 3)
    assert not by_native(swiglu(x[:, ::2], x[:, 1::2]))  # no row is dense


def test_double_backward_and_hooks():
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = exo(x, alpha)
    assert by_native(y)
    assert torch.autograd.gradgradcheck(exo, (x, alpha))
    seen = []
    y.register_hook(seen.append)
    y.sum().backward(retain_graph=True)
    first = x.grad.clone()
    y.sum().backward()
    assert torch.equal(x.grad, 2 * first)
    assert len(seen) == 2
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_an_odd_upstream_gradient_is_taken_at_its_value():
    x = torch.randn(6, requires_grad=True)
    negative = torch.randn(6, dtype=torch.complex64).conj().imag
    (found,) = torch.autograd.grad(exo(x), x, negative)
    (expected,) = torch.autograd.grad(exo(x), x, negative.clone())
    torch.testing.assert_close(found, expected)
    slopes = torch.func.vmap(lambda u: torch.autograd.grad(exo(x), x, u)[0])(torch.eye(6))
    (expected,) = torch.autograd.grad(exo(x).sum(), x)
    torch.testing.assert_close(slopes.diagonal(), expected)
    (found,) = torch.autograd.grad(exo(x), x, torch.eye(6), is_grads_batched=True)
    torch.testing.assert_close(found, slopes)


def test_an_error_in_backward_is_the_errors_own(monkeypatch):
    x = torch.randn(6, requires_grad=True)
    y = exo(x)

    def fails(*_):
        raise KeyError("said in backward")

    monkeypatch.setattr(dispatch._Elementwise, "gradients", fails)
    with pytest.raises(KeyError, match="said in backward"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_backward_in_another_thread():
    x = torch.randn(6, requires_grad=True)
    y = exo(x, 0.31)
    thread = threading.Thread(target=lambda: y.sum().backward())
    thread.start()
    thread.join()
    assert x.grad.isfinite().all()


def test_another_number_takes_no_memory():
    x = torch.randn(6, requires_grad=True)
    y = exo(x, 0.123456)
    before = dispatch._call.cache_info().currsize
    expected = torch.autograd.grad(y.sum(), x)[0]
    for i in range(300):
        exo(x, 0.2 + i).sum().backward()
    assert dispatch._call.cache_info().currsize == before
    assert torch.equal(torch.autograd.grad(exo(x, 0.123456).sum(), x)[0], expected)


def test_a_number_first_met_in_inference_mode_serves_training():
    with torch.inference_mode():
        exo(torch.randn(3), 0.654321)
    x = torch.randn(3, requires_grad=True)
    exo(x, 0.654321).sum().backward()
    assert x.grad.isfinite().all()


# PyTorch looks at what a softmax has saved, its own result: of F.softmax it says the same.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_autograd(by_python):
    x = torch.randn(300, requires_grad=True)
    alpha = torch.tensor(0.7, requires_grad=True)

    def slopes():
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            (exo(x, alpha).sum() + selu.softmax(x).square().sum()).backward()
        found = x.grad, alpha.grad
        x.grad = alpha.grad = None
        return found

    for found, expected in zip(slopes(), by_python(slopes), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_forked_process_computes():
    code = """
import os, torch
from zeta.activations import exo
from zeta.kernels import native
native.build()
x = torch.randn(1 << 20, requires_grad=True)
one = torch.ones(()).expand_as(x)  # PyTorch's own loops would wait for threads that are gone
exo(x).backward(one)
child = os.fork()
if not child:
    y = exo(x)
    torch.autograd.grad(y, x, one)
    os._exit(0 if "CppNode" in y.grad_fn.name() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# ---- How it comes about -------------------------------------------------------------------------


@pytest.fixture
def not_there(monkeypatch, tmp_path):
    """As in a process that has made no call, with an empty cache; the library's content."""
    content = compiler.cached(native._key()).read_bytes()[: -compiler._DIGEST_BYTES]
    monkeypatch.setenv("ZETA_CACHE_DIR", str(tmp_path))
    for attribute, value in {"extension": None, "problem": "", "_calls": 0}.items():
        monkeypatch.setattr(native, attribute, value)
    return content


def test_many_calls_have_it_compiled_aside(not_there, monkeypatch):
    compiled = threading.Event()
    monkeypatch.setattr(compiler, "compiled", lambda *_: compiled.wait(60) and not_there)
    x = torch.randn(3, requires_grad=True)
    for _ in range(native.WORTHWHILE):
        assert not by_native(exo(x))
    (thread,) = [t for t in threading.enumerate() if t.name == "zeta: compiling"]
    assert not by_native(exo(x))  # which goes on meanwhile
    compiled.set()
    thread.join(60)
    assert by_native(exo(x))


def test_the_first_call_takes_it_from_the_cache(not_there, monkeypatch):
    monkeypatch.setattr(compiler, "compiled", lambda *_: not_there)
    native.build()
    monkeypatch.setattr(native, "extension", None)
    x = torch.randn(3, requires_grad=True)
    exo(x)
    assert by_native(exo(x))


def test_a_damaged_file_is_not_loaded(not_there, monkeypatch):
    path = compiler.cached(native._key())
    path.write_bytes(not_there[:-5] + b"rotten")
    monkeypatch.setattr(compiler, "compiled", lambda *_: not_there)
    exo(torch.randn(3))
    assert native.extension is None
    native.build()
    assert native.extension


def test_without_headers_python_goes_on_and_the_reason_is_known(not_there, monkeypatch):
    monkeypatch.setattr(native, "_flags", lambda: ("-fsyntax-only", "-std=c++20"))
    native.build()
    assert "failed" in native.problem
    x = torch.randn(3, requires_grad=True)
    y = learnable_selu_variation(x)
    assert "Fused" in y.grad_fn.name()
    assert not by_native(y)
    assert not by_native(gated(swiglu, torch.randn(4, requires_grad=True)))
