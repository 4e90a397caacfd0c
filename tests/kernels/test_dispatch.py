"""Which calls run as kernels, and that kernels are differentiable as PyTorch expects."""

import math
import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

from cases import DTYPES, SHARE, name, rational
from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta._formula import Formula
from zeta.kernels import compiler, cpu, native, softmax
from zeta.math import expm1, piecewise, tanh

LSELU = activations.learnable_selu_variation


def is_fused(y):
    return y.grad_fn is not None and "Fused" in y.grad_fn.name()


@pytest.fixture(autouse=True, params=["C++", "Python"])
def launcher(request):
    """Who launches."""
    way = {"C++": "launched_by_native", "Python": "launched_by_python"}[request.param]
    request.getfixturevalue(way)
    return request.param


@pytest.fixture
def launches(launcher, monkeypatch):
    """What is launched, as a list that grows."""
    found = []
    module, function = (cpu, "launch") if launcher == "Python" else (native.extension, "launch")
    launch = getattr(module, function)

    def counted(*args):
        result = launch(*args)
        if launcher == "Python" or result is not None:
            found.append(args)
        return result

    monkeypatch.setattr(module, function, counted)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("f", SHARE, ids=name)
def test_eager_tensors_run_as_a_kernel(f, dtype):
    x = torch.randn(50).to(dtype).requires_grad_()
    assert is_fused(f(x))
    assert is_fused(f(torch.nn.Parameter(x.detach())))


def test_saves_the_input_and_the_parameters_alone():
    saved = []
    x = torch.randn(1000, requires_grad=True)
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in LSELU.parameters.items()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        LSELU(x, **parameters)
    assert sorted(t.numel() for t in saved) == [1] * 5 + [1000]
    assert any(t.data_ptr() == x.data_ptr() for t in saved)


def apart(dtype):
    """Two inputs by how their rows lie, and whether kernels read them there."""

    def randn(*shape):
        return torch.randn(shape).to(dtype)

    packed, tensor = randn(2, 3, 80), randn(2, 3, 40)
    return {
        "halves": (packed.chunk(2, -1), True),
        "halves of two rows": (randn(2, 6, 40).chunk(2, 1), True),
        "apart and dense": ((packed[..., 40:], tensor), True),
        "dense and apart": ((tensor, packed[..., 7:47]), True),
        "every other row": ((randn(2, 6, 40)[:, ::2], tensor), True),
        "every other element": ((packed[..., ::2], tensor), False),
        "unevenly apart": ((randn(2, 5, 41)[:, :3, 1:], tensor), False),
        "turned": ((randn(40, 3, 2).permute(2, 1, 0), tensor), False),
        "repeated": ((randn(40).expand(2, 3, 40), tensor), False),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("kind", apart(torch.float32))
def test_rows_that_lie_apart_are_read_there(kind, dtype, launcher, launches):
    """Value and gradients have the bits of those of dense inputs."""
    views, read_there = apart(dtype)[kind]
    inputs = [x.detach().requires_grad_() for x in views]
    parameters = [torch.tensor(v, requires_grad=True) for v in (0.7, 1.5)]
    upstream = torch.randn(inputs[0].shape).to(dtype)

    def all_of(*inputs):
        y = activations.swiglu_oai(*inputs, *parameters)
        assert is_fused(y)
        return [y, *torch.autograd.grad(y, [*inputs, *parameters], upstream)]

    found = all_of(*inputs)
    for _, elements, *_ in launches if launcher == "Python" else ():  # which can be looked at
        same = [x.data_ptr() == y.data_ptr() for x, y in zip(inputs, elements, strict=True)]
        assert all(same) is read_there
    dense = [x.detach().clone(memory_format=torch.contiguous_format) for x in inputs]
    expected = all_of(*[x.requires_grad_() for x in dense])
    for a, b in zip(found[:3], expected[:3], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(found[3:], expected[3:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_in_place_change_of_the_input_is_noticed():
    leaf = torch.randn(10, requires_grad=True)
    x = leaf * 1
    y = activations.exo(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("launcher", ["Python"], indirect=True)  # which can be looked at
def test_only_wanted_gradients_are_computed(launches):
    x = torch.randn(100)
    alpha = torch.tensor(0.7, requires_grad=True)
    torch.autograd.grad(activations.exo(x, alpha).sum(), alpha)
    *_, (_, _, stores, _, sums, *_) = launches
    assert (len(stores), sums) == (0, 1)
    x.requires_grad_()
    torch.autograd.grad(activations.exo(x, alpha.detach()).sum(), x)
    *_, (_, _, stores, _, sums, *_) = launches
    assert (len(stores), sums) == (1, 0)


def test_a_tensor_given_twice_gets_both_gradients():
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    both = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    call = lambda function: function(
        LSELU, x, dict(LSELU.parameters) | {"alpha": both, "beta": both}
    )
    expected = torch.autograd.grad(call(evaluate_plain).sum(), [x, both], create_graph=True)
    ours = LSELU(x, alpha=both, beta=both)
    assert is_fused(ours)
    first = torch.autograd.grad(ours.sum(), [x, both], create_graph=True)
    torch.testing.assert_close(first, expected)
    second = [torch.autograd.grad(g[0].sum() + g[1], both)[0] for g in (first, expected)]
    torch.testing.assert_close(*second)


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_every_formula_is_fused(f):
    """So that what `tests/test_activations.py` differentiates twice is the kernel."""
    x = torch.randn(8, dtype=torch.float64, requires_grad=True)
    parameters = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in f.parameters.values()
    ]
    assert is_fused(f(x, *parameters))


def test_compile_export_and_transforms_see_the_plain_formula(launches):
    x = torch.randn(6, 4)
    f = activations.exo
    expected = evaluate_plain(f, x, {"alpha": 0.5})
    call = lambda x: f(x, 0.5)
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    exported = torch.export.export(ActivationModule(), (x,)).module()
    for function in (compiled, exported, torch.func.vmap(call)):
        torch.testing.assert_close(function(x), expected)
    slope = torch.func.vmap(torch.func.grad(call))(x.flatten())
    assert slope.isfinite().all()
    _, tangent = torch.func.jvp(call, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent.flatten(), slope)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        torch.testing.assert_close(forward_ad.unpack_dual(f(dual, 0.5)).tangent, tangent)
    assert not launches


class ActivationModule(torch.nn.Module):
    def forward(self, x):
        return activations.exo(x, 0.5)


def test_modes_subclasses_and_odd_tensors_see_the_plain_formula(launches):
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    class Subclass(torch.Tensor):
        pass

    x = torch.randn(5)
    with FakeTensorMode() as mode:
        assert activations.exo(mode.from_tensor(x)).shape == (5,)
    graph = make_fx(lambda x: activations.exo(x))(x)
    assert any("sigmoid" in str(node.target) for node in graph.graph.nodes)
    assert type(activations.exo(x.as_subclass(Subclass))) is Subclass
    negative = torch.randn(5, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(
        activations.exo(negative), evaluate_plain(activations.exo, negative, {"alpha": 1.0})
    )
    assert activations.exo(torch.empty(3, device="meta")).device.type == "meta"
    assert not launches


def lazily_negative():
    return torch.tensor(1 + 0.7j).conj().imag  # -0.7, with 0.7 in memory


ODD_SCALARS = {
    "negative": lazily_negative,
    "parameter": lambda: torch.nn.Parameter(lazily_negative()),
    "zero": lambda: torch._efficientzerotensor(()),
    "functional": lambda: torch._to_functional_tensor(torch.tensor(-0.7)),
}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", ODD_SCALARS)
def test_a_scalar_that_is_not_its_memory_is_taken_at_its_value(kind, learned):
    alpha = ODD_SCALARS[kind]()
    x = torch.randn(5, requires_grad=learned)
    y = activations.exo(x, alpha)
    torch.testing.assert_close(y, evaluate_plain(activations.exo, x, {"alpha": alpha}))
    assert not is_fused(y)


def test_autocast_inference_mode_and_no_grad_run_kernels(launches):
    x = torch.randn(10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert activations.exo(x).dtype == torch.float32
    with torch.no_grad():
        assert not activations.exo(x).requires_grad
    with torch.inference_mode():
        activations.exo(torch.randn(3))
    assert len(launches) == 3


@formula
def gated(x):
    return x * (x > 0)


@formula
def chosen(x):
    return piecewise(x, positive=lambda x: x > 1, otherwise=lambda x: x)


@formula
def marked(x):
    return x + 2 * (x == 0)


@formula(power=2.0)
def decided(x, power):
    return x * x if power == 2 else abs(x)


@formula
def deep(x):
    for _ in range(2000):
        x = tanh(x)
    return x


WITHOUT_KERNELS = {
    decided: r"a kernel decides nothing .* write zeta\.math\.piecewise\(x, positive=…",
    deep: "it has more than 2,000 operations",
}


@pytest.mark.parametrize("f", [gated, chosen, marked], ids=name)
def test_a_comparison_is_0_or_1(f):
    x = torch.tensor([-2.0, 0.0, 1.5, math.nan, 0.5], requires_grad=True)
    y, plain = f(x), evaluate_plain(f, x, {})
    assert is_fused(y)
    torch.testing.assert_close(y, plain, equal_nan=True, rtol=0, atol=0)
    ours, theirs = (torch.autograd.grad(v.sum(), x)[0] for v in (y, plain))
    finite = ~x.isnan()
    torch.testing.assert_close(ours[finite], theirs[finite], rtol=0, atol=0)


@pytest.mark.parametrize("launcher", ["C++"], indirect=True)  # it is said once
@pytest.mark.parametrize("f", WITHOUT_KERNELS, ids=name)
def test_a_formula_without_a_kernel_says_so_once_and_stays_right(f):
    x = torch.tensor([-2.0, 0.0, 1.5], requires_grad=True)
    message = f"{f.name} runs as plain operations: {WITHOUT_KERNELS[f]}"
    with pytest.warns(RuntimeWarning, match=message):
        y = f(x)
    f(x.detach().double())  # another kernel, which there cannot be either
    f(x, **{k: torch.tensor(v) for k, v in f.parameters.items()}).sum().backward()
    torch.testing.assert_close(y, evaluate_plain(f, x, dict(f.parameters)))


@pytest.mark.parametrize("launcher", ["C++"], indirect=True)  # it is said once
@pytest.mark.parametrize("f", [decided, deep], ids=name)
def test_a_softmax_of_a_formula_without_a_kernel_says_so(f, monkeypatch):
    monkeypatch.setattr(compiler, "_without_kernels", set())
    with pytest.warns(RuntimeWarning, match=f"{f.name} runs as plain operations: "):
        assert softmax.fused(f, torch.randn(3, 4), {}, -1, False) is None


@pytest.mark.parametrize("function", [lambda x: max(x, 0), lambda x: x if x > 0 else 0 * x])
def test_a_question_about_all_of_x_at_once_names_what_to_write(function):
    question = Formula(function)
    message = r"formula '<lambda>' asks of all of x .* zeta\.math\.maximum\(x, 0\) for max\(x, 0\)"
    with pytest.raises(TypeError, match=message):
        question(torch.randn(3))


def vectors(*shape, dtype=torch.float32):
    """The rational function's, their numbers scalars or of this shape."""
    spread = torch.linspace(0.5, 1.5, math.prod(shape)).view(shape)
    for numbers in rational.parameters.values():
        column = torch.tensor(numbers).view(-1, *[1] * len(shape))
        yield (column * spread).to(dtype).requires_grad_()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((), torch.float32),
        ((6, 1, 1), torch.float32),
        ((5,), torch.float32),
        ((6, 1, 1), torch.bfloat16),
        ((), torch.float64),
    ],
)
def test_vectors_are_one_tensor_with_one_gradient(shape, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(3, 6, 4, 5).to(dtype).requires_grad_()
    tensors = [x, *vectors(*shape, dtype=wide)]
    y = rational(*tensors)
    plain = evaluate_plain(rational, x, rational.bind(*tensors[1:]))
    upstream = torch.randn_like(x)
    assert is_fused(y)
    torch.testing.assert_close(y, plain)
    found = torch.autograd.grad(y, tensors, upstream)
    expected = torch.autograd.grad(plain, tensors, upstream)
    for gradient, other, tensor in zip(found, expected, tensors, strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)
        # Of x in bfloat16 a rounding apart, where the slope is a sum that cancels.
        rounding = 2 * torch.finfo(dtype).eps if tensor is x else 2e-5
        torch.testing.assert_close(gradient, other, rtol=rounding, atol=rounding)


def test_a_vector_as_a_tuple_strided_and_twice_differentiable():
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    numerator, denominator = vectors(dtype=torch.float64)
    pair = torch.stack([denominator, denominator], 1)[:, 0]
    expected = rational(x, numerator, denominator)
    torch.testing.assert_close(rational(x, tuple(numerator.unbind()), pair), expected)
    mixed = (*rational.parameters["numerator"][:5], numerator[5])
    gradient = torch.autograd.grad(rational(x, mixed, denominator).sum(), numerator)[0]
    whole = torch.autograd.grad(rational(x, numerator, denominator).sum(), numerator)[0]
    torch.testing.assert_close(gradient, whole * torch.tensor([0.0, 0, 0, 0, 0, 1]).double())
    small = (x[:2], numerator, denominator)
    assert torch.autograd.gradgradcheck(rational, small)


def test_an_unwanted_vectors_gradient_is_not_formed():
    x, (numerator, denominator) = torch.randn(9), vectors()
    y = rational(x, numerator.detach(), denominator)
    (found,) = torch.autograd.grad(y.sum(), denominator)
    plain = evaluate_plain(rational, x, rational.bind(numerator.detach(), denominator))
    torch.testing.assert_close(found, torch.autograd.grad(plain.sum(), denominator)[0])


def xielu_like(x, alpha, beta):
    return beta * x + piecewise(
        x, positive=lambda x: alpha * x * x, otherwise=lambda x: alpha * (expm1(x) - x)
    )


@pytest.mark.parametrize("shape", [(), (4, 1)])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 4, 5),
        torch.randn(3, 5, 4).mT,
        torch.randn(4, 10)[:, ::2],
        torch.randn(2, 4, 3, 5).permute(0, 2, 1, 3),
    ],
    ids=["dense", "transposed", "strided", "heads"],
)
def test_float32_parameters_beside_bfloat16(x, shape):
    """xIELU's case: no rounding but the last, sums in float32, whatever the rank and strides."""
    f = formula(alpha=0.8, beta=0.5)(xielu_like)
    x = x.bfloat16().requires_grad_()
    parameters = [torch.full(shape, v, requires_grad=True) for v in (0.8123, 0.5017)]
    upstream = torch.randn_like(x)
    y = f(x, *parameters)
    assert y.dtype == torch.bfloat16
    exact = f(x.double(), *(p.double() for p in parameters))
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-6)  # half a unit
    found = torch.autograd.grad(y, [x, *parameters], upstream)
    wide = torch.autograd.grad(exact, [x, *parameters], upstream.double())
    assert [g.dtype for g in found] == [torch.bfloat16, torch.float32, torch.float32]
    for gradient, other in zip(found[1:], wide[1:], strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0].double(), wide[0].double(), rtol=2**-7, atol=1e-6)


def test_any_number_of_parameters():
    names = [f"p{i}" for i in range(70)]
    namespace = {}
    exec(f"def many(x, {', '.join(names)}): return x * ({' + '.join(names)})", namespace)
    many = formula(**dict.fromkeys(names, 0.5))(namespace["many"])
    x = torch.randn(9, requires_grad=True)
    parameters = [torch.tensor(0.01 * i, requires_grad=True) for i in range(70)]
    y = many(x, *parameters)
    assert is_fused(y)
    torch.testing.assert_close(y, x * sum(parameters))
    slopes = torch.autograd.grad(y.sum(), parameters)
    torch.testing.assert_close(torch.stack(slopes), x.sum().detach().expand(70))


def test_an_expanded_upstream_gradient():
    x = torch.randn(300, requires_grad=True)
    alpha = torch.tensor(0.8, requires_grad=True)
    summed = torch.autograd.grad(activations.exo(x, alpha).sum(), [x, alpha])
    ones = torch.autograd.grad(activations.exo(x, alpha), [x, alpha], torch.ones(300))
    torch.testing.assert_close(summed, ones, rtol=0, atol=0)


def test_calls_import_no_compiler(clean_env):
    """PyTorch's takes a second, and Triton cannot share a process with TensorFlow."""
    code = """
import sys, torch
from zeta import activations, ops
x = torch.randn(4, 8, requires_grad=True)
y = activations.exo(x, 0.7) + activations.laplace(x)
ops.gated(activations.swiglu, y).sum().backward()
print({"triton", "torch._dynamo"} & set(sys.modules))
"""
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, env=clean_env, text=True).strip() == "set()"
