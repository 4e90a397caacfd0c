"""Which compiled graphs call a formula's kernel, and that it is an operator as PyTorch expects."""

import types
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad

from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta._formula import Formula
from zeta.kernels import compiler, operator
from zeta.math import exp, sin, tanh


@formula(a=1.05, b=1.67, c=1.0, d=0.1, e=2.0)
def waves(x, a, b, c, d, e):
    """With as many parameters as the largest of the catalogue."""
    return a * (b * tanh(c * x) + d * sin(e * x))


SIZE = 2**14
ROWS, CHANNELS = SIZE // 64, 64


@formula(heights=(1.05, 0.1), widths=(1.67, 2.0))
def vector_waves(x, heights, widths):
    """As costly, of vectors."""
    return heights[0] * tanh(widths[0] * x) + heights[1] * sin(widths[1] * x)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A size that counts as large; nothing that was compiled for another one."""
    monkeypatch.setattr(operator, "_smallest", lambda: SIZE)
    torch._dynamo.reset()


def compiled(function, backend="aot_eager", **options):
    """The compiled function, and a counter that has its graphs."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, backend=counter, fullgraph=True, **options), counter


def calls(counter):
    """How many calls of the operator each graph has."""
    return [graph.code.count("torch.ops.zeta.activation(") for graph in counter.graphs]


def learned(shape=(), dtype=torch.float32, f=waves):
    return [
        torch.full(shape, value, dtype=dtype, requires_grad=True) for value in f.parameters.values()
    ]


def strided():
    return torch.randn(CHANNELS, 2 * ROWS)[:, ::2].T


def images():
    return torch.randn(ROWS // 16, CHANNELS, 4, 4).to(memory_format=torch.channels_last)


# Formula, input, parameters.
CASES = {
    "constant": lambda: (activations.exo, torch.randn(SIZE), []),
    "number": lambda: (activations.exo, torch.randn(SIZE), [0.7]),
    "integer": lambda: (activations.exo, torch.randn(SIZE), [2]),
    "scalars": lambda: (waves, torch.randn(ROWS, CHANNELS), learned()),
    "half": lambda: (waves, torch.randn(SIZE).bfloat16(), learned()),
    "double": lambda: (activations.mish, torch.randn(SIZE).double(), []),
    "number and tensor": lambda: (
        activations.laplace, torch.randn(SIZE), [0.7, torch.tensor(0.3, requires_grad=True)],
    ),
    "channels": lambda: (waves, torch.randn(ROWS, CHANNELS), learned((CHANNELS,))),
    "channels last": lambda: (waves, images(), learned((CHANNELS, 1, 1))),
    "strided": lambda: (activations.gelu, strided(), []),
    "parameters alone": lambda: (waves, torch.randn(SIZE), learned()),
    "vectors": lambda: (
        vector_waves,
        torch.randn(ROWS, CHANNELS),
        [torch.rand(2, requires_grad=True), torch.rand(2, CHANNELS, requires_grad=True)],
    ),
    "vector and numbers": lambda: (
        vector_waves, torch.randn(SIZE), [torch.rand(2, requires_grad=True), (1.5, 2.5)],
    ),
    "gate": lambda: (activations.geglu, torch.randn(SIZE), [torch.randn(SIZE, requires_grad=True)]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_inductor_calls_the_kernel_with_eager_numbers(case):
    """The same bits and strides, forward and backward."""
    f, x, parameters = CASES[case]()
    x.requires_grad_(case != "parameters alone")
    inputs = [t for t in (x, *parameters) if isinstance(t, torch.Tensor) and t.requires_grad]
    function, counter = compiled(lambda x, *parameters: f(x, *parameters), "inductor")
    results = []
    for call in (function, f):
        y = call(x, *parameters)
        results.append((y, *torch.autograd.grad(y, inputs, torch.ones_like(y))))
    assert calls(counter) == [1]
    torch.testing.assert_close(*results, rtol=0, atol=0, check_stride=True)


@pytest.mark.parametrize("case", ["number", "scalars", "half", "channels last", "strided"])
def test_the_operators_keep_the_rules_of_pytorch(case):
    f, x, parameters = CASES[case]()
    numbers = tuple(None if isinstance(p, torch.Tensor) else p for p in parameters)
    tensors = [p for p in parameters if isinstance(p, torch.Tensor)]
    name = operator._registered(f, numbers or tuple(f.parameters.values()), x.dtype)
    assert name
    x.requires_grad_()
    tensors = [x, *tensors]
    torch.library.opcheck(torch.ops.zeta.activation.default, (tensors, name), rtol=0, atol=0)
    wanted = [i != 2 for i in range(len(tensors))]
    arguments = (torch.randn_like(x), [t.detach() for t in tensors], name, wanted)
    torch.library.opcheck(torch.ops.zeta.activation_gradients.default, arguments)


def test_any_size_and_number_compile_once():
    """Also where a small tensor follows a large one; the empty one is PyTorch's own question."""
    f, counter = compiled(lambda x, *p: waves(x, *p), dynamic=True)
    parameters = learned((CHANNELS,))
    for rows in (ROWS, ROWS + 1, 2):
        x = torch.randn(rows, CHANNELS, requires_grad=True)
        results = []
        for call in (f, waves):
            y = call(x, *parameters)
            results.append((y, *torch.autograd.grad(y.sum(), [x, *parameters])))
        torch.testing.assert_close(*results, rtol=0, atol=0)
    assert calls(counter) == [1]


def test_a_number_that_varies_compiles_twice():
    """The first value is taken for a constant, as it is by plain operations."""
    f, counter = compiled(lambda x, alpha: activations.exo(x, alpha))
    x = torch.randn(SIZE)
    for alpha in (0.5, 0.6, 0.7, 1.0):
        torch.testing.assert_close(f(x, alpha), activations.exo(x, alpha))
    assert calls(counter) == [1, 1]


# ---- What stays as it was -----------------------------------------------------------------------


@formula
def remainder(x):
    return tanh(x) % 2  # nothing that a kernel has


@formula(power=2.0)
def decided(x, power):
    return exp(x) if power == 2 else x


def dual(x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(activations.exo(forward_ad.make_dual(x, x))).tangent


def across(x):
    """A parameter that varies along dimensions which are not adjacent."""
    return activations.exo(x.view(16, -1, 16), torch.linspace(0, 1, 256).view(16, 1, 16))


class Subclass(torch.Tensor):
    pass


PLAIN = {
    "small": lambda x: activations.exo(x[1:]),
    "arithmetic": activations.hardswish,
    "one function": activations.silu,
    "cheap functions": activations.learnable_selu_variation,
    "without a kernel": lambda x: remainder(x) + decided(x),
    "vmap": torch.func.vmap(activations.exo),
    "grad": torch.func.grad(lambda x: activations.exo(x).sum()),
    "jvp": lambda x: torch.func.jvp(activations.exo, (x,), (x,))[1],
    "forward mode": dual,
    "across": across,
    "meta": lambda x: activations.exo(x.to("meta")),
    "subclass": lambda x: activations.gelu(x.as_subclass(Subclass)),
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_graph_keeps_plain_operations(case):
    call = PLAIN[case]
    x = torch.randn(SIZE)
    function, counter = compiled(lambda x: call(x), "eager")
    y = function(x)
    assert calls(counter) == [0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eager ones say that they have no kernel
        torch.testing.assert_close(y, call(x))


@pytest.mark.parametrize("switch", ["disabled", "find_compiler"])
def test_without_kernels_a_graph_keeps_plain_operations(switch, monkeypatch):
    monkeypatch.setattr(compiler, switch, lambda: switch == "disabled" or None)
    function, counter = compiled(lambda x: activations.exo(x), "eager")
    function(torch.randn(SIZE))
    assert calls(counter) == [0]


class Exo(nn.Module):
    def forward(self, x):
        return activations.exo(x)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_has_plain_operations(strict):
    program = torch.export.export(Exo(), (torch.randn(SIZE),), strict=strict)
    assert "zeta" not in program.graph_module.code.replace("zeta_", "")
    assert "sigmoid" in program.graph_module.code


def test_a_second_derivative_is_of_plain_operations():
    function, counter = compiled(lambda x, alpha: activations.exo(x, alpha), "eager")
    x = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    seconds = []
    for call in (function, activations.exo):
        slopes = torch.autograd.grad(call(x, alpha).sum(), [x, alpha], create_graph=True)
        seconds.append(torch.autograd.grad(slopes[0].square().sum() + slopes[1], [x, alpha]))
    assert calls(counter) == [1]
    torch.testing.assert_close(*seconds)


def test_what_has_no_kernel_at_run_time_is_computed_plainly(monkeypatch):
    """An operator is called with whatever it was not traced with."""
    f, parameters = waves, learned((CHANNELS,))
    name = operator._registered(f, (None,) * 5, torch.float32)
    monkeypatch.setattr(compiler, "disabled", lambda: True)
    for x in (torch.randn(2, CHANNELS), torch.empty(0, CHANNELS)):
        x.requires_grad_()
        y = torch.ops.zeta.activation([x, *parameters], name)
        expected = evaluate_plain(f, x, dict(zip(f.parameters, parameters, strict=True)))
        torch.testing.assert_close(y, expected)
        ours, theirs = (torch.autograd.grad(v.sum(), [x, *parameters]) for v in (y, expected))
        torch.testing.assert_close(ours, theirs)


# ---- Formulas by name ---------------------------------------------------------------------------


def registered(f):
    found = operator._registered(f, tuple(f.parameters.values()), torch.float32)
    assert found
    return found


def test_a_changed_formula_has_another_name():
    def f(x):
        return sin(x) * tanh(x)

    before = registered(Formula(f))
    assert registered(Formula(f)) == before
    f.__code__ = (lambda x: sin(x) * tanh(-x)).__code__
    assert registered(Formula(f)) != before


def test_what_cannot_be_told_apart_is_never_the_same():
    scale = types.SimpleNamespace(value=2.0)
    names = {registered(Formula(lambda x: scale.value * sin(x) * tanh(x))) for _ in range(2)}
    assert len(names) == 2


def test_another_process_finds_the_formula(monkeypatch):
    """A graph that is kept on disk runs where it was not traced."""
    x = torch.randn(9)
    name = registered(activations.exo)
    home = activations.exo.function.__module__
    monkeypatch.setattr(operator, "_calls", {})
    torch.testing.assert_close(torch.ops.zeta.activation([x], name), activations.exo(x))
    longer = vector_waves.with_defaults(heights=(1.0, 0.1, 0.5))
    assert registered(longer) != registered(vector_waves)
    name_of_longer = registered(longer)
    monkeypatch.setattr(operator, "_calls", {})
    torch.testing.assert_close(torch.ops.zeta.activation([x], name_of_longer), longer(x))
    changed = Formula(lambda x, alpha: alpha * tanh(x), {"alpha": 1.0})
    monkeypatch.setattr(operator, "_calls", {})
    monkeypatch.setattr(f"{home}.exo", changed)
    with pytest.raises(RuntimeError, match=rf"{home}:exo, .* compile the model again"):
        torch.ops.zeta.activation([x], name)
