"""A gate on one tensor that holds both of its inputs."""

import pytest
import torch
import torch.nn.functional as F

from cases import DTYPES, name
from zeta import activations, formula
from zeta.activations import glu, swiglu, swiglu_oai
from zeta.kernels import cpu
from zeta.math import sigmoid
from zeta.nn import GatedUnit
from zeta.ops import activated_linear, gated

SHAPES = [((4, 6, 10), -1), ((4, 6, 10), 1), ((7, 2), 1), ((3, 5000), 1), ((2, 8, 3, 5), 1)]
LAYOUTS = ["halves", "interleaved"]


def parts(packed, dim, layout, gate_first):
    if layout == "halves":
        found = packed.chunk(2, dim)
    else:
        found = packed.unflatten(dim, (-1, 2)).unbind(dim + 1 if dim >= 0 else dim)
    return found if gate_first else found[::-1]


def check(f, packed, dim, layout, gate_first, *parameters, tolerance=None):
    """Value and gradients against those of contiguous copies; it must have been a kernel."""
    inputs = [t.double().contiguous() for t in parts(packed, dim, layout, gate_first)]
    packed = packed.clone().requires_grad_()
    names = dict(zip(f.parameters, parameters, strict=False))
    y = gated(f, packed, dim, layout=layout, gate_first=gate_first, **names)
    assert "Fused" in y.grad_fn.name()
    leaves = [t.requires_grad_() for t in inputs]
    exact = f(*leaves, *(p.double() for p in parameters))
    upstream = torch.randn_like(y)
    got, *sums = torch.autograd.grad(y, [packed, *parameters], upstream)
    expected = torch.autograd.grad(exact, [*leaves, *parameters], upstream.double())
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(y.double(), exact, **tolerance)
    for a, b in zip(parts(got, dim, layout, gate_first), expected[:2], strict=True):
        torch.testing.assert_close(a.double(), b, **tolerance)
    for a, b in zip(sums, expected[2:], strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_every_shape_and_order(shape, dim, layout, gate_first):
    check(swiglu, torch.randn(shape), dim, layout, gate_first)
    turned = torch.randn(shape).transpose(0, -1).contiguous().transpose(0, -1)
    check(swiglu, turned, dim, layout, gate_first)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_every_dtype(dtype, layout):
    eps = torch.finfo(dtype).eps
    tolerance = {"rtol": 4 * eps, "atol": 4 * eps}
    check(swiglu_oai, (4 * torch.randn(9, 300)).to(dtype), -1, layout, True, tolerance=tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(), (50,), (6, 1, 1)])
def test_parameters_have_gradients(shape, layout):
    packed = 4 * torch.randn(6, 20, 100)
    parameters = [torch.full(shape, v, requires_grad=True) for v in (5.0, 1.5)]
    check(swiglu_oai, packed, -1, layout, True, *parameters)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_outside_and_inside_of_the_packed_dimension(layout):
    """One value per channel where the packed dimension is the channels', and where it is not."""
    for shape, dim in (((3, 1, 1), 1), ((4,), 1), ((5, 1), 1)):
        packed = 4 * torch.randn(2, 6, 5, 4)
        parameters = [torch.full(shape, v, requires_grad=True) for v in (5.0, 1.5)]
        check(swiglu_oai, packed, dim, layout, True, *parameters)


def test_f_glu_has_the_value_first():
    packed = torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(gated(glu, packed, gate_first=False), F.glu(packed))


@pytest.mark.usefixtures("launched_by_python")
def test_nothing_is_copied_and_the_input_alone_is_saved(monkeypatch):
    seen, saved = [], []
    launch = cpu.launch
    monkeypatch.setattr(cpu, "launch", lambda *a: (seen.append(a), launch(*a))[1])
    packed = torch.randn(40, 64, requires_grad=True)
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with keep:
        y = gated(swiglu, packed)
    assert [t.data_ptr() for t in saved] == [packed.data_ptr()]
    assert {t.untyped_storage().data_ptr() for t in seen[0][1]} == {packed.data_ptr()}
    (gradient,) = torch.autograd.grad(y.sum(), packed)
    assert {t.untyped_storage().data_ptr() for t in seen[1][2]} == {gradient.data_ptr()}


def test_what_the_kernel_does_not_take():
    packed = torch.randn(6, 10, dtype=torch.float64, requires_grad=True)
    use = lambda p: gated(swiglu, p, layout="interleaved")
    torch.autograd.gradcheck(use, packed)
    torch.autograd.gradgradcheck(use, packed)
    rows = torch.func.vmap(lambda row: gated(swiglu, row))(packed)
    torch.testing.assert_close(rows, gated(swiglu, packed))
    strided = torch.randn(6, 20)[:, ::2].requires_grad_()
    torch.testing.assert_close(gated(swiglu, strided), swiglu(*strided.chunk(2, -1)))
    assert gated(swiglu, torch.empty(0, 4)).shape == (0, 2)
    assert gated(swiglu, torch.empty(3, 0)).shape == (3, 0)


def test_the_same_bits_for_any_number_of_threads():
    packed = torch.randn(300, 2048, requires_grad=True)
    limit = torch.tensor(2.0, requires_grad=True)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y = gated(swiglu_oai, packed, limit=limit)
        found.append((y, *torch.autograd.grad(y.sum(), [packed, limit])))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("parameters", [{}, {"limit": torch.tensor(2.0, requires_grad=True)}])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_a_gradient_over_its_input(dtype, layout, parameters):
    """The same numbers, in the input's memory."""
    x = torch.randn(33, 2 * 1011).to(dtype).requires_grad_()
    found = []
    for reuse in (None, "inputs"):
        packed = x * 1
        y = gated(swiglu_oai, packed, layout=layout, reuse=reuse, **parameters)
        leaves = [packed, *parameters.values()]
        found.append(torch.autograd.grad(y.square().sum(), leaves))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[1][0].data_ptr() == packed.data_ptr()


def test_who_still_needs_an_input_that_was_written_over_is_told():
    x = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(3, 4, requires_grad=True)
    modified = pytest.raises(RuntimeError, match="modified by an inplace operation")

    packed = x * 1
    y = gated(swiglu, packed, reuse="inputs").sum()
    torch.autograd.grad(y, packed, retain_graph=True)
    with modified:
        y.backward()

    packed = x.exp()  # which saves its result
    with modified:
        gated(swiglu, packed, reuse="inputs").sum().backward()

    packed = x * 1
    y = activated_linear(packed, weight=weight, formula=swiglu, reuse="inputs").sum()
    expected = F.linear(gated(swiglu, x), weight).sum()
    found = torch.autograd.grad(y, [weight, x], retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [weight, x]))
    with modified:
        y.backward()

    packed = x * 1  # to be differentiated again, it is left
    y = gated(swiglu, packed, reuse="inputs")
    (slope,) = torch.autograd.grad(y.sum(), packed, create_graph=True)
    assert slope.data_ptr() != packed.data_ptr()
    slope.square().sum().backward()


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[1:], lambda x: x.view(2, 8)])
def test_a_leaf_is_not_written_over(view):
    x = torch.randn(4, 4, requires_grad=True)
    with pytest.raises(ValueError, match="would write a gradient over a leaf, a parameter say"):
        gated(swiglu, view(x), reuse="inputs")
    gated(swiglu, view(x.detach()), reuse="inputs")  # has no gradient


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: gated(glu, x, reuse="input"), ValueError, "must be None or .inputs., got 'inp"),
        (
            lambda x: activated_linear(x, weight=x, formula=activations.gelu, reuse="inputs"),
            ValueError,
            "is for one tensor that holds the inputs of a gate",
        ),
        (
            lambda x: gated(activations.gelu, x),
            TypeError,
            r"gelu\(x\) has 1 inputs, and a gate has",
        ),
        (lambda x: gated(F.silu, x), TypeError, "a gate must be a Formula, got function"),
        (lambda x: gated(glu, x[:, :3]), ValueError, r"size must be even; got shape \(4, 3\)"),
        (lambda x: gated(glu, x, layout="pairs"), ValueError, "must be .halves. or .interleaved."),
        (lambda x: gated(glu, x, 2), IndexError, r"shape \(4, 6\) has no dim 2"),
        (lambda x: gated(glu, x.int()), TypeError, "glu: packed must be a floating-point tensor"),
        (lambda x: gated(glu, x, limit=1.0), TypeError, "'limit' is not a parameter"),
        (lambda x: swiglu(x, x[:, :5]), ValueError, r"shapes \(4, 6\) and \(4, 5\) do not broad"),
        (lambda x: swiglu(x, x.double()), TypeError, "inputs must have one dtype"),
        (lambda x: swiglu.module(), TypeError, "FormulaModule needs a formula of one input"),
    ],
)
def test_bad_input_is_named(use, error, message):
    with pytest.raises(error, match=message):
        use(torch.ones(4, 6))


@pytest.mark.parametrize("own", ["dim", "layout", "weight"])
def test_a_parameter_named_as_an_argument_is_refused(own):
    """Whoever gave it by name would set something else, without a word."""
    f = formula(**{own: 1.0})(eval(f"lambda gate, value, {own}: {own} * gate * value"))
    for use in (lambda: gated(f, torch.ones(2, 4)), lambda: GatedUnit(f)):
        with pytest.raises(TypeError, match=f"have an argument '{own}' of their own"):
            use()


def test_a_gate_of_ones_own():
    @formula(beta=1.0)
    def own(gate, value, beta):
        return value * sigmoid(beta * gate)

    packed = torch.randn(4, 6)
    torch.testing.assert_close(gated(own, packed, beta=2.0), own(*packed.chunk(2, -1), 2.0))
