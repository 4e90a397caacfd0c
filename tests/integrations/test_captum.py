"""captum's DeepLift: attributions add up to the difference of the outputs."""

import pytest
import torch
from captum.attr import DeepLift, DeepLiftShap
from captum.attr._core import deep_lift
from torch import nn

import zeta
from cases import SHARE
from zeta.integrations import register_captum
from zeta.integrations.pytorch import Matched
from zeta.nn import Exo, LaplaceActivation, LearnableSELUVariation

ACTIVATIONS = {f.name: lambda f=f: f.module(learnable=bool(f.parameters)) for f in SHARE}
ACTIVATIONS |= {k.__name__: k for k in (Exo, LearnableSELUVariation, LaplaceActivation)}
ACTIVATIONS["per channel"] = lambda: Exo(num_parameters=16, learnable=True)
ACTIVATIONS["matched"] = lambda: Matched(Exo(), torch.tensor(0.7), torch.tensor(0.2))


@pytest.fixture(autouse=True)
def _their_classes(monkeypatch):
    """Registration is global: every test starts with captum's own classes."""
    own = {k: v for k, v in deep_lift.SUPPORTED_NON_LINEAR.items() if "zeta" not in k.__module__}
    monkeypatch.setattr(deep_lift, "SUPPORTED_NON_LINEAR", own)


def convergence_delta(activation, method=DeepLift):
    """How far the attributions are from the difference of the outputs, over that difference."""
    layers = [nn.Linear(5, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 3)]
    model = nn.Sequential(*layers).double()
    x, baseline = torch.randn(2, 8, 5, dtype=torch.float64)
    x.requires_grad_()
    _, delta = method(model).attribute(x, baseline, target=1, return_convergence_delta=True)
    return delta.abs().max().item()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_attributions_add_up(name):
    before = convergence_delta(ACTIVATIONS[name])
    register_captum()
    torch.manual_seed(0)
    assert convergence_delta(ACTIVATIONS[name]) < 1e-12 < 1e-3 < before


def test_after_surgery_and_with_deep_lift_shap():
    register_captum()

    def replaced():
        return zeta.replace_activations(nn.ReLU(), "relu", "mish").model

    assert convergence_delta(replaced, DeepLiftShap) < 1e-12


def test_subclasses_are_registered_and_captums_own_rules_stay():
    class Mine(Exo):
        pass

    own = dict(deep_lift.SUPPORTED_NON_LINEAR)
    deep_lift.SUPPORTED_NON_LINEAR[LaplaceActivation] = deep_lift.softmax
    classes = register_captum()
    assert {zeta.nn.FormulaModule, Exo, Mine} <= set(classes)
    assert register_captum() == classes
    assert deep_lift.SUPPORTED_NON_LINEAR.items() >= own.items()
    assert deep_lift.SUPPORTED_NON_LINEAR[LaplaceActivation] is deep_lift.softmax
