"""The catalogue's gates against mpmath, against others' gates, and on every framework."""

import functools
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.activations import ACT2FN

from cases import DTYPES, GATE_SHARE, HALF_DTYPES, LIMITS, name, ulps
from zeta import activations, formula
from zeta.math import clip, minimum, tanh

GATES = list(activations.GATES.values())
# Half types and float64 differ in how numbers are stored, whatever the gate: of a share.
IN_ALL_DTYPES = [
    (f, dtype) for f in GATES for dtype in (DTYPES if f in GATE_SHARE else [torch.float32])
]
MAGNITUDES = [1e-30, 1e-8, 0.1, 1.0, 2.5, 3.3, 8.0, 9.7, 30.0, 95.0]


@functools.cache
def points(dtype):
    """Pairs of a gate and a value over the ranges where gates do anything."""
    numbers = [*MAGNITUDES, *(-m for m in MAGNITUDES), 5.5]  # an odd number of them
    numbers = torch.tensor(numbers, dtype=torch.float64).to(dtype)
    pairs = itertools.product(numbers[numbers != 0].tolist(), repeat=2)
    return tuple(
        torch.tensor(pair, dtype=torch.float64).to(dtype) for pair in zip(*pairs, strict=True)
    )


class Truth(NamedTuple):
    value: mpmath.mpf
    slopes: tuple[mpmath.mpf, ...]  # by gate, value and parameters
    condition: float  # relative change of the value per relative change of these
    scale: float  # the size of what the slopes' sums are of


@functools.cache
def truths(f, dtype):
    found = []
    with mpmath.workdps(40):
        parameters = [mpmath.mpf(v) for v in f.parameters.values()]
        orders = np.eye(2 + len(parameters), dtype=int).tolist()
        for inputs in zip(*(t.tolist() for t in points(dtype)), strict=True):
            at = (*map(mpmath.mpf, inputs), *parameters)
            value = f(*at)
            slopes = tuple(mpmath.diff(f, at, tuple(order)) for order in orders)
            moved = sum(abs(s * x) for s, x in zip(slopes, at, strict=True))
            condition = float(moved / abs(value)) if value else 1.0
            found.append(Truth(value, slopes, condition, float(max(1, *map(abs, at[:2])))))
    return found


def wrong_values(f, y, dtype):
    """Where the values of all points are off by more than 4 ulp, times the condition.

    A half type's is a float32 result rounded once.
    """
    is_half = dtype in HALF_DTYPES
    share = torch.finfo(torch.float32).eps / torch.finfo(dtype).eps if is_half else 1.0
    wrong = []
    for *at, got, truth in zip(*points(dtype), y.tolist(), truths(f, dtype), strict=True):
        if abs(truth.value) <= torch.finfo(dtype).max:
            off = ulps(mpmath.mpf(got) - truth.value, truth.value, dtype)
            if not off <= 4 * max(1.0, truth.condition) * share + 0.5 * is_half:
                wrong.append((*map(float, at), off))
    return wrong


def wrong_slopes(f, found, dtype):
    """Where the derivatives by both inputs are off by more than the rounding of their terms."""
    is_half = dtype in HALF_DTYPES
    eps = torch.finfo(torch.float32 if is_half else dtype).eps
    rounding = torch.finfo(dtype).eps / 2 * is_half
    wrong = []
    for k, truth in enumerate(truths(f, dtype)):
        for by, slope in zip(found, truth.slopes, strict=False):
            size = abs(float(slope))
            bound = 16 * eps * truth.scale * max(1.0, size) + rounding * size
            if not abs(by[k].item() - float(slope)) <= bound:
                wrong.append(tuple(t[k].item() for t in points(dtype)))
    return wrong


def test_the_family():
    assert all(f.inputs == ("gate", "value") for f in GATES)
    assert not set(activations.GATES) & set(activations.CATALOGUE)
    assert activations.get("swiglu") is activations.swiglu


@pytest.mark.parametrize(("f", "dtype"), IN_ALL_DTYPES, ids=name)
def test_values_are_within_four_ulp(f, dtype):
    y = f(*points(dtype))
    assert y.dtype == dtype
    assert not wrong_values(f, y, dtype)


@pytest.mark.parametrize(("f", "dtype"), IN_ALL_DTYPES, ids=name)
def test_gradients_by_both_inputs(f, dtype):
    inputs = [t.clone().requires_grad_() for t in points(dtype)]
    assert not wrong_slopes(f, torch.autograd.grad(f(*inputs).sum(), inputs), dtype)


@pytest.mark.parametrize("f", [f for f in GATES if f.parameters], ids=name)
def test_gradients_by_parameters(f):
    inputs = [t.clone().requires_grad_() for t in points(torch.float64)]
    parameters = [torch.tensor(v, requires_grad=True).double() for v in f.parameters.values()]
    parameters = [p.detach().requires_grad_() for p in parameters]
    torch.autograd.gradcheck(lambda *p: f(*inputs, *p).sum(), parameters)


OTHERS = {
    "bilinear": lambda gate, value: gate * value,
    "glu": lambda gate, value: F.glu(torch.cat([value, gate], -1)),
    "gtu": lambda gate, value: torch.sigmoid(gate) * torch.tanh(value),
    "reglu": lambda gate, value: F.relu(gate) * value,
    "geglu": lambda gate, value: F.gelu(gate) * value,
    "geglu_tanh": lambda gate, value: F.gelu(gate, approximate="tanh") * value,
    "swiglu": lambda gate, value: F.silu(gate) * value,
    "seglu": lambda gate, value: F.selu(gate) * value,
    "sreglu": lambda gate, value: ACT2FN["relu2"](gate) * value,
    "qgeglu": lambda gate, value: ACT2FN["quick_gelu"](gate) * value,
    "drelu": lambda gate, value: F.relu(gate) * F.relu(value),
    "swiglu_clamped": lambda gate, value: F.silu(gate.clamp(max=10)) * value.clamp(-10, 10),
    "swiglu_step": lambda gate, value: F.silu(gate).clamp(max=7) * value.clamp(-7, 7),
    "situ_glu": lambda gate, value: (
        100 * torch.tanh(gate / 4) * torch.sigmoid(gate) * torch.tanh(value / 25)
    ),
}


@pytest.mark.parametrize("gate", OTHERS)
def test_equal_to_pytorchs(gate):
    inputs = [t.requires_grad_() for t in torch.randn(2, 40, 30, dtype=torch.float64).mul(6)]
    ours, theirs = activations.GATES[gate](*inputs), OTHERS[gate](*inputs)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(y, inputs, upstream) for y in (ours, theirs)))


def test_equal_to_gpt_oss():
    """Whose experts read gate and value in turn."""
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    packed = torch.randn(50, 64, dtype=torch.float64) * 6
    experts = object.__new__(GptOssExperts)
    torch.nn.Module.__init__(experts)
    experts.alpha, experts.limit = 1.702, 7.0
    theirs = experts._apply_gate(packed)
    ours = activations.swiglu_oai(packed[:, ::2], packed[:, 1::2])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("f", GATES, ids=name)
def test_numpy_and_jax_give_the_same_numbers(f):
    inputs = points(torch.float32)
    expected = f(*(t.double() for t in inputs)).numpy()
    for convert in (np.asarray, jnp.asarray):
        y = np.asarray(f(*(convert(t.numpy()) for t in inputs)))
        assert y.dtype == np.float32
        np.testing.assert_allclose(
            y, expected, rtol=4e-4 if "geglu" in f.name else 2e-5, atol=1e-37
        )


@pytest.mark.parametrize("f", GATES, ids=name)
def test_limits_of_the_gate_and_nan(f):
    gates = torch.tensor([-torch.inf, torch.inf, torch.nan])
    low, high, nan = f(gates, torch.full_like(gates, 0.5)).tolist()
    limits = {"bilinear": -torch.inf, "seglu": LIMITS["selu"][0] / 2}
    assert low == pytest.approx(limits.get(f.name, 0))
    assert high > 0
    assert np.isnan(nan)
    assert f(torch.ones(1), torch.tensor([torch.nan])).isnan()


@formula(bound=2.0)
def blend(gate, value, shift, bound):
    return minimum(clip(gate, -1, 1) * value, bound) + tanh(shift)


SHAPES = {
    "odd": lambda: torch.randn(7, 13),
    "one": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 3),
    "transposed": lambda: torch.randn(13, 7).T,
    "with holes": lambda: torch.randn(7, 26)[:, ::2],
    "turned": lambda: torch.randn(7, 13).flip(1).expand(3, 7, 13),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("f", [activations.swiglu_oai, blend], ids=name)
def test_inputs_that_lie_in_memory_otherwise(f, shape):
    """Each of them, beside others that are contiguous."""
    count = len(f.inputs)
    for other in range(count):
        inputs = [SHAPES[shape]() for _ in range(count)]
        inputs = [x if k == other else x.contiguous() for k, x in enumerate(inputs)]
        check_as_contiguous_doubles(f, inputs, "Fused")


@pytest.mark.parametrize("shapes", [[(4, 1), (1, 6)], [(6,), (4, 6)], [(4, 6), ()]])
def test_inputs_that_broadcast(shapes):
    check_as_contiguous_doubles(activations.swiglu_oai, [torch.randn(s) for s in shapes], "")


def check_as_contiguous_doubles(f, inputs, node):
    """Value and gradients by inputs and parameters, computed by such a node."""
    everything = []
    for dtype in (torch.float32, torch.float64):
        leaves = [x.detach().to(dtype) for x in inputs]
        leaves = [x if dtype == torch.float32 else x.contiguous() for x in leaves]
        parameters = [torch.tensor(v, dtype=dtype) for v in f.parameters.values()]
        leaves = [t.requires_grad_() for t in (*leaves, *parameters)]
        y = f(*leaves)
        assert node in y.grad_fn.name()
        everything.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    for ours, exact in zip(*everything, strict=True):
        assert ours.shape == exact.shape
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("f", [activations.swiglu_oai, blend], ids=name)
def test_the_same_bits_for_any_number_of_threads(f):
    inputs = [torch.randn(301, 1111, requires_grad=True) for _ in f.inputs]
    parameters = [torch.tensor(v, requires_grad=True) for v in f.parameters.values()]
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y = f(*inputs, *parameters)
        found.append((y, *torch.autograd.grad(y.sum(), [*inputs, *parameters])))
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: blend(x, x), TypeError, r"takes 3 inputs \(gate, value, shift\), got 2"),
        (lambda x: blend(x, x, x.double()), TypeError, "inputs must have one dtype"),
        (lambda x: blend(x, x, x[:, :5]), ValueError, r"\(4, 6\) and \(4, 5\) do not broad"),
        (lambda x: blend(x, x, x.int()), TypeError, "must be a floating-point tensor"),
        (lambda x: blend(x, x, x.to("meta")), (TypeError, ValueError, RuntimeError), "device"),
    ],
)
def test_bad_input_is_named(use, error, message):
    with pytest.raises(error, match=message):
        use(torch.ones(4, 6))


def test_a_gate_of_ones_own_with_three_inputs():
    inputs = [torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    y = blend(*inputs)
    assert "Fused" in y.grad_fn.name()
    torch.autograd.gradcheck(blend, inputs)
    torch.autograd.gradgradcheck(blend, inputs)
