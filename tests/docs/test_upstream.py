"""docs/guides/upstream.md: every name of the documents is there, and what it became exists."""

import importlib
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "upstream.md"
ROWS = re.findall(r"^\| (`.+?) \| `(zeta[\w.]+)` \|", PAGE.read_text(), re.MULTILINE)
# The systems of the five documents, and what their readers call or load by name.
UPSTREAM = [
    "Exo",
    "LearnableSELUVariation",
    "LaplaceActivation",
    "selu_softmax",
    "MixtureOfSoftmaxes",
    "mixture_weights",
    "softmax_layers",
    "need_weights",
]


@pytest.mark.parametrize("name", UPSTREAM)
def test_every_upstream_name_is_mapped(name):
    assert any(name in upstream for upstream, _ in ROWS)


@pytest.mark.parametrize("path", sorted({ours for _, ours in ROWS}))
def test_what_it_became_exists(path):
    """A module's attributes may be those of its instances."""
    *package, kind, attribute = path.split(".")
    if package[-1:] == ["zeta"]:
        module = importlib.import_module(".".join([*package, kind]))
        assert attribute in module.__all__
        return
    module = importlib.import_module(".".join(package))
    arguments = (3, 4, 5) if kind == "MixtureOfSoftmaxes" else ()
    assert hasattr(getattr(module, kind)(*arguments), attribute)


def test_imports_of_the_documents():
    from zeta.nn import LaplaceActivation
    from zeta.ops import MixtureOfSoftmaxes, selu_softmax

    assert LaplaceActivation()(torch.zeros(3)).shape == (3,)
    assert MixtureOfSoftmaxes(3, 4, 5)(torch.zeros(2, 4)).shape == (2, 5)
    assert selu_softmax(torch.zeros(3)).sum() == 1


def test_a_part_of_an_upstream_state_dict_is_named():
    """Of two mixtures, one layer is missing: the error says so instead of loading what is there."""
    from zeta.nn import MixtureOfSoftmaxes

    layers = {
        f"softmax_layers.0.{kind}": torch.zeros(s) for kind, s in (("weight", (5, 4)), ("bias", 5))
    }
    prior = {"mixture_weights.weight": torch.zeros(2, 4), "mixture_weights.bias": torch.zeros(2)}
    with pytest.raises(RuntimeError, match=r"softmax_layers\.0\.weight"):
        MixtureOfSoftmaxes(2, 4, 5).load_state_dict(layers | prior)
