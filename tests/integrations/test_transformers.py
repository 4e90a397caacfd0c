"""transformers: surgery on its models, and Zeta's activations by name in its configurations."""

import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)
from transformers import activations as theirs

import zeta
from zeta import activations

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TOKENS = torch.arange(24).reshape(2, 12)
NAMES = ["exo", "learnable_selu_variation", "laplace"]


def bert(**config):
    inputs = {"input_ids": TOKENS, "labels": torch.tensor([0, 1])}
    return BertForSequenceClassification(BertConfig(vocab_size=24, **SIZE, **config)), inputs


def vit(**config):
    inputs = {"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.tensor([0, 1])}
    settings = ViTConfig(image_size=16, patch_size=8, **SIZE, **config)
    return ViTForImageClassification(settings), inputs


def llama(**config):
    inputs = {"input_ids": TOKENS, "labels": TOKENS}
    settings = LlamaConfig(vocab_size=24, num_key_value_heads=2, **SIZE, **config)
    return LlamaForCausalLM(settings), inputs


MODELS = {  # what builds a model, the activation it has, and the places of those
    "bert": (bert, "gelu", "bert.encoder.layer.{}.intermediate.intermediate_act_fn"),
    "vit": (vit, "gelu", "vit.layers.{}.mlp.activation_fn"),
    "llama": (llama, "silu", "model.layers.{}.mlp.act_fn"),
}


@pytest.fixture(autouse=True)
def _their_names():
    """Registration is global: every test starts with their names and leaves them."""

    def restore():
        theirs.ACT2FN.clear()
        theirs.ACT2FN.update(theirs.ACT2CLS)

    restore()
    yield
    restore()


def train(model, inputs, steps=3):
    """The loss at every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def zeta_modules(model, name):
    modules = model.modules()
    return [m for m in modules if isinstance(m, zeta.nn.FormulaModule) and m.formula.name == name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_trains_after_surgery(kind, name):
    build, former, place = MODELS[kind]
    model, inputs = build()
    report = zeta.replace_activations(model, former, name, match_gain=True, example_inputs=inputs)
    assert [r.name for r in report.replaced] == [place.format(i) for i in range(2)]
    assert report.not_called == ()
    assert all(r.gain is not None for r in report.replaced)
    assert len(zeta_modules(model, name)) == 2
    losses = train(model, inputs)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_trains_from_a_configuration(kind, name):
    zeta.register_transformers()
    model, inputs = MODELS[kind][0](hidden_act=name)
    modules = zeta_modules(model, name)
    assert len(modules) == 2
    losses = train(model, inputs)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    if name == "learnable_selu_variation":
        first, second = (m.alpha.item() for m in modules)
        assert first != second  # parameters of their own, which learn


def test_a_model_with_such_a_name_is_saved_and_loaded(tmp_path):
    zeta.register_transformers()
    model, inputs = llama(hidden_act="learnable_selu_variation")
    train(model, inputs)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(model.eval()(TOKENS).logits, loaded(TOKENS).logits)


def test_every_name_of_the_catalogue_is_there_and_theirs_stay():
    before = dict(dict.items(theirs.ACT2FN))
    names = zeta.register_transformers()
    assert set(activations.CATALOGUE) <= set(theirs.ACT2FN)
    kept = (set(activations.CATALOGUE) & set(before)) - {"laplace"}
    assert set(names) == set(activations.CATALOGUE) - kept
    for name in set(before) - {"laplace"}:
        assert dict.get(theirs.ACT2FN, name) is before[name]
    x = torch.randn(9)
    for name in names:
        module = theirs.ACT2FN[name]
        assert module is not theirs.ACT2FN[name]
        torch.testing.assert_close(module(x), activations.get(name)(x))


def test_registering_again_changes_nothing():
    first = zeta.register_transformers()
    entries = dict(dict.items(theirs.ACT2FN))
    assert zeta.register_transformers() == first
    assert dict(dict.items(theirs.ACT2FN)) == entries


def test_theirs_are_taken_over_when_asked():
    names = zeta.register_transformers(replace=("gelu", "silu"))
    assert {"gelu", "silu"} <= set(names)
    assert theirs.ACT2FN["gelu"].formula is activations.gelu
    assert type(theirs.ACT2FN["laplace"]) is theirs.LaplaceActivation
    with pytest.raises(ValueError, match="did you mean 'gelu'"):
        zeta.register_transformers(replace=("gelo",))


def test_laplace_is_theirs_with_the_lower_tail_kept():
    x = torch.linspace(-6, 6, 60_001)
    ours, former = zeta.nn.LaplaceActivation()(x), theirs.ACT2FN["laplace"](x)
    # Theirs halves 1 + erf, rounded to a multiple of 2^-24 or 2^-23.
    assert (ours - former).abs().max() <= 2.0**-23
    upper = x >= 0.707107
    ulp = np.spacing(former[upper].numpy())
    assert (np.abs((ours - former)[upper].numpy()) / ulp).max() <= 2
    tail = torch.tensor([-1.0])
    exact = float(mpmath.ncdf((mpmath.mpf(-1) - mpmath.mpf(0.707107)) / mpmath.mpf(0.282095)))
    assert abs(zeta.nn.LaplaceActivation()(tail).item() / exact - 1) < 1e-5
    assert abs(theirs.ACT2FN["laplace"](tail).item() / exact - 1) > 0.5


FAMILIES = {  # every class of theirs that a name stands for
    "gelu": [
        *("gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_accurate", "quick_gelu"),
        *("gelu_pytorch_tanh", "gelu_python_tanh"),
    ],
    "silu": ["silu", "swish"],
    "mish": ["mish"],
    "squared_relu": ["relu2"],
    **{name: [name] for name in ("relu", "leaky_relu", "sigmoid", "tanh", "hardswish", "laplace")},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_name_finds_their_classes(name):
    model = nn.Sequential(*(theirs.ACT2FN[key] for key in FAMILIES[name]), nn.Linear(1, 1))
    report = zeta.replace_activations(model, name, "exo")
    assert len(report.replaced) == len(FAMILIES[name])
    with pytest.raises(ValueError, match="nothing in Sequential matches"):
        zeta.replace_activations(model, name, "exo")


def test_without_transformers_the_extra_is_named(clean_env):
    code = "import sys; sys.modules['transformers'] = None; import zeta; "
    run = subprocess.run(
        [sys.executable, "-c", code + "zeta.register_transformers()"],
        env=clean_env,
        capture_output=True,
        text=True,
    )
    assert "pip install 'zeta-nn[transformers]'" in run.stderr.splitlines()[-1]
