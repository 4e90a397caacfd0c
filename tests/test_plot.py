"""Derivatives against mpmath, and the pictures."""

from pathlib import Path

import mpmath
import numpy as np
import pytest

from cases import SHARE_OR_ALL, name, surrogates
from zeta import formula
from zeta._errors import UserError
from zeta._formula import Formula
from zeta.activations import (
    GATES,
    exo,
    laplace,
    learnable_selu_variation,
    swiglu,
    swiglu_oai,
)
from zeta.plot import derivative, draw, plot


@pytest.mark.parametrize("formula", SHARE_OR_ALL, ids=name)
def test_derivative_is_that_of_the_reference(formula: Formula) -> None:
    x = np.array([-4.7, -1.3, -0.2, 0.4, 1.9, 4.1])
    values = formula.grouped({n: v * 1.1 for n, v in formula.flat(formula.parameters).items()})
    with surrogates():
        expected = [float(mpmath.diff(lambda t: formula.reference(t, **values), p)) for p in x]
    np.testing.assert_allclose(derivative(formula)(x, **values), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("by", ["gate", "value"])
@pytest.mark.parametrize("formula", GATES.values(), ids=GATES)
def test_a_gates_derivatives_are_those_of_the_reference(formula: Formula, by: str) -> None:
    gate, value = np.array([-4.7, -1.3, -0.2, 0.4, 1.9, 4.1, 8.6, 12.1]), np.linspace(-13.1, 14, 8)
    numbers = {name: number * 1.1 for name, number in formula.parameters.items()}
    order = (1, 0) if by == "gate" else (0, 1)
    expected = [
        float(mpmath.diff(lambda *at: formula.reference(*at, **numbers), point, order))
        for point in zip(gate, value, strict=True)
    ]
    found = derivative(formula, by)(gate, value, **numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_gate_is_drawn_over_its_gate_for_some_values() -> None:
    figure = draw([exo, swiglu_oai])
    *_, f, by_gate, by_value, limit, _alpha = figure.axes
    assert [axis.get_title().partition(":")[2] for axis in (by_gate, by_value)] == [
        " ∂f/∂gate",
        " ∂f/∂value",
    ]
    assert limit.get_title().startswith("swiglu_oai: limit varied, value = 2")
    assert {axis.get_xlabel() for axis in (f, by_gate, by_value)} == {"gate"}
    for axis, function in (
        (f, swiglu_oai),
        (by_gate, derivative(swiglu_oai, "gate")),
        (by_value, derivative(swiglu_oai, "value")),
    ):
        lines = axis.get_lines()[:3]
        assert [line.get_label() for line in lines] == ["value = -1", "value = 0.5", "value = 2"]
        for line, value in zip(lines, (-1.0, 0.5, 2.0), strict=True):
            gate = np.asarray(line.get_xdata())
            np.testing.assert_array_equal(
                line.get_ydata(), function(gate, np.full_like(gate, value))
            )


def test_what_cannot_be_drawn_is_named() -> None:
    @formula
    def blend(a, b, c):  # type: ignore[no-untyped-def]
        return a * b + c

    with pytest.raises(
        UserError, match=r"blend\(a, b, c\) takes 3 inputs, and a plot shows one or"
    ):
        draw([blend])
    with pytest.raises(
        UserError, match=r"swiglu\(gate, value\) has no input 'x'; it has gate, val"
    ):
        derivative(swiglu, "x")


def test_one_panel_for_the_formula_and_one_per_parameter() -> None:
    figure = draw([exo, learnable_selu_variation])
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == (1 + 1) + (1 + 5)
    assert titles[0].startswith("exo(")
    assert "omega varied" in titles[-1]
    curves = figure.axes[1].get_lines()
    assert len({line.get_ydata()[0] for line in curves[:6]}) == 6, "every curve is another"


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_suffix_decides_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    plot([laplace], tmp_path / f"f.{suffix}")
    assert (tmp_path / f"f.{suffix}").read_bytes().startswith(start)


def test_unknown_suffix_and_unwritable_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the suffix must be one of .*png"):
        plot([exo], tmp_path / "f.word")
    with pytest.raises(UserError, match="cannot write"):
        plot([exo], tmp_path / "none" / "f.png")
