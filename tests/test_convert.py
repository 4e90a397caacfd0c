"""Weights travel between PyTorch, Flax and Keras, and the outputs with them."""

import jax.numpy as jnp
import keras
import numpy as np
import pytest
import torch
from flax import nnx

import zeta.flax
import zeta.keras
import zeta.nn
from cases import rational
from zeta import activations, convert

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

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
    "vectors": ("FormulaModule", {"formula": rational}, {"formula": rational}),
    "vectors per channel": (
        "FormulaModule",
        {"formula": rational, "num_parameters": 3, "channel_dim": -1},
        {"formula": rational, "shared_axes": [], "groups": 3},
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


def test_a_heads_formula_travels_with_what_it_learns():
    """Its parameters, by PyTorch's names; the formula itself is the constructor's."""
    sizes = (3, 5)
    softcap = activations.softcap
    heads = {
        "torch": zeta.nn.SoftmaxHead(*sizes, logits=softcap.module(learnable=True)),
        "flax": zeta.flax.SoftmaxHead(
            *sizes, logits=zeta.flax.FormulaModule(softcap, learnable=True), rngs=nnx.Rngs(0)
        ),
        "keras": zeta.keras.SoftmaxHead(
            *sizes, logits=zeta.keras.FormulaLayer("softcap", learnable=True)
        ),
    }
    heads["keras"].build(X.shape)
    convert.load_weights(heads["torch"], convert.weights(heads["torch"]) | {"logits.cap": 0.5})
    for source, target in (("torch", "keras"), ("keras", "flax")):
        convert.copy_weights(heads[source], heads[target])
    assert convert.weights(heads["flax"])["logits.cap"] == 0.5
    for framework in ("flax", "keras"):
        np.testing.assert_allclose(
            output(heads[framework]), output(heads["torch"]), rtol=1e-5, atol=1e-6
        )


def twins(case):
    """The same module in three frameworks, weights still their own."""
    cls, options, of_keras = CASES[case]
    rngs = {"rngs": nnx.Rngs(0)} if cls == "MixtureOfSoftmaxes" else {}
    channels = {k: v for k, v in options.items() if k not in ("num_parameters", "channel_dim")}
    keras_cls = {"FormulaModule": "FormulaLayer"}.get(cls, cls)
    layer = getattr(zeta.keras, keras_cls)(**channels | of_keras)
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


@pytest.mark.parametrize("framework", ["torch", "flax", "keras"])
def test_shapes_are_pytorchs_where_sizes_are_one(framework):
    one = {"num_mixtures": 1, "input_size": 1, "num_classes": 5}
    module = {
        "torch": lambda: zeta.nn.MixtureOfSoftmaxes(**one),
        "flax": lambda: zeta.flax.MixtureOfSoftmaxes(**one, rngs=nnx.Rngs(0)),
        "keras": lambda: zeta.keras.MixtureOfSoftmaxes(**one),
    }[framework]()
    if framework == "keras":
        module.build((None, 1))
    shapes = {name: array.shape for name, array in convert.weights(module).items()}
    expected = zeta.nn.MixtureOfSoftmaxes(**one).state_dict()
    assert shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}


def test_a_single_channel_is_one_number():
    layer = zeta.keras.Exo(0.5, learnable=True, shared_axes=[1, 2])
    layer.build((None, 4, 4, 1))
    target = zeta.nn.Exo(0.9, learnable=True)
    convert.copy_weights(layer, target)
    assert target.alpha.item() == 0.5
    convert.load_weights(target, {"alpha": 0.7})
    convert.copy_weights(target, layer)
    assert convert.weights(layer)["alpha"].item() == target.alpha.item()


@pytest.mark.parametrize("framework", ["torch", "flax", "keras"])
def test_what_is_answered_is_a_copy(framework):
    module = twins("shared")[framework]
    weights = convert.weights(module)
    before = weights["weight"].copy()
    weights["weight"][...] = 7
    np.testing.assert_array_equal(convert.weights(module)["weight"], before)


def test_float64_keeps_its_digits():
    module = zeta.nn.Exo(learnable=True, dtype=torch.float64)
    convert.load_weights(module, {"alpha": 0.1})
    assert module.alpha.item() == 0.1


class Derived(zeta.flax.Exo):
    pass


def test_derived_modules_are_known():
    assert convert.weights(Derived(0.5, learnable=True))["alpha"] == 0.5


@pytest.mark.parametrize(
    "other",
    [
        "exo",
        torch.nn.Linear(2, 3),
        torch.nn.Sequential(zeta.nn.Exo(learnable=True)),
        nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
        nnx.Sequential(zeta.flax.Exo(learnable=True)),
        keras.layers.Dense(3),
    ],
    ids=lambda other: type(other).__name__,
)
def test_other_modules_are_refused(other):
    with pytest.raises(TypeError, match="expected an activation or a softmax head of zeta"):
        convert.weights(other)


def test_a_layer_without_weights_yet_is_refused():
    with pytest.raises(ValueError, match="build the layer first"):
        convert.weights(zeta.keras.Exo(learnable=True))
