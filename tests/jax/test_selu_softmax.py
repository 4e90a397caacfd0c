"""selu_softmax on JAX arrays."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

import zeta.ops
from zeta.jax import SELU_SCALE, selu_softmax


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_is_pytorchs(dim):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    for options in ({}, {"scale": SELU_SCALE**2}, {"alpha": 0.5, "scale": 2.0}):
        expected = zeta.ops.selu_softmax(torch.from_numpy(x), dim, **options)
        np.testing.assert_allclose(
            selu_softmax(jnp.asarray(x), dim, **options), expected, rtol=1e-5
        )


@pytest.mark.usefixtures("xla_compiles_quickly")
def test_derivatives_by_input_and_parameters():
    with jax.enable_x64(True):
        x = jnp.array([[0.3, -0.7, 1.9], [-2.1, 0.4, -0.2]])

        @jax.jit
        def both(x, alpha, scale):
            return selu_softmax(x, -1), selu_softmax(x, -1, alpha=alpha, scale=scale)

        check_grads(both, (x, 1.2, 0.9), order=2)


def test_no_finite_input_gives_nan_and_infinities_give_the_limit():
    largest = float(jnp.finfo(jnp.float32).max)
    x = jnp.array([[largest, 0.0, -largest], [largest, largest, 1.0]])
    np.testing.assert_allclose(selu_softmax(x, -1), [[1, 0, 0], [0.5, 0.5, 0]])
    assert jnp.isfinite(jax.grad(lambda x: selu_softmax(x, -1)[:, 0].sum())(x)).all()
    assert selu_softmax(jnp.array([jnp.inf, 0.0, -jnp.inf]), -1).tolist() == [1, 0, 0]
    assert jnp.isnan(selu_softmax(jnp.array([0.0, jnp.nan]), -1)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounds_once(dtype):
    x = jax.random.normal(jax.random.key(0), (8, 33)).astype(dtype)
    wide = selu_softmax(x.astype(jnp.float32), -1)
    y = jax.jit(selu_softmax, static_argnums=1)(x, -1)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, wide.astype(dtype))


def test_bad_input():
    with pytest.raises(TypeError, match="selu_softmax: input must be a floating-point array"):
        selu_softmax(jnp.arange(3))
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        selu_softmax(jnp.ones(3), dim=0.7)
    with pytest.raises(IndexError, match=r"dim must be in \[-1, 0\], got 1"):
        selu_softmax(jnp.ones(3), dim=1)


def test_leaving_dim_out_warns_once(clean_env):
    code = """
import jax.numpy as jnp, warnings
from zeta.jax import selu_softmax
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    selu_softmax(jnp.ones(10))
    selu_softmax(jnp.ones((2, 3)), 0)
    assert not caught
    selu_softmax(jnp.ones((2, 3)))
    selu_softmax(jnp.ones((2, 3)))
assert len(caught) == 1, caught
assert "dim was left out" in str(caught[0].message)
assert caught[0].filename == "<string>"
"""
    subprocess.run([sys.executable, "-c", code], env=clean_env, check=True)
