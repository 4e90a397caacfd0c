"""Starting values are set once: what was loaded or trained is never set anew."""

import copy
import inspect

import pytest
import torch
from torch import nn

from zeta.nn import Exo, MixtureOfSoftmaxes

MAKE = [lambda: Exo(3.0, learnable=True), lambda: MixtureOfSoftmaxes(2, 3, 5, decoder="shared")]


def look_at_everything(module: nn.Module) -> None:
    """What tracers and inspectors do: read all that a module has."""
    for part in module.modules():
        inspect.getmembers(part)


@pytest.mark.parametrize("make", MAKE, ids=["exo", "mixture"])
@pytest.mark.parametrize("assign", [True, False])
def test_who_looks_at_a_loaded_module_changes_nothing(make, assign):
    loaded = {name: torch.full_like(p, 7.0) for name, p in make().state_dict().items()}
    with torch.device("meta"):
        module = make()
    if not assign:
        module.to_empty(device="cpu")
    module.load_state_dict(loaded, assign=assign)
    for kept in (module, copy.deepcopy(module)):
        look_at_everything(kept)
        assert all((p == 7).all() for p in kept.parameters())


@pytest.mark.parametrize("make", MAKE, ids=["exo", "mixture"])
def test_who_looks_at_a_trained_module_changes_nothing(make):
    """Its memory was given past its own methods, as accelerate does."""
    with torch.device("meta"):
        module = make()
    for part in module.modules():
        for name, p in part._parameters.items():
            part._parameters[name] = nn.Parameter(torch.full_like(p, 7.0, device="cpu"))
    look_at_everything(module)
    assert all((p == 7).all() for p in module.parameters())
