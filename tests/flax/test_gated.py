"""The gate as an NNX module: PyTorch's arguments and numbers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zeta.nn
from cases import GATES_IN_LAYOUTS, name
from zeta import activations, convert
from zeta.activations import swiglu, swiglu_oai
from zeta.flax import GatedUnit

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

UPSTREAM = np.random.default_rng(1).standard_normal((3, 4)).astype("float32")
PACKED = np.random.default_rng(0).standard_normal((3, 8)).astype("float32") * 4


def test_arguments_are_the_pytorch_modules():
    ours = inspect.signature(GatedUnit.__init__).parameters
    theirs = inspect.signature(zeta.nn.GatedUnit.__init__).parameters
    alone = {"param_dtype", "device", "dtype", "shape", "reuse"}
    assert [(k, p.default) for k, p in ours.items() if k not in alone] == [
        (k, p.default) for k, p in theirs.items() if k not in alone
    ]


@pytest.mark.parametrize(("f", "layout", "gate_first"), GATES_IN_LAYOUTS, ids=name)
def test_numbers_are_pytorchs(f, layout, gate_first):
    options = {"layout": layout, "gate_first": gate_first, "learnable": True, "num_parameters": 4}
    theirs = zeta.nn.GatedUnit(f, {k: 0.9 * v for k, v in f.parameters.items()}, **options)
    ours = GatedUnit(f, **options)
    convert.copy_weights(theirs, ours)
    packed = torch.tensor(PACKED, requires_grad=True)
    expected = theirs(packed)
    np.testing.assert_allclose(ours(PACKED), expected.detach(), rtol=1e-5, atol=1e-5)
    expected.backward(torch.tensor(UPSTREAM))
    slopes = nnx.grad(lambda m: (m(PACKED) * UPSTREAM).sum())(ours)
    for k, p in theirs.named_parameters():
        np.testing.assert_allclose(slopes[k][...], p.grad, rtol=1e-5, atol=1e-4)
    slope = jax.grad(lambda p: (ours(p) * UPSTREAM).sum())(jnp.asarray(PACKED))
    np.testing.assert_allclose(slope, packed.grad, rtol=1e-5, atol=1e-4)


def test_two_arrays():
    unit = GatedUnit(swiglu_oai, learnable=True, num_parameters=4)
    np.testing.assert_array_equal(unit(PACKED[:, :4], PACKED[:, 4:]), unit(PACKED))


def test_state_splits_and_merges():
    unit = GatedUnit(swiglu_oai, {"limit": 3.0}, layout="interleaved", learnable=True)
    graph, state = nnx.split(unit)
    assert sorted(nnx.to_pure_dict(state)) == ["alpha", "limit"]
    np.testing.assert_array_equal(nnx.merge(graph, state)(PACKED), unit(PACKED))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: GatedUnit(activations.mish), TypeError, "has 1 inputs"),
        (lambda: GatedUnit(swiglu)(PACKED[:, :7]), ValueError, "must be even"),
        (lambda: GatedUnit(swiglu, layout="thirds")(PACKED), ValueError, "'thirds'"),
        (lambda: GatedUnit(swiglu)(np.ones((2, 4), int)), TypeError, "int64"),
        (lambda: GatedUnit(swiglu_oai, num_parameters=8)(PACKED), ValueError, "8 channels"),
    ],
)
def test_bad_input_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call()
