"""Formulas as MathML, which browsers draw by themselves: no script, nothing from the network.

They need a font that has the measures of mathematics, without which braces do not stretch. Few
systems have one, so the site brings the part of STIX Two Math that it uses, from the package
ziamath.
"""

import string

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from zeta.evaluate.tasks.task import package_file

FONT = package_file("ziamath", "fonts/STIXTwoMath-Regular.ttf")
# Browsers show <mi>x</mi> by the letter 𝑥 of the block "mathematical italic".
ITALICS = "".join(map(chr, [*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C)])) + "ℎ"
GREEK = "".join(map(chr, range(0x391, 0x3CA)))
CHARACTERS = string.printable + ITALICS + GREEK + "−±·⋅×√∞∑∫∂≤≥≠→∈∨∧′\u2061"

_logger = logging.getLogger(__name__)


def _visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, block: bool) -> str:
    try:
        text: str = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        _logger.warning("no MathML for %r: %s", node.astext(), error, location=node)
        return ""
    return text


def _write_font(app: Sphinx, exception: Exception | None) -> None:
    """The needed glyphs, among the static files; ``zeta.css`` names the file."""
    if exception is not None or app.builder.format != "html":
        return
    options = subset.Options(flavor="woff", layout_features=["*"], recalc_timestamp=False)
    font = subset.load_font(str(FONT), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=CHARACTERS)
    subsetter.subset(font)
    subset.save_font(font, str(app.outdir / "_static" / "stix-two-math.woff"), options)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer as ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.connect("build-finished", _write_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
