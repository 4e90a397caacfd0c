"""Weights travel between PyTorch, Flax and Keras, and the outputs with them."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zeta.flax
import zeta.keras
import zeta.nn
from zeta import convert

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
CASES = {
    "exo": ("Exo", {"learnable": True}, {}),
    "selu variation": ("LearnableSELUVariation", {}, {}),
    "laplace": ("LaplaceActivation", {"learnable": True}, {}),
    "fixed": ("Exo", {"alpha": 0.5}, {}),
    "per channel": (
        "LearnableSELUVariation",
        {"num_parameters": 3, "channel_dim": -1},
        {"shared_axes": []},
    ),
    "separate": ("MixtureOfSoftmaxes", {"num_mixtures": 2, "input_size": 3, "num_classes": 5}, {}),
    "shared": (
        "MixtureOfSoftmaxes",
        {
            "num_mixtures": 2,
            "input_size": 3,
            "num_classes": 5,
            "decoder": "shared",
            "prior_bias": False,
        },
        {},
    ),
}


def twins(case):
    """The same module in three frameworks, weights still their own."""
    cls, options, of_keras = CASES[case]
    rngs = {"rngs": nnx.Rngs(0)} if cls == "MixtureOfSoftmaxes" else {}
    channels = {k: v for k, v in options.items() if k not in ("num_parameters", "channel_dim")}
    layer = getattr(zeta.keras, cls)(**channels, **of_keras)
    layer.build(X.shape)
    return {
        "torch": getattr(zeta.nn, cls)(**options),
        "flax": getattr(zeta.flax, cls)(**options, **rngs),
        "keras": layer,
    }


def output(module):
    if isinstance(module, torch.nn.Module):
        return module(torch.from_numpy(X)).detach().numpy()
    y = module(jnp.asarray(X)) if isinstance(module, nnx.Module) else module(X)
    return np.asarray(y)


@pytest.mark.parametrize("target", ["torch", "flax", "keras"])
@pytest.mark.parametrize("source", ["torch", "flax", "keras"])
@pytest.mark.parametrize("case", CASES)
def test_the_twin_computes_the_same(case, source, target):
    a, b = twins(case)[source], twins(case)[target]
    factors = np.random.default_rng(1)
    changed = {k: v * factors.uniform(0.5, 1.5, v.shape) for k, v in convert.weights(a).items()}
    convert.load_weights(a, {k: v.astype("float32") for k, v in changed.items()})
    convert.copy_weights(a, b)
    np.testing.assert_allclose(output(b), output(a), rtol=1e-5, atol=1e-6)
    kept, arrived = convert.weights(a), convert.weights(b)
    assert set(kept) == set(arrived)
    for key in kept:
        np.testing.assert_array_equal(arrived[key], kept[key])


def test_the_names_are_pytorchs():
    for case in CASES:
        modules = twins(case)
        names = set(modules["torch"].state_dict())
        assert all(set(convert.weights(m)) == names for m in modules.values())


@pytest.mark.parametrize("framework", ["torch", "flax", "keras"])
def test_weights_that_do_not_fit_are_named_and_nothing_is_set(framework):
    module = twins("separate")[framework]
    given = convert.weights(module)
    with pytest.raises(ValueError, match=r"MixtureOfSoftmaxes has the weights \['bias', 'prior"):
        convert.load_weights(module, {"weight": given["weight"]})
    changed = {k: v + 1 for k, v in given.items()} | {"weight": np.zeros((2, 4, 3), "float32")}
    with pytest.raises(ValueError, match=r"weight is kept with shape \(2, 5, 3\), got \(2, 4, 3\)"):
        convert.load_weights(module, changed)
    np.testing.assert_array_equal(convert.weights(module)["bias"], given["bias"])


def test_half_precision_travels():
    source = zeta.nn.Exo(0.7, learnable=True, dtype=torch.bfloat16)
    target = zeta.flax.Exo(learnable=True, param_dtype=jnp.bfloat16)
    convert.copy_weights(source, target)
    assert target.alpha[...].item() == source.alpha.item()


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match="expected a module of zeta"):
        convert.weights("exo")
    with pytest.raises(ValueError, match="build the layer first"):
        convert.weights(zeta.keras.Exo(learnable=True))
