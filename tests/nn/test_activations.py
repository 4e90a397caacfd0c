"""The activation modules: parameters fixed, learnable, per channel; state, dtype, errors."""

import copy
import inspect

import pytest
import torch
from torch import nn

from cases import SHARE, name, rational
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


@pytest.mark.parametrize(
    ("learnable", "names"),
    [(True, ["mu", "sigma"]), (False, []), (None, []), ("mu", ["mu"]), (["sigma"], ["sigma"])],
)
@pytest.mark.parametrize("make", [activations.laplace.module, LaplaceActivation])
def test_each_parameter_is_learned_or_not(make, learnable, names):
    module = make(learnable=learnable, num_parameters={"mu": 3})
    assert [name for name, _ in module.named_parameters()] == names
    assert module.learnable == (tuple(names) if len(names) == 1 else bool(names))
    x = torch.randn(2, 3)
    torch.testing.assert_close(module(x), ops.laplace(x))
    assert module.mu.shape == (3,)
    assert torch.is_tensor(module.sigma) == ("sigma" in names)


def test_a_formula_says_which_are_learned_by_default():
    half = formula(alpha=1.0, beta=0.5, learnable=("beta",))(
        lambda x, alpha, beta: alpha * x + beta
    )
    assert [name for name, _ in half.module().named_parameters()] == ["beta"]
    assert not list(half.module(learnable=False).parameters())
    assert "learnable=('beta',)" in repr(half.module())
    assert activations.learnable_selu_variation.module().learnable is True
    assert FormulaModule(rational).learnable is True


@pytest.mark.parametrize("f", [activations.laplace, rational], ids=lambda f: f.name)
@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("dim", [1, -1])
def test_groups_of_channels_share_values(f, groups, dim):
    """As one module per group of neighbouring channels has it, gradients too."""
    module = f.module(learnable=True, num_parameters=groups, channel_dim=dim)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.rand(parameter.shape) / 10
    x = torch.randn(2, 6, 4).movedim(1, dim)
    upstream = torch.randn_like(x)
    y = module(x)
    found = torch.autograd.grad(y, [*module.parameters()], upstream)
    parts = zip(x.chunk(groups, dim), upstream.chunk(groups, dim), strict=True)
    for g, (part, above) in enumerate(parts):
        values = [p.detach().view(-1, groups)[:, g] for p in module.parameters()]
        shapes = [(-1,) if name in f.vectors else () for name in f.parameters]
        values = [v.reshape(s).requires_grad_() for v, s in zip(values, shapes, strict=True)]
        expected = f(part, *values)
        torch.testing.assert_close(y.chunk(groups, dim)[g], expected)
        for whole, gradient in zip(
            found, torch.autograd.grad(expected, values, above), strict=True
        ):
            torch.testing.assert_close(whole.view(-1, groups)[:, g], gradient.view(-1))


def test_what_does_not_fit_the_parameters_is_named():
    laplace = activations.laplace
    for make, error, message in (
        (lambda: laplace.module("nu"), TypeError, "learnable='nu' is not a parameter; it has mu, "),
        (lambda: laplace.module(num_parameters={"nu": 2}), TypeError, "num_parameters has 'nu'"),
        (lambda: laplace.module(num_parameters={"mu": 0}), ValueError, "at least 1, got 0"),
        (lambda: FormulaModule(laplace, shape=(2,)), ValueError, r"shape must be \(\) or \(1,\)"),
        (lambda: FormulaModule(rational, {"numerator": (1.0,)}), ValueError, "length 6, got 1"),
    ):
        with pytest.raises(error, match=message):
            make()
    with pytest.raises(ValueError, match=r"expected 4 channels .* of groups, a multiple of them"):
        laplace.module(num_parameters=4)(torch.randn(2, 6))


def test_vectors_start_exactly_and_keep_what_was_loaded():
    module = FormulaModule(rational, num_parameters=2, device="meta")
    module.to_empty(device="cpu").reset_parameters()
    assert module.numerator.shape == (6, 2)
    for parameter, numbers in rational.parameters.items():
        expected = torch.tensor(numbers)[:, None].expand(-1, 2)
        assert torch.equal(getattr(module, parameter), expected)
    with torch.no_grad():
        module.numerator += 1
    module.numerator._is_hf_initialized = True  # as transformers marks what it has loaded
    module.reset_parameters()
    assert module.numerator[0, 0] == torch.tensor(rational.parameters["numerator"][0]) + 1
    twin = copy.deepcopy(FormulaModule(rational, num_parameters=2))
    twin.load_state_dict(module.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(twin(x), module(x))


def test_a_scalar_may_have_shape_1():
    """FSDP2 shards no 0-d parameter."""
    module = Exo(0.7, learnable=True, shape=(1,))
    assert module.alpha.shape == (1,)
    assert LearnableSELUVariation(shape=(1,), num_parameters={"alpha": 3}).omega.shape == (1,)
    x = torch.randn(5, requires_grad=True)
    torch.testing.assert_close(module(x), Exo(0.7)(x))
    module(x).sum().backward()
    assert module.alpha.grad.shape == (1,)


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


@pytest.mark.parametrize("f", SHARE, ids=name)
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
