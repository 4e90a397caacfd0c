"""Formulas that users register: what the catalogue's have, they have under their name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zeta
from zeta import activations, formula
from zeta._errors import UnknownNameError
from zeta.math import sigmoid

pytestmark = pytest.mark.usefixtures("catalogue_as_before")


def made(name, parameter=1.0, inputs=1):
    """A formula of that name that was made in this module."""
    if inputs == 2:
        found = lambda gate, value: sigmoid(gate) * value
        found.__name__ = name
        return formula(found)
    found = lambda x, beta: x * sigmoid(beta * x)
    found.__name__ = name
    return formula(beta=parameter)(found)


def test_a_registered_formula_is_found_by_its_name():
    swoosh = activations.register(made("swoosh"))
    assert activations.get("swoosh") is activations.swoosh is swoosh
    assert activations.CATALOGUE["swoosh"] is activations.FAMILIES["elementwise"]["swoosh"]
    assert {"swoosh", "exo"} <= {*activations.__all__} & {*dir(activations)}
    assert activations.register(swoosh) is swoosh, "a second time changes nothing"
    with pytest.raises(AttributeError, match="no attribute 'swosh'"):
        _ = activations.swosh
    with pytest.raises(UnknownNameError, match="did you mean 'swoosh'"):
        activations.get("swosh")


def test_the_family_follows_from_the_formula():
    learned = formula(beta=1.0, learnable=True)(made("learned").function)
    gate, logits = made("a_gate", inputs=2), made("for_logits")
    assert [activations.family(f) for f in (learned, gate, logits)] == [
        *("learnable", "gated", "elementwise")
    ]
    for f in (learned, gate):
        activations.register(f)
    activations.register(logits, family="logits")
    assert learned.name in activations.CATALOGUE
    assert activations.GATES["a_gate"] is gate
    assert activations.LOGITS["for_logits"] is logits
    assert "for_logits" not in activations.CATALOGUE
    assert activations.family(logits) == "logits"


def test_a_cell_run_again_replaces_what_it_registered_before():
    activations.register(made("swoosh"))
    again = activations.register(made("swoosh", 2.0))
    assert activations.swoosh is again
    other = made("swoosh")
    other.function.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="'swoosh' is taken"):
        activations.register(other)


def test_what_cannot_be_registered_says_why():
    with pytest.raises(ValueError, match="the name 'gelu' is taken by gelu"):
        activations.register(made("gelu"))
    with pytest.raises(ValueError, match="the name 'swiglu' is taken"):
        activations.register(made("swiglu", inputs=2))
    with pytest.raises(TypeError, match="register takes a formula"):
        activations.register(lambda x: x)
    with pytest.raises(TypeError, match="takes 2 inputs, and cannot be logits"):
        activations.register(made("a_gate", inputs=2), family="logits")
    with pytest.raises(ValueError, match="family must be one of elementwise, learnable, gated"):
        activations.register(made("swoosh"), family="smooth")
    with pytest.raises(TypeError, match="one input or two"):
        activations.register(formula(lambda a, b, c: a * b * c))
    assert "swoosh" not in activations.CATALOGUE


def test_the_frameworks_have_it_too():
    import keras

    import zeta.jax
    import zeta.keras
    from zeta.integrations import act_layer

    zeta.register_transformers()
    swoosh = activations.register(made("swoosh"))
    x = torch.linspace(-3, 3, 7)
    expected = pytest.approx(swoosh(x).tolist())
    assert zeta.jax.swoosh is zeta.jax.swoosh
    assert zeta.jax.swoosh(x.numpy()).tolist() == expected
    y = zeta.keras.swoosh(keras.ops.convert_to_tensor(x.numpy()))
    assert keras.ops.convert_to_numpy(y).tolist() == expected
    from transformers.activations import ACT2FN

    for make in (lambda: ACT2FN["swoosh"], act_layer("swoosh")):
        assert make()(x).tolist() == expected
    report = zeta.replace_activations(torch.nn.Sequential(swoosh.module()), "swoosh", "relu")
    assert len(report.replaced) == 1
    again = activations.register(made("swoosh", 2.0))
    assert ACT2FN["swoosh"](x).tolist() == again(x).tolist() != swoosh(x).tolist()


MODULE = """
from zeta import activations, formula
from zeta.math import sigmoid


@formula(beta=0.5, learnable=True)
def swoosh(x, beta):
    \"\"\"Ours. Source: this test, 2026.\"\"\"
    return x * sigmoid(beta * x)
"""
ENTRY_POINTS = """
[zeta.formulas]
swoosh = swooshing:swoosh
broken = swooshing:missing
"""
SAVE = """
import keras
import torch
from transformers import BertConfig, BertModel

import zeta
import zeta.keras

x = keras.ops.linspace(-3.0, 3.0, 12)[None]
model = keras.Sequential(
    [
        keras.Input((12,)),
        keras.layers.Dense(4, activation=zeta.keras.swoosh),
        zeta.keras.FormulaLayer("swoosh"),
    ]
)
model.save("model.keras")
print(keras.ops.convert_to_numpy(model(x)).tolist())

zeta.register_transformers()
config = BertConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9,
    hidden_act="swoosh",
)
bert = BertModel(config).eval()
bert.save_pretrained("bert")
print(bert(torch.arange(5)[None]).last_hidden_state.tolist())
"""
LOAD = """
import keras
import torch
from transformers import BertModel

import zeta
import zeta.keras

model = keras.models.load_model("model.keras")
print(keras.ops.convert_to_numpy(model(keras.ops.linspace(-3.0, 3.0, 12)[None])).tolist())
zeta.register_transformers()
bert = BertModel.from_pretrained("bert").eval()
assert any(type(m).__name__ == "FormulaModule" for m in bert.modules())
print(bert(torch.arange(5)[None]).last_hidden_state.tolist())
"""


@pytest.fixture
def package(tmp_path) -> dict[str, str]:
    """The environment of a process for which a package with formulas is installed."""
    site = tmp_path / "site"
    (site / "swooshing-1.0.dist-info").mkdir(parents=True)
    (site / "swooshing.py").write_text(MODULE)
    about = site / "swooshing-1.0.dist-info"
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: swooshing\nVersion: 1.0\n")
    paths = [str(site), str(Path(zeta.__file__).parents[1])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "KERAS_BACKEND": "torch"}


def run(code, package, tmp_path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *code], env=package, cwd=tmp_path, check=True,
                          capture_output=True, text=True)  # fmt: skip


def test_an_installed_package_brings_its_formulas(package, tmp_path):
    code = "from zeta import activations; print(activations.swoosh(1.0), activations.get('swoosh'))"
    found = run(["-c", code], package, tmp_path)
    assert found.stdout == "0.6224593312018546 swoosh(x, beta=0.5)\n"
    assert "zeta.formulas: 'swooshing:missing' of swooshing is left out" in found.stderr
    listed = run(["-m", "zeta.cli", "list", "--family", "learnable"], package, tmp_path)
    assert "swoosh" in listed.stdout
    assert "2026" in listed.stdout


def test_saved_models_of_a_registered_formula_load_in_a_fresh_process(package, tmp_path):
    saved = run(["-c", SAVE], package, tmp_path)
    loaded = run(["-c", LOAD], package, tmp_path)
    assert saved.stdout == loaded.stdout
