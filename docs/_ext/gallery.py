"""The index of the activations' pages: a card for each formula, and a table of what is known of it.

Both are HTML that reads without a script. ``_static/gallery.js`` filters and sorts them by their
attributes: ``data-name``, ``data-family`` and ``data-flags``.
"""

import re
from collections.abc import Iterable
from functools import cache
from html import escape

import numpy as np
import numpy.typing as npt

from zeta._facts import Facts, relative_cost, summary, used_by, year
from zeta._formula import Formula
from zeta._listing import numbers, shape
from zeta.activations import FAMILIES, family
from zeta.plot import derivative

Array = npt.NDArray[np.float64]

FORMULAS = [formula for members in FAMILIES.values() for formula in members.values()]
NOTES = {
    "elementwise": "Activations whose constants are not trained.",
    "learnable": "Activations whose parameters modules train by default; drawn as they start.",
    "gated": "Formulas of two inputs, [a gate and a value](../guides/formula.md#several-inputs-"
    "gates); drawn over the gate for a value of 1.",
    "logits": "What stands between logits and a softmax; [how they are used](../guides/heads.md).",
}
FLAGS = ("monotone", "bounded", "smooth", "zero-centred", "learnable")
COLUMNS = ("name", "from −∞", "to +∞", "range", "mean", "gain", "cost", "shape", "year")

INDEX = """\
---
hide-toc: true
---

# Activations

{count} formulas, each written once, with a page each; everything here is computed from the formula
when this site is built. The line is f over −5 ≤ x ≤ 5, its derivative is dashed; the height fits f.
`zeta list` prints the same, and `zeta.activations.NAME` is a formula, `.module()` its module.

```{{raw}} html
{form}
```

{families}

## Facts

The parameters are at their defaults. Mean and gain are over x ~ N(0, 1): E[f], and 1/√E[f²], by
which weights before f are scaled. The cost is an estimate, operations forward and backward over
GELU's; measured times are on the pages. At kinks f′ jumps.

```{{raw}} html
{table}
```
"""

FAMILY = """\
## {title}

{note}

```{{raw}} html
<ul class="gallery">
{cards}
</ul>
```
"""

CARD = """\
<li class="card" {data}>
{picture}
<a href="{name}.html">{label}</a>
<p>{summary}</p>
<p class="origin">{origin}</p>
</li>"""

# Hidden until the script shows it, without which it would do nothing.
FORM = """\
<form class="gallery-form" role="search" aria-label="Activations" hidden>
<label>Search <input type="search" name="q" placeholder="name, words, a model"></label>
<label>Family <select name="family">{options}</select></label>
<fieldset><legend>Show</legend>
<label><input type="radio" name="view" value="" checked>cards</label>
<label><input type="radio" name="view" value="table">table</label>
</fieldset>
<p><output aria-live="polite"></output> <button type="reset">Show all</button></p>
<fieldset><legend>Only</legend>{boxes}</fieldset>
</form>"""

TABLE = """\
<div class="table-wrapper docutils container" tabindex="0" role="region" aria-label="Facts">
<table class="docutils facts">
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""

# A picture's size, which is its SVG's, and how far a curve may be off.
WIDTH, HEIGHT = 100, 60
TOLERANCE = 0.03
PICTURE = """\
<svg viewBox="0 0 {width} {height}" aria-hidden="true">\
<path class="axes" d="M0 {zero}H{width}M{middle} 0V{height}"/>\
<path class="slope" d="{slope}"/><path d="{curve}"/></svg>"""


def index() -> str:
    """The whole page, in Markdown."""
    families = "\n".join(_family(name) for name in FAMILIES)
    return INDEX.format(count=len(FORMULAS), form=_form(), families=families, table=_table())


def _family(name: str) -> str:
    cards = "\n".join(map(card, FAMILIES[name].values()))
    return FAMILY.format(title=name.capitalize(), note=NOTES[name], cards=cards)


def _form() -> str:
    options = "".join(f'<option value="{name}">{name}</option>' for name in FAMILIES)
    boxes = "".join(
        f'<label><input type="checkbox" name="{flag}" value="yes">{flag}</label>' for flag in FLAGS
    )
    return FORM.format(options=f'<option value="">all</option>{options}', boxes=boxes)


def card(formula: Formula) -> str:
    """The picture, the name, a sentence, where it comes from and who uses it."""
    origin = [str(year(formula) or ""), f"used by {used_by(formula)}" * bool(used_by(formula))]
    return CARD.format(
        data=_data(formula),
        picture=picture(formula),
        name=formula.name,
        label=formula.name.replace("_", "_<wbr>"),
        summary=_html(re.split(r"(?<=\.) (?=[A-Z])", summary(formula))[0]),
        origin=_html(" · ".join(filter(None, origin))),
    )


def _table() -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in COLUMNS)
    return TABLE.format(head=head, rows="\n".join(map(row, FORMULAS)))


def row(formula: Formula) -> str:
    """Of a gate, whose limits are functions of its value, what there is."""
    facts = _facts(formula)
    known = (
        (*numbers(facts), shape(facts))
        if facts
        else (*[""] * 5, f"{relative_cost(formula):.1f}", "")
    )
    link = f'<th scope="row"><a href="{formula.name}.html">{formula.name}</a></th>'
    cells = "".join(f"<td>{escape(text)}</td>" for text in (*known, str(year(formula) or "")))
    return f"<tr {_data(formula)}>{link}{cells}</tr>"


def _data(formula: Formula) -> str:
    data = {"name": formula.name, "family": family(formula), "flags": " ".join(flags(formula))}
    return " ".join(f'data-{key}="{value}"' for key, value in data.items())


def flags(formula: Formula) -> Iterable[str]:
    """Those of :data:`FLAGS` that hold; of a gate "learnable" at most."""
    facts = _facts(formula)
    holds = (
        (facts.monotone, facts.bounded, facts.smoothness == "smooth", abs(facts.mean) < 0.01)
        if facts
        else (False,) * 4
    )
    return [flag for flag, given in zip(FLAGS, (*holds, formula.learnable), strict=True) if given]


@cache
def _facts(formula: Formula) -> Facts | None:
    return formula.facts() if len(formula.inputs) == 1 else None


def _html(text: str) -> str:
    """A docstring's text, whose only markup are words in backticks."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text, quote=False))


def picture(formula: Formula) -> str:
    """f and its derivative as an inline SVG, which takes its colours from the page.

    At least -1 to 1 are shown; what leaves the picture, the derivative, is cut off.
    """
    x = np.linspace(-5, 5, 400)  # without 0, where a slope in SymPy's words may be 0/0
    ones = [np.ones_like(x)] * (len(formula.inputs) - 1)
    y = formula(x, *ones)
    low, high = min(-1.0, y.min()), max(1.0, y.max())
    margin = 0.06 * (high - low)
    scale = HEIGHT / (high - low + 2 * margin)
    down = lambda values: (high + margin - values) * scale
    return PICTURE.format(
        width=WIDTH,
        height=HEIGHT,
        middle=WIDTH // 2,
        zero=f"{down(0):.1f}",
        slope=_path(x, np.clip(down(derivative(formula)(x, *ones)), -HEIGHT, 2 * HEIGHT)),
        curve=_path(x, down(y)),
    )


def _path(x: Array, y: Array) -> str:
    points = np.stack([(x + 5) * (WIDTH / 10), y], axis=1)
    return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in points[_kept(points)])


def _kept(points: Array) -> list[int]:
    """Indices of points between which straight lines are near enough to those left out."""
    kept = [0]
    for end in range(2, len(points)):
        if _distance(points[kept[-1] : end + 1]) > TOLERANCE:
            kept.append(end - 1)
    return [*kept, len(points) - 1]


def _distance(points: Array) -> float:
    """How far the points are, downwards, from the line between the first and the last."""
    (x, y), (first, last) = points.T, (points[0], points[-1])
    line = first[1] + (x - first[0]) * (last[1] - first[1]) / (last[0] - first[0])
    return float(np.abs(y - line).max())
