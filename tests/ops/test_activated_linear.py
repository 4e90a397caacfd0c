"""A linear map of an activation that is formed again: same numbers, less kept."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from zeta import activations, formula
from zeta.activations import gelu, swiglu, swiglu_oai
from zeta.math import tanh
from zeta.ops import activated_linear, gated

WEIGHT = torch.randn(5, 8, dtype=torch.float64) / 3
BIAS = torch.randn(5, dtype=torch.float64)


def leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


@formula
def without_a_kernel(x):
    return tanh(x) * (x % 2.0)


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
    packed = len(inputs) < len(f.inputs)
    activation = (gated if packed else lambda f, *x, **p: f(*x, **p))(f, *inputs, **parameters)
    expected = F.linear(activation, weight, bias)
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
        alive = function()
    # A hook within replaces this one; what is kept is seen in the graph.
    seen, nodes = set(), [alive.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [n for n, _ in node.next_functions]
        for name in dir(node):
            if name.startswith("_raw_saved_") and name != "_raw_saved_tensors":
                raw = getattr(node, name)
                data = getattr(raw, "data", None)
                if isinstance(data, torch.Tensor):
                    keep(data)
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


def test_autocast_and_checkpointing():
    x, weight, bias = leaves(torch.randn(4, 16), torch.randn(3, 8), torch.randn(3))
    with torch.autocast("cpu", torch.bfloat16):
        y = activated_linear(x, weight=weight, bias=bias, formula=swiglu)
        expected = F.linear(gated(swiglu, x), weight, bias)
    assert y.dtype == expected.dtype == torch.bfloat16
    found = [torch.autograd.grad(v.sum(), [x, weight, bias]) for v in (y, expected)]
    torch.testing.assert_close(*found)
    use = lambda x: activated_linear(x, weight=weight, bias=bias, formula=swiglu)
    again = checkpoint(use, x, use_reentrant=False)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), weight) for v in (again, use(x))))


@pytest.mark.parametrize("learns", [True, False])
def test_an_input_changed_in_place_is_noticed(learns):
    """Also where no gradient by the input is wanted."""
    x, (weight,) = torch.randn(4, 8, requires_grad=learns), leaves(torch.randn(3, 8))
    middle = x * 1
    y = activated_linear(middle, weight=weight, formula=gelu)
    middle.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_compiled():
    x, weight = leaves(torch.randn(4, 8), torch.randn(3, 8))
    use = lambda x: activated_linear(x, weight=weight, formula=gelu)
    run = torch.compile(use, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(x), use(x))
    torch.testing.assert_close(*(torch.autograd.grad(f(x).sum(), x) for f in (run, use)))
