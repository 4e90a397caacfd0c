"""A linear map of an activation that is formed again: same numbers, less kept."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from zeta import activations, formula
from zeta.activations import gelu, swiglu, swiglu_oai
from zeta.kernels import cpu
from zeta.math import tanh
from zeta.ops import activated_linear, gated

WEIGHT = torch.randn(5, 8, dtype=torch.float64) / 3
BIAS = torch.randn(5, dtype=torch.float64)


def leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


@formula
def without_a_kernel(x):
    return tanh(x) * (x % 2.0)


def two_steps(*inputs, weight, bias=None, formula, **parameters):
    """What it stands for."""
    packed = len(inputs) < len(formula.inputs)
    activation = gated(formula, *inputs, **parameters) if packed else formula(*inputs, **parameters)
    return F.linear(activation, weight, bias)


CASES = {
    "one input": (gelu, [(3, 8)], {}),
    "a parameter": (activations.exo, [(2, 3, 8)], {"alpha": 0.7}),
    "two inputs": (swiglu, [(3, 8), (3, 8)], {}),
    "packed": (swiglu_oai, [(2, 3, 16)], {"limit": 1.5}),
    "one row": (gelu, [(8,)], {}),
    "no row": (gelu, [(0, 8)], {}),
    "without a kernel": (without_a_kernel, [(3, 8)], {}),
}


@pytest.mark.filterwarnings("ignore:without_a_kernel runs as plain operations")
@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_two_steps(case):
    """Value and gradients, the parameter's too."""
    f, shapes, numbers = CASES[case]
    inputs = leaves(*(torch.randn(s, dtype=torch.float64) for s in shapes))
    weight, bias = leaves(WEIGHT, BIAS)
    parameters = {k: torch.tensor(v).double().requires_grad_() for k, v in numbers.items()}
    every = [*inputs, weight, bias, *parameters.values()]
    y = activated_linear(*inputs, weight=weight, bias=bias, formula=f, **parameters)
    expected = two_steps(*inputs, weight=weight, bias=bias, formula=f, **parameters)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn_like(y)
    found = (torch.autograd.grad(v, every, upstream) for v in (y, expected))
    torch.testing.assert_close(*found)


def test_a_second_derivative():
    x, weight = leaves(torch.randn(3, 8, dtype=torch.float64), WEIGHT)
    use = lambda x, weight: activated_linear(x, weight=weight, formula=gelu)
    torch.autograd.gradcheck(use, (x, weight))
    torch.autograd.gradgradcheck(use, (x, weight))


def kept(function):
    """Bytes that autograd keeps for backward, storages counted once."""
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        function()
    return sum(found.values())


@pytest.mark.parametrize(("f", "width", "share"), [(gelu, 64, 1 / 2), (swiglu, 128, 2 / 3)])
def test_the_activation_is_not_kept(f, width, share):
    x = torch.randn(512, width, requires_grad=True)
    weight = torch.randn(4, 64, requires_grad=True)
    activation = lambda: f(x) if f is gelu else gated(f, x)
    usual = kept(lambda: F.linear(activation(), weight)) - weight.nbytes
    ours = kept(lambda: activated_linear(x, weight=weight, formula=f)) - weight.nbytes
    assert ours == x.nbytes
    assert ours / usual == pytest.approx(share)


@pytest.mark.parametrize(
    ("dtype", "own"),
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float64),
    ],
)
def test_autocast(dtype, own):
    """Which takes float64 as it is. The weight has another use, of autocast's own copy."""
    x, weight, bias = leaves(torch.randn(4, 16).to(dtype), WEIGHT.to(own), BIAS.to(own))
    results = []
    for use in (activated_linear, two_steps):
        with torch.autocast("cpu", torch.bfloat16):
            y = use(x, weight=weight, bias=bias, formula=swiglu)
            loss = y.sum() + F.linear(x[:, :8], weight).square().sum()
        assert y.dtype == (torch.bfloat16 if dtype == torch.float32 else dtype)
        slopes = torch.autograd.grad(loss, [x, weight, bias], create_graph=True)
        curves = torch.autograd.grad(slopes[0].square().sum(), [x, weight])
        results.append((y, *slopes, *curves))
    # The weight's two gradients are added before they are rounded, or after.
    eps = torch.finfo(y.dtype).eps
    sizes = (t.abs().max() for t in results[1])
    for ours, theirs, size in zip(*results, sizes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=4 * eps, atol=4 * eps * size.item())


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_keeps_nothing_within(use_reentrant):
    x, weight, bias = leaves(torch.randn(4, 16), WEIGHT.float(), BIAS.float())
    middle = []

    def block(x):
        h = x * 2
        middle.append(weakref.ref(h))
        return activated_linear(h, weight=weight, bias=bias, formula=swiglu)

    y = checkpoint(block, x, use_reentrant=use_reentrant)
    assert middle[0]() is None
    y.square().sum().backward()
    found = [t.grad for t in (x, weight, bias)]
    expected = two_steps(x * 2, weight=weight, bias=bias, formula=swiglu)
    expected = torch.autograd.grad(expected.square().sum(), [x, weight, bias])
    torch.testing.assert_close(found, list(expected))


def test_what_is_kept_may_be_moved_away():
    """To disk or another device, by the hooks of others."""
    x, weight = leaves(torch.randn(4, 8), WEIGHT.float())
    moved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: moved.append(weakref.ref(t)) or t.numpy(), torch.from_numpy
    ):
        h = x * 1
        y = activated_linear(h, weight=weight, formula=gelu)
    assert any(t() is h for t in moved)
    del h
    y.sum().backward()
    expected = torch.autograd.grad(two_steps(x, weight=weight, formula=gelu).sum(), [x, weight])
    torch.testing.assert_close([x.grad, weight.grad], list(expected))


@pytest.mark.usefixtures("launched_by_python")
@pytest.mark.parametrize("learn", ["xwb", "x", "w", "b", "wb", "xb", ""])
def test_what_is_frozen_has_no_gradient_and_no_cost(learn, monkeypatch):
    """The activation is formed again for the weight's gradient alone."""
    launches = []
    launch = cpu.launch
    monkeypatch.setattr(cpu, "launch", lambda *a: (launches.append(1), launch(*a))[1])
    tensors = {"x": torch.randn(4, 8), "w": WEIGHT.float(), "b": BIAS.float()}
    tensors = {k: t.clone().requires_grad_(k in learn) for k, t in tensors.items()}
    arguments = {"weight": tensors["w"], "bias": tensors["b"], "formula": gelu}
    y = activated_linear(tensors["x"], **arguments)
    assert y.requires_grad == bool(learn)
    if learn:
        launches.clear()
        wanted = [tensors[k] for k in learn]
        found = torch.autograd.grad(y.square().sum(), wanted)
        assert len(launches) == ("x" in learn) + ("w" in learn)
        expected = two_steps(tensors["x"], **arguments).square().sum()
        torch.testing.assert_close(found, torch.autograd.grad(expected, wanted))
    with torch.no_grad():
        torch.testing.assert_close(activated_linear(tensors["x"], **arguments), y.detach())


def test_a_second_backward_and_two_uses_of_one_tensor():
    x, weight = leaves(torch.randn(4, 8), WEIGHT.float())
    y = activated_linear(x, x, weight=weight, formula=swiglu).sum()
    first = torch.autograd.grad(y, [x, weight], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(y, [x, weight]), first, rtol=0, atol=0)
    expected = two_steps(x, x, weight=weight, formula=swiglu).sum()
    torch.testing.assert_close(first, torch.autograd.grad(expected, [x, weight]))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


@pytest.mark.parametrize("f", [gelu, swiglu])
def test_transforms_and_forward_mode(f):
    x, weight = torch.randn(6, 8 * len(f.inputs)).double(), WEIGHT
    loss = lambda use: lambda x, weight: use(x, weight=weight, formula=f).square().sum()
    for transform in (
        lambda g: torch.func.grad(g, (0, 1)),
        lambda g: torch.func.vmap(torch.func.grad(g, (0, 1)), (0, None)),
        lambda g: lambda *at: torch.func.jvp(g, at, tuple(map(torch.ones_like, at))),
    ):
        found = (transform(loss(use))(x, weight) for use in (activated_linear, two_steps))
        torch.testing.assert_close(*found)
    leaf = weight.clone().requires_grad_()
    with forward_ad.dual_level():
        y = activated_linear(forward_ad.make_dual(x, x), weight=leaf, formula=f)
        expected = two_steps(forward_ad.make_dual(x, x), weight=leaf, formula=f)
        torch.testing.assert_close(*(forward_ad.unpack_dual(t).tangent for t in (y, expected)))


def test_what_autograd_may_not_keep():
    """An input of inference mode: the weight learns all the same."""
    (weight,) = leaves(WEIGHT.float())
    with torch.inference_mode():
        x = torch.randn(4, 8)
    y = activated_linear(x, weight=weight, formula=gelu)
    expected = two_steps(x.clone(), weight=weight, formula=gelu)
    torch.testing.assert_close(*(torch.autograd.grad(t.sum(), weight) for t in (y, expected)))


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda x, w: activated_linear(x, weight=w, formula=F.gelu),
            TypeError,
            "be a Formula, got",
        ),
        (lambda x, w: activated_linear(weight=w, formula=gelu), TypeError, "must be 1, got 0"),
        (
            lambda x, w: activated_linear(x, x, weight=w, formula=gelu),
            TypeError,
            "must be 1, got 2",
        ),
        (lambda x, w: activated_linear(x[:, :7], weight=w, formula=swiglu), ValueError, "be even"),
        (lambda x, w: activated_linear(x, weight=w, formula=swiglu), RuntimeError, "shapes cannot"),
        (
            lambda x, w: activated_linear(x.int(), weight=w, formula=gelu),
            TypeError,
            "floating-point",
        ),
        (
            lambda x, w: activated_linear(x, weight=w, formula=gelu, k=1.0),
            TypeError,
            "'k' is not a",
        ),
    ],
)
def test_bad_input_is_named(use, error, message):
    with pytest.raises(error, match=message):
        use(torch.randn(4, 8), torch.randn(5, 8, requires_grad=True))


@pytest.mark.parametrize("learns", [True, False])
def test_an_input_changed_in_place_is_noticed(learns):
    """Also where no gradient by the input is wanted."""
    x, (weight,) = torch.randn(4, 8, requires_grad=learns), leaves(torch.randn(3, 8))
    middle = x * 1
    y = activated_linear(middle, weight=weight, formula=gelu)
    middle.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("f", [gelu, swiglu])
def test_compiled_and_exported(f):
    x, weight, bias = leaves(torch.randn(4, 8 * len(f.inputs)), WEIGHT.float(), BIAS.float())
    use = lambda *tensors: activated_linear(
        tensors[0], weight=tensors[1], bias=tensors[2], formula=f
    )
    run = torch.compile(use, backend="aot_eager", fullgraph=True)
    results = []
    for function in (run, use):
        y = function(x, weight, bias)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, weight, bias])))
    torch.testing.assert_close(*results)

    class Block(torch.nn.Module):
        def forward(self, *tensors):
            return use(*tensors)

    exported = torch.export.export(Block(), (x, weight, bias)).module()
    torch.testing.assert_close(exported(x, weight, bias), results[0][0])
