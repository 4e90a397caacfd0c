"""The gallery: a card and a row for every formula, whose flags and pictures are right."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import gallery
from cases import SHARE, name
from zeta import formula
from zeta.activations import FAMILIES, exo, gelu, get, relu, sigmoid, swiglu, tanh
from zeta.math import cos, exp


@pytest.fixture(scope="module")
def index():
    """The page, whose facts of every formula take seconds."""
    return gallery.index()


class Tags(HTMLParser):
    """Complains of tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("input", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def points(path):
    """The corners of a path, back in x and heights from the top."""
    corners = [pair.split() for pair in path.removeprefix("M").split("L")]
    return np.array(corners, dtype=float).T


def paths(formula):
    return dict(re.findall(r'<path(?: class="(\w+)")? d="([^"]+)"', gallery.picture(formula)))


def test_every_formula_has_a_card_and_a_row(index):
    names = re.findall(r'<li class="card" data-name="(\w+)" data-family="(\w+)"', index)
    assert names == [(name, family) for family, members in FAMILIES.items() for name in members]
    assert re.findall(r'<tr data-name="(\w+)"', index) == [name for name, _ in names]
    assert f"\n{len(names)} formulas" in index


def test_html_is_well_formed(index):
    blocks = re.findall(r"```{raw} html\n(.*?)```", index, re.DOTALL)
    assert blocks
    for block in blocks:
        assert "\n\n" not in block
        tags = Tags()
        tags.feed(block)
        assert tags.open == []


@pytest.mark.parametrize(
    ("formula", "flags"),
    [
        (exo, "smooth"),
        (relu, "monotone"),
        (sigmoid, "monotone bounded smooth"),
        (tanh, "monotone bounded smooth zero-centred"),
        (get("learnable_selu_variation"), "learnable"),
        (swiglu, ""),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_flags(formula, flags):
    assert list(gallery.flags(formula)) == flags.split()


def test_a_card_has_one_sentence_and_escapes():
    @formula
    def tricky(x):
        """Where x < 0 & `y`. Another sentence, e.g. this.

        Used by: A & B.
        Source: Doe 2020.
        """
        return x

    card = gallery.card(tricky)
    assert "<p>Where x &lt; 0 &amp; <code>y</code>.</p>" in card
    assert "2020 · used by A &amp; B</p>" in card


@pytest.mark.parametrize("formula", [*SHARE, swiglu], ids=name)
def test_pictures_are_the_formula(formula):
    """Between its corners too, to a fiftieth of the height, which is half a pixel or so."""
    drawn = paths(formula)
    x = np.linspace(-5, 5, 400)
    y = formula(x, *[np.ones_like(x)] * (len(formula.inputs) - 1))
    across, down = points(drawn[""])
    heights = np.interp((x + 5) * gallery.WIDTH / 10, across, down)
    zero = float(re.match(r"M0 ([\d.]+)H", drawn["axes"])[1])
    scale = (heights[-1] - heights[0]) / (y[-1] - y[0])
    np.testing.assert_allclose(heights, zero + scale * y, atol=gallery.HEIGHT / 50)
    assert 0 <= down.min() < down.max() <= gallery.HEIGHT
    assert len(drawn[""]) < 2500


def test_slopes_are_drawn():
    across, down = points(paths(gelu)["slope"])
    zero = float(re.match(r"M0 ([\d.]+)H", paths(gelu)["axes"])[1])
    assert (across[0], across[-1]) == (0, gallery.WIDTH)
    assert down[0] == pytest.approx(zero, abs=0.1)
    assert down[-1] < zero


def test_what_leaves_the_picture_is_cut_off():
    @formula
    def steep(x):
        return exp(-x) + cos(300 * x)

    assert np.abs(points(paths(steep)["slope"])[1]).max() <= 2 * gallery.HEIGHT
