"""docs/guides/upstream.md: every name of the documents is there, and what it became exists."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx

from zeta import nn, ops

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


X = torch.linspace(-3, 3, 7)
GATE = torch.sigmoid(X)
VARIATION = 1.0507 * torch.where(X > 0, X, 1.67326 * X.expm1() + 0.1 * torch.sin(2.0 * X))
LAPLACE = 0.5 * (1 + torch.erf((X - 0.5) / (0.3 * 2**0.5)))
SELU_SOFTMAX = F.softmax(F.selu(X), dim=0)
# What the documents define, by the name that each gives its argument, and the numbers.
CALLS = {
    "Exo": (nn.Exo(), {"x": X}, GATE * X + (1 - GATE) * torch.tanh(X)),
    "LearnableSELUVariation": (nn.LearnableSELUVariation(), {"inputs": X}, VARIATION),
    "LaplaceActivation": (nn.LaplaceActivation(), {"input": X, "mu": 0.5, "sigma": 0.3}, LAPLACE),
    "selu_softmax": (ops.selu_softmax, {"x": X}, SELU_SOFTMAX),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_the_documents(name):
    """By position, by the documents' keyword and by Zeta's; not by both."""
    function, arguments, expected = CALLS[name]
    key, *others = arguments
    rest = {other: arguments[other] for other in others}
    for y in (function(X, **rest), function(**arguments), function(input=X, **rest)):
        torch.testing.assert_close(y, expected)
    if key != "input":
        with pytest.raises(TypeError, match="multiple values"):
            function(input=X, **arguments)
    with pytest.raises(TypeError, match="multiple values"):
        function(X, **arguments)
    with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
        function(y=X)


@pytest.mark.parametrize("name", ["Exo", "LearnableSELUVariation", "selu_softmax"])
def test_the_documents_keyword_is_compiled_and_exported(name):
    """And the name of a graph's input stays."""
    function, arguments, expected = CALLS[name]
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**arguments), expected)
    if isinstance(function, torch.nn.Module):
        exported = torch.export.export(function, (X,))
        assert "input" in exported.graph_signature.user_inputs
        torch.testing.assert_close(exported.module()(X), expected)
        torch.testing.assert_close(fx.symbolic_trace(function)(X), expected)


def test_mixture_of_softmaxes_by_keywords():
    mos = ops.MixtureOfSoftmaxes(num_mixtures=3, input_size=4, num_classes=5)
    assert mos(x=torch.zeros(2, 4)).shape == (2, 5)
    output, weights = mos(x=torch.zeros(2, 4), need_weights=True)
    assert (output.shape, weights.shape) == ((2, 5), (2, 3))


@pytest.mark.parametrize("framework", ["flax", "keras"])
def test_the_variation_of_jax_and_tensorflow(framework):
    activation = importlib.import_module(f"zeta.{framework}").LearnableSELUVariation()
    for y in (activation(X.numpy()), activation(inputs=X.numpy())):
        np.testing.assert_allclose(np.asarray(y), VARIATION, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("framework", ["jax", "keras"])
def test_selu_softmax_of_the_other_frameworks(framework):
    function = importlib.import_module(f"zeta.{framework}").selu_softmax
    np.testing.assert_allclose(np.asarray(function(x=X.numpy())), SELU_SOFTMAX, rtol=1e-5)


def test_a_part_of_an_upstream_state_dict_is_named():
    """Of two mixtures, one layer is missing: the error says so instead of loading what is there."""
    from zeta.nn import MixtureOfSoftmaxes

    layers = {
        f"softmax_layers.0.{kind}": torch.zeros(s) for kind, s in (("weight", (5, 4)), ("bias", 5))
    }
    prior = {"mixture_weights.weight": torch.zeros(2, 4), "mixture_weights.bias": torch.zeros(2)}
    with pytest.raises(RuntimeError, match=r"softmax_layers\.0\.weight"):
        MixtureOfSoftmaxes(2, 4, 5).load_state_dict(layers | prior)
