"""The pages of the catalogue: what they state is true, and a new formula has one."""

import math

import pytest
import torch

import activation_pages
from activation_pages import (
    accuracy,
    example,
    frameworks,
    gate_page,
    index,
    limits,
    number,
    page,
    pictures,
    source,
)
from cases import FORMULAS, LIMITS, name
from zeta import formula
from zeta.activations import GATES
from zeta.math import sigmoid, sin


@formula(beta=1.5)
def newcomer(x, beta):
    """Nobody has a page for it. Source: this test."""
    return x * sigmoid(beta * x)


@pytest.mark.parametrize("formula", FORMULAS, ids=name)
def test_limits(formula):
    def text(value):
        return "no limit" if value is None else number(float(torch.tensor(value)))

    assert limits(formula) == tuple(map(text, LIMITS[formula.name]))


@pytest.mark.parametrize("formula", FORMULAS, ids=name)
def test_examples_run(formula):
    exec(example(formula), {})


def test_a_new_formula_has_a_page():
    text = page(newcomer)
    assert text.startswith("# newcomer\n")
    assert r"\beta" in text
    assert "| −∞ | 0 |" in text
    assert "newcomer-1-dark.svg" in text
    assert set(pictures(newcomer)) == {
        f"newcomer-{i}-{look}.svg" for i in (0, 1) for look in ("light", "dark")
    }


def test_pictures_are_the_same_at_every_build():
    assert pictures(newcomer) == pictures(newcomer)


def test_source_is_the_formula_without_its_docstring():
    assert source(newcomer).splitlines() == [
        "@formula(beta=1.5)",
        "def newcomer(x, beta):",
        "    return x * sigmoid(beta * x)",
    ]


def test_an_oscillation_has_no_limit():
    @formula
    def wave(x):
        return sin(x)

    assert limits(wave) == ("no limit", "no limit")


def test_frameworks_are_looked_up():
    exo, newcomers = (frameworks(f) for f in (FORMULAS[0], newcomer))
    assert "`zeta.ops.exo` | `zeta.nn.Exo`" in exo
    assert "`zeta.jax.exo` | `zeta.flax.Exo`" in exo
    assert "`zeta.keras.exo` | `zeta.keras.Exo`" in exo
    assert "zeta.jax" not in newcomers


def test_accuracy_sees_an_error(monkeypatch):
    """Of a formula that is off by 1e-5, 1e-5 / 2^-23 = 84 ulp or more."""
    truths = activation_pages.truths

    class Off:
        name = "tanh"

        def __call__(self, x):
            return torch.tanh(x) * (1 + 1e-5)

    tanh = next(f for f in FORMULAS if f.name == "tanh")
    monkeypatch.setattr(activation_pages, "truths", lambda _, dtype: truths(tanh, dtype))
    largest = float(accuracy(Off()).partition("10 ≤ x ≤ 10 | ")[2].split()[0])
    assert 84 <= largest < 200


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0, "0"), (-1.5, "−1.5"), (math.inf, "+∞"), (-math.inf, "−∞")]
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize("gate", GATES.values(), ids=name)
def test_a_gates_page(gate):
    """Its snippet runs; both derivatives are there, and its pictures in both looks."""
    text = gate_page(gate)
    assert text.count("$$") == 6
    exec(text.rpartition("```python\n")[2].partition("```")[0], {})
    assert text.count("](images/") == len(pictures(gate)) == 2 * (3 + len(gate.parameters))
    assert all(f"images/{file}" in text for file in pictures(gate))
    assert f"[{gate.name}]({gate.name}.md)" in index()
