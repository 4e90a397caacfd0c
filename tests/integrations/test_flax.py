"""Model surgery on Flax NNX models."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zeta
from zeta.flax import Exo, FormulaModule, LearnableSELUVariation

X = np.linspace(-2, 2, 6, dtype="float32").reshape(2, 3)


class Net(nnx.Module):
    """Activations as modules and as functions, in attributes, lists and a Sequential."""

    def __init__(self, dtype=jnp.float32):
        kwargs = {"param_dtype": dtype, "rngs": nnx.Rngs(0)}
        self.linear = nnx.Linear(3, 3, **kwargs)
        self.act = nnx.relu
        self.shared = FormulaModule(zeta.activations.relu)
        self.several = nnx.List([self.shared, nnx.PReLU(param_dtype=dtype), nnx.relu])
        self.inner = nnx.Sequential(nnx.Linear(3, 3, **kwargs), nnx.gelu)

    def __call__(self, x):
        x = self.shared(self.act(self.linear(x)))
        for module in self.several:
            x = module(x)
        return self.inner(x)


def names(report):
    return [replaced.name for replaced in report.replaced]


SELECTIONS = {
    "name": ("relu", {"act", "shared", "several.0", "several.2"}),
    "type": (nnx.PReLU, {"several.1"}),
    "pattern": ("inner.*.1", {"inner.layers.1"}),
    "predicate": (lambda _, value: value is nnx.gelu, {"inner.layers.1"}),
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_selects_and_undoes(kind):
    what, expected = SELECTIONS[kind]
    model = Net()
    before = model(X)
    report = zeta.replace_activations(model, what, LearnableSELUVariation)
    assert set(names(report)) == expected
    assert not np.allclose(model(X), before)
    assert report.undo() is model
    np.testing.assert_array_equal(model(X), before)


def test_the_very_objects_come_back():
    model = Net()
    shared, function = model.shared, model.act
    zeta.replace_activations(model, "relu", Exo).undo()
    assert model.shared is model.several[0] is shared
    assert model.act is model.several[2] is function


def test_shared_stays_shared_and_functions_do_not():
    model = Net()
    zeta.replace_activations(model, "relu", lambda: Exo(learnable=True))
    assert model.shared is model.several[0]
    assert len({id(m) for m in (model.act, model.shared, model.several[2])}) == 3
    gradients = nnx.grad(lambda m: m(X).sum())(model)
    found = dict(nnx.to_flat_state(gradients))
    alphas = [v.get_value() for path, v in found.items() if path[-1] == "alpha"]
    assert len(alphas) == 3
    assert np.isfinite(alphas).all()


def test_the_dtype_of_the_model_around():
    model = Net(jnp.bfloat16)
    zeta.replace_activations(model, "act", LearnableSELUVariation)
    assert model.act.alpha.dtype == jnp.bfloat16


def test_equals_a_model_built_so():
    linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    model = nnx.Sequential(linear, nnx.relu)
    report = zeta.replace_activations(model, "relu", "exo")
    np.testing.assert_array_equal(model(X), Exo()(linear(X)))
    assert str(report).splitlines()[1] == "  layers.1  relu → Exo(alpha)"
    assert report.not_looked


def test_a_model_that_is_itself_the_activation():
    model = nnx.PReLU()
    report = zeta.replace_activations(model, nnx.PReLU, "exo")
    assert isinstance(report.model, Exo)
    assert report.undo() is model


def test_undo_in_the_wrong_order_is_refused():
    model = Net()
    first = zeta.replace_activations(model, "relu", Exo)
    zeta.replace_activations(model, Exo, "mish")
    with pytest.raises(RuntimeError, match="undo later ones first"):
        first.undo()


def test_errors():
    with pytest.raises(ValueError, match=r"it has: .*Linear ×2.*PReLU.*gelu"):
        zeta.replace_activations(Net(), "silu", Exo)
    with pytest.raises(TypeError, match=r"must make an nnx\.Module, not dict"):
        zeta.replace_activations(Net(), "relu", dict)
    with pytest.raises(TypeError, match="a class or function"):
        zeta.replace_activations(Net(), "relu", Exo())
    with pytest.raises(TypeError, match="for PyTorch models; this is one of flax"):
        zeta.replace_activations(Net(), "relu", Exo, match_gain=True)
