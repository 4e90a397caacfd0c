"""The pages of the catalogue: what they state is true, and a new formula has one."""

import math
import re

import pytest
import torch

import activation_pages
from activation_pages import (
    accuracy,
    example,
    facts,
    frameworks,
    gate_page,
    logit_page,
    number,
    page,
    pictures,
    source,
)
from cases import FORMULAS, LIMITS, SHARE, name
from zeta import formula
from zeta.activations import GATES, LOGITS, softcap
from zeta.math import sigmoid, sin


@formula(beta=1.5)
def newcomer(x, beta):
    """Nobody has a page for it. Source: this test."""
    return x * sigmoid(beta * x)


def rows(formula) -> dict[str, str]:
    """The table of facts."""
    cells = [line.split(" | ") for line in facts(formula).splitlines() if line.startswith("| ")]
    return {label.removeprefix("| "): text.removesuffix(" |") for label, text in cells}


@pytest.mark.parametrize("formula", SHARE, ids=name)
def test_limits(formula):
    found = rows(formula)
    ends = tuple(None if end is None else float(torch.tensor(end)) for end in LIMITS[formula.name])
    assert (found["from −∞"], found["to +∞"]) == tuple(map(number, ends))


@formula(alpha=0.5, learnable=True)
def bend(x, alpha):
    """A line, no |x|.

    Used by: two models, a library.
    Source: Doe 2020, Lines: `a` and |b|.
    """
    return alpha * x


def test_what_the_docstring_names_is_in_the_table_alone():
    found = rows(bend)
    assert found["used by"] == "two models, a library"
    assert found["source"] == r"Doe 2020, Lines: `a` and \|b\|"
    assert found["trained by modules"] == "`alpha`"
    assert (found["range"], found["monotone"], found["smooth"]) == ("(−∞, ∞)", "rising", "yes")
    head = activation_pages.logit_page(bend).partition("![")[0]
    assert r"A line, no \|x\|." in head  # |x| would be a substitution
    assert "Used by" not in head
    assert "Source" not in head


@pytest.mark.parametrize("formula", SHARE, ids=name)
def test_examples_run(formula):
    exec(example(formula), {})


def test_a_new_formula_has_a_page():
    text = page(newcomer)
    assert "\n# newcomer\n" in text
    assert r"\beta" in text
    assert "| from −∞ | 0 |" in text
    assert "newcomer-1-dark.svg" in text
    assert set(pictures(newcomer)) == {
        f"newcomer-{i}-{look}.svg" for i in (0, 1) for look in ("light", "dark")
    }


def test_pictures_are_the_same_at_every_build():
    assert pictures(newcomer) == pictures(newcomer)


def test_looks_differ_in_colours_alone():
    light, dark = (pictures(newcomer)[f"newcomer-1-{look}.svg"] for look in activation_pages.LOOKS)
    for one, other in activation_pages.TO_LIGHT.items():
        assert one in dark
        assert other in light
    assert len(light) == len(dark)


def test_of_many_parameters_some_are_drawn():
    @formula(weights=(0.5,) * 20)
    def series(x, weights):
        return sum(weight * x for weight in weights)

    assert len(pictures(series)) == 2 * activation_pages.MOST_PICTURES
    assert activation_pages.shapes(series).count("](images/") == len(pictures(series))


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

    found = rows(wave)
    assert found["from −∞"] == found["to +∞"] == "no limit"


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
    ("value", "text"),
    [
        *((-0.0, "0"), (-1.5, "−1.5"), (1.23456789, "1.23457")),
        *((math.inf, "+∞"), (-math.inf, "−∞"), (None, "no limit")),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize("gate", [GATES["swiglu"], GATES["swiglu_oai"]], ids=name)
def test_a_gates_page(gate):
    """Its snippet runs; both derivatives are there, and its pictures in both looks."""
    text = gate_page(gate)
    assert text.count("$$") == 6
    exec(text.rpartition("```python\n")[2].partition("```")[0], {})
    assert text.count("](images/") == len(pictures(gate)) == 2 * (3 + len(gate.parameters))
    assert all(f"images/{file}" in text for file in pictures(gate))
    assert "| cost | " in text


def test_the_page_of_a_formula_of_logits():
    text = logit_page(softcap)
    assert "| range | [−30, 30] |" in text
    exec(text.rpartition("```python\n")[2].partition("```")[0], {})


@pytest.mark.parametrize("formula", [*FORMULAS, *GATES.values(), *LOGITS.values()], ids=name)
def test_facts_of_all(formula):
    """Two cells a row, a bar in the text notwithstanding, and a number for the cost."""
    lines = [line for line in facts(formula).splitlines() if line.startswith("| ")][1:]
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)
    assert re.match(r"\d+\.\d times", rows(formula)["cost"])
