"""Gates as JAX functions, of two arrays and of one that holds both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import zeta.jax
from cases import GATE_SHARE, GATES_IN_LAYOUTS, LAYOUTS, name
from zeta import activations, ops
from zeta.activations import GATES, swiglu, swiglu_oai

UPSTREAM = np.random.default_rng(1).standard_normal((3, 4, 2)).astype("float32")
PACKED = np.random.default_rng(0).standard_normal((3, 8, 2)).astype("float32") * 4
OTHERS = [f for f in GATES.values() if f not in GATE_SHARE]
CASES = {
    "float32": [*((f, *LAYOUTS[0]) for f in OTHERS), *GATES_IN_LAYOUTS],
    "bfloat16": GATES_IN_LAYOUTS,
}


def by_torch(f, packed, **options):
    """Value and gradient, in float64."""
    packed = torch.tensor(np.asarray(packed, "float64"), requires_grad=True)
    y = ops.gated(f, packed, 1, **options)
    y.backward(torch.tensor(UPSTREAM).double())
    return y.detach().numpy(), packed.grad.numpy()


@functools.cache
def of_every_gate(dtype):
    """Values and gradients, as one program: XLA takes a tenth of a second for any."""

    def one(f, layout, gate_first, packed):
        call = functools.partial(zeta.jax.gated, f, layout=layout, gate_first=gate_first)
        y, pull_back = jax.vjp(lambda packed: call(packed, 1), packed)
        return y, *pull_back(jnp.asarray(UPSTREAM, dtype))

    each = jax.jit(lambda packed: [one(*case, packed) for case in CASES[dtype]])
    return dict(zip(CASES[dtype], each(jnp.asarray(PACKED, dtype)), strict=True))


@pytest.mark.parametrize(
    ("dtype", "case"),
    [(dtype, case) for dtype, cases in CASES.items() for case in cases],
    ids=lambda value: value if type(value) is str else "-".join(map(name, value)),
)
def test_value_and_gradient(dtype, case):
    f, layout, gate_first = case
    packed, options = jnp.asarray(PACKED, dtype), {"layout": layout, "gate_first": gate_first}
    y, slope = of_every_gate(dtype)[case]
    assert y.dtype == slope.dtype == dtype
    expected, expected_slope = by_torch(f, np.asarray(packed, "float64"), **options)
    # Of float32 some roundings at the size of the terms, of bfloat16 one, and the upstream's.
    bounds = {"rtol": 1e-5, "atol": 1e-4} if dtype == "float32" else {"rtol": 2**-7, "atol": 1e-3}
    np.testing.assert_allclose(np.asarray(y, "float64"), expected, **bounds)
    np.testing.assert_allclose(np.asarray(slope, "float64"), expected_slope, **bounds)


@pytest.mark.parametrize("f", GATES.values(), ids=name)
def test_two_arrays_and_numpy(f):
    gate, value = np.moveaxis(PACKED, -1, 0)
    y = getattr(zeta.jax, f.name)(gate, value)
    assert isinstance(y, jax.Array)
    np.testing.assert_allclose(y, f(gate, value), rtol=1e-5, atol=1e-5)
    assert isinstance(f(gate, value), np.ndarray)
    named = getattr(zeta.jax, f.name)(gate=gate, value=value)
    np.testing.assert_array_equal(named, y)
    rows = jax.vmap(getattr(zeta.jax, f.name))(jnp.asarray(gate), jnp.asarray(value))
    np.testing.assert_allclose(rows, y, rtol=1e-6, atol=1e-6)


def test_gradients_flow_to_parameters():
    def total(limit):
        return zeta.jax.gated(swiglu_oai, PACKED, 1, limit=limit).sum()

    limit = torch.tensor(2.0, requires_grad=True)
    ops.gated(swiglu_oai, torch.tensor(PACKED), 1, limit=limit).sum().backward()
    np.testing.assert_allclose(jax.grad(total)(2.0), limit.grad, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: zeta.jax.gated(swiglu, PACKED[:, :7], 1), ValueError, "must be even"),
        (lambda: zeta.jax.gated(swiglu, PACKED, 3), IndexError, "no dim 3"),
        (lambda: zeta.jax.gated(swiglu, PACKED, layout="thirds"), ValueError, "'thirds'"),
        (lambda: zeta.jax.gated(swiglu, np.ones((2, 4), int)), TypeError, "int64"),
        (lambda: zeta.jax.gated(activations.mish, PACKED), TypeError, "has 1 inputs"),
        (lambda: zeta.jax.gated("swiglu", PACKED), TypeError, "must be a Formula, got str"),
        (lambda: zeta.jax.swiglu(PACKED), TypeError, "takes 2 inputs"),
        (lambda: zeta.jax.swiglu(PACKED, PACKED.astype("float16")), TypeError, "one dtype"),
        (lambda: zeta.jax.swiglu(PACKED, PACKED[:, :5]), ValueError, "do not broadcast"),
    ],
)
def test_bad_input_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call()
