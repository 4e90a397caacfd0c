"""The activation modules: parameters fixed, learnable, per channel; state, dtype, errors."""

import copy
import inspect

import pytest
import torch
from torch import nn

from cases import FORMULAS, name
from zeta import activations, formula, ops
from zeta.nn import Exo, FormulaModule, LaplaceActivation, LearnableSELUVariation

MODULES = {
    Exo: ops.exo,
    LearnableSELUVariation: ops.learnable_selu_variation,
    LaplaceActivation: ops.laplace,
}


def make(cls, **options):
    if cls is LearnableSELUVariation:
        options.pop("learnable", None)
    return cls(**options)


@pytest.mark.parametrize("cls", MODULES)
def test_defaults_are_the_functions(cls):
    parameters = inspect.signature(cls).parameters
    expected = inspect.signature(MODULES[cls]).parameters
    for key in list(expected)[1:]:
        assert parameters[key].default == expected[key].default
        assert parameters[key].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    x = torch.randn(5, 3)
    torch.testing.assert_close(cls()(x), MODULES[cls](x))


def test_values_given_are_used():
    x = torch.randn(5, 3)
    torch.testing.assert_close(Exo(0.5)(x), ops.exo(x, 0.5))
    torch.testing.assert_close(LaplaceActivation(0.1, 0.7)(x), ops.laplace(x, 0.1, 0.7))
    values = (1.1, 1.2, 0.9, 0.3, 1.7)
    torch.testing.assert_close(
        LearnableSELUVariation(*values)(x), ops.learnable_selu_variation(x, *values)
    )


def test_fixed_parameters_are_not_in_the_state():
    """Upstream's Exo has an empty state dict; it loads."""
    assert not Exo().state_dict()
    assert not list(LaplaceActivation().parameters())
    Exo(0.5).load_state_dict({})


@pytest.mark.parametrize("cls", MODULES)
def test_learnable_parameters_are_named_and_exact(cls):
    module = make(cls, learnable=True)
    defaults = module.formula.parameters
    assert {k: p.item() for k, p in module.named_parameters()} == {
        k: torch.tensor(v).item() for k, v in defaults.items()
    }
    assert all(p.shape == () for p in module.parameters())
    x = torch.randn(5, 3)
    module(x).square().sum().backward()
    assert all(p.grad.isfinite() for p in module.parameters())
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1)
    module.reset_parameters()
    assert all(p.item() == torch.tensor(defaults[k]).item() for k, p in module.named_parameters())


@pytest.mark.parametrize("dim", [1, -1, 0, 2])
@pytest.mark.parametrize("cls", MODULES)
def test_per_channel(cls, dim):
    x = torch.randn(2, 3, 4)
    channels = x.shape[dim]
    module = make(cls, learnable=True, num_parameters=channels, channel_dim=dim)
    with torch.no_grad():
        for p in module.parameters():
            assert p.shape == (channels,)
            p.mul_(torch.linspace(0.8, 1.2, channels))
    y = module(x)
    for c in range(channels):
        values = {k: p[c].item() for k, p in module.named_parameters()}
        expected = MODULES[cls](x.select(dim, c), **values)
        torch.testing.assert_close(y.select(dim, c), expected)


def test_per_channel_without_learning_is_a_buffer():
    module = Exo(0.5, num_parameters=3)
    assert not list(module.parameters())
    assert module.alpha.tolist() == [0.5] * 3
    x = torch.randn(2, 3)
    torch.testing.assert_close(module(x), ops.exo(x, 0.5))


def test_wrong_channels_are_named():
    module = Exo(learnable=True, num_parameters=3)
    message = r"Exo: expected 3 channels in dimension 1, got 4 \(input shape \(2, 4\)\)"
    with pytest.raises(ValueError, match=message):
        module(torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"channel_dim=1 needs an input .* got shape \(3,\)"):
        module(torch.randn(3))
    with pytest.raises(ValueError, match="num_parameters must be at least 1, got 0"):
        Exo(num_parameters=0)
    with pytest.raises(TypeError, match="exo: input must be a floating-point tensor"):
        Exo()(torch.arange(3))


def test_values_given_to_laplaces_forward_win():
    x = torch.randn(5)
    module = LaplaceActivation(learnable=True)
    torch.testing.assert_close(module(x, 0.1, 0.7), ops.laplace(x, 0.1, 0.7))
    torch.testing.assert_close(module(x, mu=0.1), ops.laplace(x, mu=0.1))
    torch.testing.assert_close(module(x, sigma=torch.tensor(0.7)), ops.laplace(x, sigma=0.7))


@pytest.mark.parametrize("cls", MODULES)
def test_device_dtype_copies_and_state(cls):
    module = make(cls, learnable=True, dtype=torch.float64)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    meta = make(cls, learnable=True, device="meta")
    assert all(p.is_meta for p in meta.parameters())
    meta.to_empty(device="cpu").reset_parameters()
    x = torch.randn(4)
    torch.testing.assert_close(meta(x), MODULES[cls](x))
    twin = make(cls, learnable=True)
    twin.load_state_dict(module.state_dict())
    assert copy.deepcopy(module)(x).equal(module(x))
    assert module.half()(x.half()).dtype == torch.float16


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_every_formula_is_a_module(f):
    x = torch.randn(2, 3)
    module = f.module()
    assert isinstance(module, nn.Module)
    torch.testing.assert_close(module(x), f(x))
    learnable = f.module(learnable=True, num_parameters=3)
    assert [k for k, _ in learnable.named_parameters()] == list(f.parameters)
    torch.testing.assert_close(learnable(x), f(x))
    assert f.name in repr(module)


def test_repr_says_what_matters():
    module = Exo(0.5)
    assert repr(module) == "Exo(alpha=0.5)"
    module.alpha = 0.7
    assert repr(module) == "Exo(alpha=0.7)"
    per_channel = LaplaceActivation(learnable=True, num_parameters=4)
    expected = "mu=0.707107, sigma=0.282095, learnable=True, num_parameters=4, channel_dim=1"
    assert per_channel.extra_repr() == expected
    assert repr(FormulaModule(activations.mish)) == "FormulaModule(mish)"


def test_unknown_values_are_refused():
    with pytest.raises(TypeError, match="'beta' is not a parameter"):
        FormulaModule(activations.exo, {"beta": 1.0})


def test_parameters_that_a_module_has_already_are_refused():
    clash = formula(type=1.0)(lambda x, type: type * x)
    with pytest.raises(ValueError, match="modules have an attribute 'type' of their own"):
        clash.module()


def test_it_trains_under_autocast():
    net = nn.Sequential(nn.Linear(4, 8), LearnableSELUVariation(), nn.Linear(8, 1))
    with torch.autocast("cpu", torch.bfloat16):
        y = net(torch.randn(16, 4))
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
