"""What follows from one formula, as six small pictures: for the first page and for the README.

``python docs/_ext/overview.py`` writes the README's, ``docs/images/overview-light.svg`` and
``-dark.svg``. What they show is made from the formula and taken from the evaluation's results.
"""

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import mpmath

import gallery
from zeta.activations import exo
from zeta.codegen import cpp
from zeta.codegen.trace import value_program

DOCS = Path(__file__).parents[1]
WIDTH, HEIGHT, GAP, COLUMNS = 250, 140, 10, 3
COLOURS = {
    "light": {"ink": "#1f2328", "faint": "#59636e", "line": "#d1d9e0", "curve": "#0a50c8"},
    "dark": {"ink": "#f0f6fc", "faint": "#9198a1", "line": "#3d444d", "curve": "#5ca5ff"},
}
# The site's own colours are variables of its theme.
STYLE = """\
text{{font:12px sans-serif;fill:{ink}}}
.title{{font-weight:bold;font-size:14px}}
.code{{font-family:monospace;font-size:11px;white-space:pre}}
.faint{{fill:{faint}}}
.frame{{fill:none;stroke:{line}}}
.plot path{{fill:none;stroke:{curve};stroke-width:2px;vector-effect:non-scaling-stroke}}
.plot .slope{{stroke:#d96b00;stroke-width:1px;stroke-dasharray:4 3}}
.plot .axes{{stroke:{line};stroke-width:1px}}"""
FILE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>What follows from one formula</title>
<style>
{style}
</style>
{parts}
</svg>
"""


def kernel() -> str:
    """The first operations of the generated C++, as they are compiled."""
    source = cpp.source(value_program(exo, {}), "float32", False)
    body = source.partition("namespace formula")[2].partition("evaluate(")[2]
    operations = re.findall(r"const V (t\d+ = (?!at_least).*;)", body)
    return _lines(operations[:4], "code") + _note("C++ or Triton, compiled at first use")


def gradient() -> str:
    """What a backward pass gives, and keeps."""
    lines = ["y = my_exo(x, alpha)", "y.sum().backward()", "x.grad, alpha.grad"]
    return _lines(lines, "code") + _note("in one pass, from x and alpha alone")


def frameworks() -> str:
    """Where the same formula runs."""
    lines = ["PyTorch, torch.compile, ONNX", "JAX, Flax NNX", "Keras 3, TensorFlow"]
    return _lines([*lines, "NumPy, SymPy, mpmath"]) + _note("functions, and modules that train")


def plot() -> str:
    """f and f′, as in the gallery."""
    drawn = gallery.picture(exo).replace("<svg", f'<svg class="plot" {_box(15, 34, 150, 90)}', 1)
    labels = _text(178, 64, "f") + _text(178, 82, "f′, dashed", "faint")
    return drawn.replace(' aria-hidden="true"', "") + labels


def reference() -> str:
    """A value to fifty digits."""
    digits = mpmath.nstr(exo.reference(2.0, digits=50), 50)
    lines = ["my_exo.reference(2.0)", digits[:27], f"  {digits[27:]}"]
    return _lines(lines, "code") + _note("50 digits; kernels are held to it")


def verdict() -> str:
    """The evaluation's, of exo."""
    text = (DOCS / "evaluation_results.md").read_text(encoding="utf-8")
    found = re.search(r"^- \*\*exo\*\*: (.*?)(?:; over |\.$)", text, re.MULTILINE)
    assert found is not None
    verdicts = [part.partition(" on ") for part in found[1].split("; ")]
    counts = {said: _count(tasks) for said, _, tasks in verdicts}
    lines = [f"exo against SiLU on {sum(counts.values())} tasks:"]
    lines += [f"{said} on {number}" for said, number in counts.items()]
    return _lines(lines) + _note("paired seeds, corrected")


def _count(tasks: str) -> int:
    """How many "a, b and c" or "the other 12 tasks" are."""
    number = re.search(r"(\d+) tasks", tasks)
    return int(number[1]) if number else len(re.split(", | and ", tasks))


PARTS: dict[str, Callable[[], str]] = {
    "A fused kernel": kernel,
    "Gradients": gradient,
    "Every framework": frameworks,
    "A plot": plot,
    "A reference": reference,
    "A verdict": verdict,
}


def _lines(lines: list[str], kind: str = "") -> str:
    return "".join(_text(15, 46 + 17 * row, line, kind) for row, line in enumerate(lines))


def _note(text: str) -> str:
    return _text(15, HEIGHT - 12, text, "faint")


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text, quote=False)}</text>'


def _box(x: int, y: int, width: int, height: int) -> str:
    return f'x="{x}" y="{y}" width="{width}" height="{height}"'


def _part(title: str) -> str:
    frame = f'<rect class="frame" rx="6" {_box(1, 1, WIDTH - 2, HEIGHT - 2)}/>'
    return frame + _text(15, 24, title, "title") + PARTS[title]()


def svg(look: str) -> str:
    """All parts in one file."""
    parts = []
    for index, title in enumerate(PARTS):
        x, y = index % COLUMNS * (WIDTH + GAP), index // COLUMNS * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({x} {y})">{_part(title)}</g>')
    size = {"width": COLUMNS * (WIDTH + GAP) - GAP, "height": 2 * (HEIGHT + GAP) - GAP}
    return FILE.format(**size, style=STYLE.format(**COLOURS[look]), parts="\n".join(parts))


def html() -> str:
    """The parts one by one, which a narrow screen has below each other."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{_part(title)}</svg>'
        for title in PARTS
    ]
    return "\n".join(['<div class="overview">', *parts, "</div>"])


def files() -> dict[Path, str]:
    """The README's pictures."""
    return {DOCS / "images" / f"overview-{look}.svg": svg(look) for look in COLOURS}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
