"""f′ against mpmath, and the pictures."""

from pathlib import Path

import mpmath
import numpy as np
import pytest

from zeta._errors import UserError
from zeta._formula import Formula
from zeta.activations import CATALOGUE, exo, laplace, learnable_selu_variation
from zeta.plot import derivative, draw, plot


@pytest.mark.parametrize("formula", CATALOGUE.values(), ids=CATALOGUE)
def test_derivative_is_that_of_the_reference(formula: Formula) -> None:
    x = np.array([-4.7, -1.3, -0.2, 0.4, 1.9, 4.1])
    values = {name: value * 1.1 for name, value in formula.parameters.items()}
    expected = [float(mpmath.diff(lambda t: formula.reference(t, **values), p)) for p in x]
    np.testing.assert_allclose(derivative(formula)(x, **values), expected, rtol=1e-9, atol=1e-12)


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
