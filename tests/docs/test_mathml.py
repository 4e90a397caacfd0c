"""Formulas in the site: MathML for all of the catalogue, and a font that has its letters."""

import pytest
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from fontTools.ttLib import TTFont

from cases import SHARE_OR_ALL, name
from mathml import CHARACTERS, FONT, _mathml


@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("formula", SHARE_OR_ALL, ids=name)
def test_the_catalogue_has_mathml(formula, derivative):
    text = tex2mathml(formula.latex(derivative=derivative), as_block=True)
    assert text.startswith("<math")
    assert not {c for c in text if c not in CHARACTERS}


def test_the_font_has_the_characters_and_mathematical_measures():
    font = TTFont(FONT)
    assert "MATH" in font
    missing = {c for c in CHARACTERS if c.isprintable() and ord(c) not in font.getBestCmap()}
    assert missing <= {chr(0x1D455), chr(0x3A2)}  # reserved; 𝑕 is written ℎ


def test_what_is_no_latex_is_a_warning(caplog):
    node = nodes.math_block("", r"\nonsense{x}")
    assert _mathml(node, block=True) == ""
