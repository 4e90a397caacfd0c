"""Sparsemax and entmax15 on JAX arrays: PyTorch's numbers, and every derivative."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

import zeta.jax
import zeta.ops

both = pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
TARGET = np.array([0, 6, -100, 3, 3, 1])
Q = np.random.default_rng(1).dirichlet(np.ones(8), 6)


def logits():
    return np.random.default_rng(0).normal(size=(6, 8)) * np.array(
        [[0.01], [0.3], [1], [1], [3], [30]]
    )


@both
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_is_pytorchs(name, dtype):
    x = logits().astype(dtype)
    loss, torchs = getattr(zeta.jax, f"{name}_loss"), getattr(zeta.ops, f"{name}_loss")
    eps = np.finfo(dtype).eps  # one rounding apart at most, and float32's own where it is wide
    for dim in (0, -1):
        p = getattr(zeta.jax, name)(x, dim)
        expected = getattr(zeta.ops, name)(torch.from_numpy(x), dim)
        assert p.dtype == dtype
        np.testing.assert_allclose(p, expected, rtol=eps, atol=8 * min(eps, 1e-7))
    for target, reduction in [(TARGET, "none"), (TARGET, "mean"), (Q.astype(dtype), "sum")]:
        z = torch.from_numpy(x).requires_grad_()
        expected = torchs(z, torch.from_numpy(target), reduction=reduction)
        found, pull = jax.vjp(partial(loss, target=target, reduction=reduction), x)
        np.testing.assert_allclose(found, expected.detach(), rtol=16 * eps, atol=16 * eps)
        (gradient,) = torch.autograd.grad(expected.sum(), z)
        np.testing.assert_allclose(pull(jnp.ones_like(found))[0], gradient, atol=8 * eps)


@both
@pytest.mark.usefixtures("xla_compiles_quickly")
def test_derivatives(name):
    probabilities, loss = getattr(zeta.jax, name), getattr(zeta.jax, f"{name}_loss")
    with jax.enable_x64(True):
        x = jnp.asarray(logits()[1:5])
        check_grads(jax.jit(probabilities), (x,), order=2)
        check_grads(jax.jit(lambda x: loss(x, TARGET[1:5])), (x,), order=2)
    x, target = logits().astype("f4"), jnp.maximum(TARGET, 0)
    per_token = jax.vmap(jax.grad(lambda x, t: loss(x[None], t[None])))
    np.testing.assert_allclose(
        per_token(x, target), probabilities(x) - jax.nn.one_hot(target, 8), atol=1e-6
    )


@both
def test_infinities_nan_and_nothing(name):
    probabilities, loss = getattr(zeta.jax, name), getattr(zeta.jax, f"{name}_loss")
    inf = np.inf
    x = jnp.array([[inf, 0, -inf], [inf, inf, 0], [1e30, -3e30, 1e30]])
    np.testing.assert_allclose(
        probabilities(x), [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]], rtol=1e-6
    )
    assert jnp.isfinite(jax.grad(lambda x: probabilities(x)[:, 0].sum())(x)).all()
    assert jnp.isnan(probabilities(jnp.array([[np.nan, 0], [-inf, -inf]]))).all()
    nothing, gradient = jax.value_and_grad(loss)(jnp.ones((2, 3)), jnp.array([-100, -100]))
    assert jnp.isnan(nothing)
    assert (gradient == 0).all()
    assert [probabilities(jnp.ones(s)).shape for s in ((), (0, 5), (3, 0))] == [(), (0, 5), (3, 0)]


@both
def test_bad_input(name):
    loss = getattr(zeta.jax, f"{name}_loss")
    with pytest.raises(TypeError, match=f"{name}: x must be a floating-point array"):
        getattr(zeta.jax, name)(jnp.arange(3))
    x, target = jnp.ones((2, 3)), jnp.array([0, 3])
    with pytest.raises(IndexError, match=f"{name}_loss: target 3 is out of range for 3 classes"):
        loss(x, target)
    assert jnp.isnan(jax.jit(loss)(x, target))
    with pytest.raises(ValueError, match="least is 1 and the sum 3: divide"):
        loss(x, x)
    with pytest.raises(ValueError, match=r"class indices \(2,\) or probabilities \(2, 3\)"):
        loss(x, target[:1])
