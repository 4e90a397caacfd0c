"""Model surgery on Flax NNX models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zeta
from zeta.flax import Exo, FormulaModule, LearnableSELUVariation

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

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


def test_a_partial_of_a_function():
    model = nnx.Sequential(functools.partial(nnx.gelu, approximate=False), nnx.gelu)
    former = model.layers[0]
    report = zeta.replace_activations(model, "gelu", Exo)
    assert [str(r.old) for r in report.replaced] == ["gelu", "gelu"]
    assert isinstance(model.layers[0], Exo)
    assert report.undo().layers[0] is former


def test_equals_a_model_built_so():
    linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    model = nnx.Sequential(linear, nnx.relu)
    report = zeta.replace_activations(model, "relu", "exo")
    np.testing.assert_array_equal(model(X), Exo()(linear(X)))
    assert str(report).splitlines()[1] == "  layers.1  relu → Exo(alpha)"
    assert "give example_inputs" in report.not_looked


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


class Calls(nnx.Module):
    """Activations called as functions, compiled or not; one is a module and so no such call."""

    def __init__(self):
        self.linear, self.act = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.silu
        self.dropout, self.norm = (
            nnx.Dropout(0.5, rngs=nnx.Rngs(1)),
            nnx.BatchNorm(3, rngs=nnx.Rngs(2)),
        )

    def __call__(self, x, scale=1.0):
        x = nnx.relu(self.norm(self.linear(scale * x)))
        x = self.dropout(self.act(x))
        return nnx.remat(lambda x: nnx.gelu(x) + jnp.tanh(x))(x) * jax.nn.sigmoid(x)


def state(model):
    leaves = jax.tree.leaves(nnx.state(model))
    return [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in leaves
    ]


def test_calls_of_functions_are_reported():
    nnx.relu(X)  # compiled here, not in the model
    model = Calls()
    before = state(model)
    report = zeta.replace_activations(model, "silu", Exo, example_inputs=X)
    assert [call.function for call in report.calls] == ["relu", "gelu", "tanh", "sigmoid"]
    callers = [call.module for call in report.calls]
    assert callers[0] == callers[3] == "Calls.__call__"
    assert all(call.line.startswith("test_flax.py:") for call in report.calls)
    assert not report.not_looked
    for a, b in zip(before, state(report.undo()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_keyword_inputs():
    inputs = {"x": X, "scale": 2.0}
    assert len(zeta.replace_activations(Calls(), "silu", Exo, example_inputs=inputs).calls) == 4


def fitted(f, g):
    """Least squares by another route: one column for the gain, one per channel for the shifts."""
    n, channels = g.shape
    columns = np.concatenate([g.T.reshape(-1, 1), np.kron(np.eye(channels), np.ones((n, 1)))], 1)
    gain, *shift = np.linalg.lstsq(columns, f.T.reshape(-1), rcond=None)[0]
    return gain, np.array(shift)


class Jitted(nnx.Module):
    def __init__(self):
        self.linear, self.act = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.relu

    @nnx.jit
    def __call__(self, x):
        return self.act(self.linear(x))


def test_gain_and_shifts_are_those_of_least_squares():
    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    model = Jitted()
    pre = model.linear(x)
    gain, shift = fitted(np.asarray(jax.nn.relu(pre)), np.asarray(Exo()(pre)))
    report = zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=x)
    assert report.replaced[0].gain == pytest.approx(gain, rel=1e-5)
    np.testing.assert_allclose(model(x), gain * Exo()(pre) + shift, rtol=1e-4, atol=1e-6)


def test_observed_in_evaluation_mode():
    linear, dropout = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.9, rngs=nnx.Rngs(1))
    gains = []
    for model in (nnx.Sequential(linear, nnx.relu), nnx.Sequential(linear, dropout, nnx.relu)):
        report = zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=X)
        gains.append(report.replaced[0].gain)
    assert gains[0]
    assert gains[0] == gains[1]
    assert not dropout.deterministic


def test_matched_to_the_normal_distribution_without_inputs():
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.relu)
    zeta.replace_activations(
        model, "relu", lambda: FormulaModule(zeta.activations.squared_relu), match_gain=True
    )
    # Cov(r, r²) = E[x³; x>0] - E[r]E[r²] and Var(r²) = E[x⁴; x>0] - E[r²]², with r = relu(x).
    gain = (2 / np.sqrt(2 * np.pi) - 0.5 / np.sqrt(2 * np.pi)) / (1.5 - 0.25)
    assert model.layers[1].gain.get_value() == pytest.approx(gain, rel=5e-3)


def test_matched_is_no_parameter_and_is_undone():
    model = Net()
    before = model(X)
    report = zeta.replace_activations(
        model, "relu", LearnableSELUVariation, match_gain=True, example_inputs=X
    )
    assert model.shared is model.several[0]
    assert not any(
        path[-1] in {"gain", "shift"}
        for path in nnx.to_flat_state(nnx.state(model, nnx.Param)).paths
    )
    assert all(replaced.gain for replaced in report.replaced)
    np.testing.assert_array_equal(report.undo()(X), before)


def test_a_place_that_the_inputs_do_not_reach():
    model = Net()
    model.unused = nnx.relu
    report = zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=X)
    assert report.not_called == ("unused",)
    assert [r.name for r in report.replaced if r.gain is None] == ["unused"]


def test_containers_that_nnx_takes_for_constants_are_left_alone():
    """Changing them would change other models that hold them, and defeat `nnx.jit`."""
    model = Net()
    shared = {"relu": nnx.relu, "list": [nnx.relu]}
    model.static = nnx.static(shared)
    report = zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=X)
    assert "static" not in str(report)
    assert shared == {"relu": nnx.relu, "list": [nnx.relu]}


@pytest.mark.parametrize("flag", [{"x": X, "train": False}, (X, False)])
def test_arguments_that_are_no_arrays(flag):
    class Flagged(Calls):
        def __call__(self, x, train):
            return super().__call__(x) if not train else x

    model = Flagged()
    report = zeta.replace_activations(model, "silu", Exo, match_gain=True, example_inputs=flag)
    assert len(report.calls) == 4
    assert report.replaced[0].gain


def test_a_model_that_jax_cannot_trace():
    class Branches(Calls):
        def __call__(self, x):
            return super().__call__(x) if x.sum() < 1e9 else x

    model = Branches()
    report = zeta.replace_activations(model, "silu", Exo, match_gain=True, example_inputs=X)
    assert report.not_looked.startswith("JAX cannot trace the model (TracerBool")
    assert report.replaced[0].gain


def test_stacked_layers_refuse_parameters_and_stay_as_they_were():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.act = nnx.Linear(3, 3, rngs=rngs), nnx.relu

        def __call__(self, x):
            return self.act(self.linear(x))

    class Stack(nnx.Module):
        def __init__(self):
            make = nnx.vmap(Block, in_axes=0, out_axes=0)
            self.blocks = make(nnx.Rngs(0).split(4))

        def __call__(self, x):
            return nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
                x, self.blocks
            )

    model = Stack()
    before = model(X)
    with pytest.raises(TypeError, match=r"nothing was changed .* nnx\.vmap has stacked"):
        zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=X)
    np.testing.assert_array_equal(model(X), before)
    zeta.replace_activations(model, "relu", Exo, example_inputs=X)
    assert not np.allclose(model(X), before)


def test_a_matched_activation_is_replaced_as_a_whole():
    model = Net()
    before = model(X)
    options = {"match_gain": True, "example_inputs": X}
    zeta.replace_activations(model, FormulaModule, "tanh", **options)
    report = zeta.replace_activations(model, "tanh", lambda: FormulaModule(zeta.activations.relu))
    assert [r.old for r in report.replaced] == ["FormulaModule(tanh)"] * 2
    np.testing.assert_array_equal(model(X), before)


def test_one_activation_at_two_widths_has_one_shift():
    class Bottleneck(nnx.Module):
        def __init__(self):
            self.act = FormulaModule(zeta.activations.relu)
            self.a, self.b = (nnx.Linear(n, m, rngs=nnx.Rngs(0)) for n, m in ((3, 8), (8, 1)))

        def __call__(self, x):
            return self.act(self.b(self.act(self.a(x))))

    model = Bottleneck()
    zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=X)
    assert model.act.shift.shape == ()
    assert model(X).shape == (2, 1)


@pytest.mark.parametrize("x", [np.full((2, 3), np.inf, "float32"), X[:1]])
def test_what_cannot_be_matched_is_said(x):
    report = zeta.replace_activations(Net(), "act", Exo, match_gain=True, example_inputs=x)
    assert report.not_matched == ("act",)
    assert "not matched" in str(report)


def test_errors():
    with pytest.raises(ValueError, match=r"it has: .*Linear ×2.*PReLU.*gelu"):
        zeta.replace_activations(Net(), "silu", Exo)
    with pytest.raises(ValueError, match=r"matches 'Gelu', .* Did you mean 'gelu' \(1 of these\)"):
        zeta.replace_activations(Net(), "Gelu", Exo)
    with pytest.raises(ValueError, match=r"glu halves the width"):
        zeta.replace_activations(nnx.Sequential(nnx.glu), "glu", Exo)
    with pytest.raises(TypeError, match=r"needs a formula of one input, and swiglu\(gate, value\)"):
        zeta.replace_activations(Net(), "relu", "swiglu")
    with pytest.raises(TypeError, match=r"replace_gates takes a torch.nn.Module, got Net: on Flax"):
        zeta.replace_gates(Net())
    with pytest.raises(TypeError, match=r"must make an nnx\.Module, not dict"):
        zeta.replace_activations(Net(), "relu", dict)
    with pytest.raises(TypeError, match="a class or function"):
        zeta.replace_activations(Net(), "relu", Exo())
    with pytest.raises(TypeError, match="without arguments failed"):
        zeta.replace_activations(Net(), "relu", nnx.Linear)
