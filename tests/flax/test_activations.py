"""The activations as NNX modules: PyTorch's arguments, numbers and errors."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zeta.jax
import zeta.nn
from cases import SHARE, name, rational
from zeta import activations, formula
from zeta.flax import Exo, FormulaModule, LaplaceActivation, LearnableSELUVariation, SELUSoftmax

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

MODULES = {
    Exo: zeta.jax.exo,
    LearnableSELUVariation: zeta.jax.learnable_selu_variation,
    LaplaceActivation: zeta.jax.laplace,
}
X = jnp.linspace(-3, 3, 24).reshape(2, 3, 4)


def make(cls, **options):
    if cls is LearnableSELUVariation:
        options.pop("learnable", None)
    return cls(**options)


@pytest.mark.parametrize("cls", [*MODULES, FormulaModule])
def test_arguments_are_the_pytorch_modules(cls):
    ours = inspect.signature(cls.__init__).parameters
    theirs = inspect.signature(getattr(zeta.nn, cls.__name__).__init__).parameters
    shared = {k: p for k, p in theirs.items() if k not in ("device", "dtype", "shape")}
    assert [(k, p.default, p.kind) for k, p in ours.items() if k != "param_dtype"] == [
        (k, p.default, p.kind) for k, p in shared.items()
    ]


@pytest.mark.parametrize("cls", MODULES)
def test_defaults_are_the_functions(cls):
    np.testing.assert_array_equal(cls()(X), MODULES[cls](X))


@pytest.mark.parametrize("cls", MODULES)
def test_learnable_parameters_are_named_exact_and_train(cls):
    module = make(cls, learnable=True)
    state = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert {k: v.item() for k, v in state.items()} == {
        k: np.float32(v).item() for k, v in module.formula.parameters.items()
    }
    gradients = nnx.grad(lambda m: jnp.sum(m(X) ** 2))(module)
    assert all(jnp.isfinite(g) and g != 0 for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("dim", [1, -1, 0])
@pytest.mark.parametrize("cls", MODULES)
def test_per_channel(cls, dim):
    channels = X.shape[dim]
    module = make(cls, learnable=True, num_parameters=channels, channel_dim=dim)
    factors = jnp.linspace(0.8, 1.2, channels)
    for k in module.formula.parameters:
        getattr(module, k)[...] *= factors
    y = nnx.jit(lambda m, x: m(x))(module, X)
    for c in range(channels):
        values = {k: getattr(module, k)[c] for k in module.formula.parameters}
        expected = MODULES[cls](jnp.take(X, c, dim), **values)
        np.testing.assert_allclose(jnp.take(y, c, dim), expected, rtol=1e-5, atol=1e-6)


def test_fixed_parameters_are_not_trained():
    assert not nnx.to_pure_dict(nnx.state(Exo()))
    module = Exo(0.5, num_parameters=3)
    assert not nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert module.alpha[...].tolist() == [0.5] * 3
    np.testing.assert_array_equal(module(X), zeta.jax.exo(X, 0.5))


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_every_formula_is_a_module(f):
    np.testing.assert_array_equal(FormulaModule(f)(X), getattr(zeta.jax, f.name)(X))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_vectors_and_groups_are_pytorchs(groups):
    """Half of the parameters learned, one value per group of channels: values and gradients."""
    options = {"learnable": "numerator", "num_parameters": groups, "channel_dim": -1}
    module, twin = FormulaModule(rational, **options), rational.module(**options)
    assert set(nnx.to_pure_dict(nnx.state(module, nnx.Param))) == {"numerator"}
    scales = jnp.linspace(0.5, 1.5, 6 * groups).reshape(module.numerator.shape)
    module.numerator[...] *= scales
    with torch.no_grad():
        twin.numerator *= torch.tensor(np.asarray(scales))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(module(x), twin(torch.tensor(x)).detach(), rtol=1e-4, atol=1e-5)
    gradients = nnx.grad(lambda module: module(x).sum())(module)
    twin(torch.tensor(x)).sum().backward()
    found = nnx.to_pure_dict(gradients)["numerator"]
    np.testing.assert_allclose(found, twin.numerator.grad, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected 3 channels .* of groups, a multiple"):
        FormulaModule(rational, num_parameters=3, channel_dim=-1)(x)


def test_values_given_to_laplaces_call_win():
    module = LaplaceActivation(learnable=True)
    for given in ({"mu": 0.1, "sigma": 0.7}, {"mu": 0.1}, {"sigma": jnp.float32(0.7)}):
        np.testing.assert_allclose(module(X, **given), zeta.jax.laplace(X, **given), rtol=1e-6)


def test_half_precision_has_the_inputs_dtype():
    module = LearnableSELUVariation(param_dtype=jnp.bfloat16)
    assert module.alpha.dtype == jnp.bfloat16
    assert module(X.astype(jnp.float16)).dtype == jnp.float16


def test_selu_softmax():
    np.testing.assert_array_equal(SELUSoftmax()(X), zeta.jax.selu_softmax(X, -1))
    np.testing.assert_array_equal(SELUSoftmax(dim=0)(X), zeta.jax.selu_softmax(X, 0))


def test_bad_input_is_named():
    module = Exo(learnable=True, num_parameters=3)
    message = r"Exo: expected 3 channels in dimension 1, got 4 \(input shape \(2, 4\)\)"
    with pytest.raises(ValueError, match=message):
        module(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"channel_dim=1 needs an input .* got shape \(3,\)"):
        module(jnp.ones(3))
    with pytest.raises(ValueError, match="num_parameters must be at least 1, got 0"):
        Exo(num_parameters=0)
    with pytest.raises(TypeError, match="exo: input must be a floating-point array"):
        Exo()(jnp.arange(3))
    with pytest.raises(TypeError, match="exo: input must be an array, got list"):
        module([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="'beta' is not a parameter"):
        FormulaModule(activations.exo, {"beta": 1.0})
    with pytest.raises(ValueError, match="modules have an attribute 'train' of their own"):
        FormulaModule(formula(train=1.0)(lambda x, train: train * x))
