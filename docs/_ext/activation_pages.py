"""A page for each activation of the catalogue, from its formula alone.

A new formula has its page at the next build. What a page states is computed or measured here:
LaTeX and slopes by SymPy, facts by :meth:`zeta.Formula.facts`, errors against mpmath, shapes drawn;
measured costs come from the files of ``zeta bench`` in ``benchmarks/results``.
"""

import ast
import inspect
import io
import json
import math
import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import torch
from cycler import cycler
from matplotlib.figure import Figure
from sphinx.application import Sphinx

import gallery
import overview
from cases import grid, truths, ulps
from pages import bars_escaped, write_pages
from zeta import flax, jax, keras, ops
from zeta._facts import published, relative_cost, used_by
from zeta._formula import Formula, shown
from zeta._listing import numbers
from zeta._modules import CLASSES
from zeta.activations import CATALOGUE, GATES, LOGITS
from zeta.plot import panels

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "results"
# The site's two looks; furo shows an image of the class only-light or only-dark. Lines that the
# colour-blind tell apart too, on white and on black (after Okabe and Ito 2008). A picture is drawn
# once, in the dark look's colours, and these are exchanged for the light one's.
LOOKS = ("light", "dark")
TO_LIGHT = {
    **{"#56b4e9": "#0072b2", "#e69f00": "#d55e00", "#2bd9a8": "#009e73"},
    **{"#ffffff": "#000000", "#131416": "#ffffff"},
}
STYLE: dict[str, Any] = mpl.style.library["dark_background"] | {
    "axes.prop_cycle": cycler(color=list(TO_LIGHT)[:3]),
    "legend.facecolor": "#131416",
    "axes.titley": 1.0,  # else sought, by measuring all there is
    # The same bytes at every build, and letters as paths: an image has no fonts of its own.
    "svg.hashsalt": "zeta",
    "svg.fonttype": "path",
}
# As parts of the picture: to find them for each picture takes as long as to draw it three times.
MARGINS = {"left": 0.13, "right": 0.97, "bottom": 0.14}
MOST_PICTURES = 7  # f and six parameters
FLOAT_MAX = torch.finfo(torch.float32).max
# No page is in the menu, which would be long on every one of them; the gallery links to all.
HEAD = """\
---
orphan: true
---

# {name}

[All activations](index.md)

```{{eval-rst}}
.. py:data:: zeta.activations.{name}
   :type: ~zeta.Formula
   :value: {signature}

{docstring}
```

{shapes}
"""

PAGE = """\
{head}
## Formula

$$
{latex}
$$

$$
{slope}
$$

In Zeta's catalogue, and nowhere else, it is written as

```{{code-block}} python
{source}
```

{facts}

## In each framework

{frameworks}

```python
{example}
```

## Accuracy

{accuracy}

## Cost

{cost}
"""

FACTS = """\
## Facts

| | |
|---|---|"""
DEFAULTS = "At the parameters' defaults; NaN gives NaN."
SMOOTHNESS = {"smooth": "yes", "kinks": "continuous, with kinks", "jumps": "no, it jumps"}

LOGIT_PAGE = """\
{head}
## Formula

$$
{latex}
$$

$$
{slope}
$$

In Zeta's catalogue, and nowhere else, it is written as

```{{code-block}} python
{source}
```

{facts}

## Between logits and a loss

It stands between logits and a loss; [how](../guides/heads.md).

```python
import torch
from zeta import activations
from zeta.ops import linear_cross_entropy

hidden, weight, target = torch.randn(4, 8), torch.randn(10, 8), torch.arange(4)
linear_cross_entropy(hidden, weight, target, logits=activations.{name})
activations.{name}.softmax(torch.randn(4, 10))
```
"""

GATE_PAGE = """\
{head}
## Formula

$$
f = {latex}
$$

$$
\\frac{{\\partial f}}{{\\partial\\,\\mathrm{{gate}}}} = {by_gate}
$$

$$
\\frac{{\\partial f}}{{\\partial\\,\\mathrm{{value}}}} = {by_value}
$$

In Zeta's catalogue, and nowhere else, it is written as

```{{code-block}} python
{source}
```

{facts}

## In use

```python
import torch
from zeta import activations
from zeta.nn import GatedUnit
from zeta.ops import gated

gate, value = torch.randn(2, 4, 8)
activations.{name}(gate, value)  # on JAX's, NumPy's and TensorFlow's arrays too
gated(activations.{name}, torch.randn(4, 16))  # one tensor that holds both
GatedUnit(activations.{name})(torch.randn(4, 16))
```
"""


def page(formula: Formula) -> str:
    """The whole page, in Markdown."""
    return PAGE.format(
        head=_head(formula, shapes(formula)),
        latex=f"f(x) = {formula.latex()}",
        slope=f"f'(x) = {formula.latex(derivative=True)}",
        source=source(formula),
        facts=facts(formula),
        frameworks=frameworks(formula),
        example=example(formula),
        accuracy=accuracy(formula),
        cost=cost(formula.name),
    )


def gate_page(formula: Formula) -> str:
    """The whole page of a gate, in Markdown."""
    return GATE_PAGE.format(
        name=formula.name,
        head=_head(formula, shapes(formula)),
        latex=formula.latex(),
        by_gate=formula.latex(derivative="gate"),
        by_value=formula.latex(derivative="value"),
        source=source(formula),
        facts=facts(formula),
    )


def logit_page(formula: Formula) -> str:
    """The whole page of a formula between logits and a softmax, in Markdown."""
    return LOGIT_PAGE.format(
        head=_head(formula, shapes(formula)),
        latex=f"f(x) = {formula.latex()}",
        slope=f"f'(x) = {formula.latex(derivative=True)}",
        source=source(formula),
        facts=facts(formula),
        name=formula.name,
    )


def _head(formula: Formula, pictures: str) -> str:
    # Who uses it and its source stand in the table.
    text = re.split(r"Used by:|Source:", inspect.getdoc(formula) or "")[0].strip()
    docstring, signature = textwrap.indent(bars_escaped(text), "   "), repr(formula)
    return HEAD.format(name=formula.name, signature=signature, docstring=docstring, shapes=pictures)


# ---- What a page shows --------------------------------------------------------------------------


def source(formula: Formula) -> str:
    """The decorated function as it stands in the catalogue, without its docstring."""
    text = inspect.getsource(formula.function)
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    docstring = function.body[0]
    assert docstring.end_lineno is not None
    lines = text.splitlines()
    return "\n".join([*lines[: docstring.lineno - 1], *lines[docstring.end_lineno :]])


def facts(formula: Formula) -> str:
    """What is computed from the formula, and what its docstring names, as a table."""
    rows = {
        **(_computed(formula) if len(formula.inputs) == 1 else {}),
        "cost": f"{relative_cost(formula):.1f} times GELU's, estimated from operations both ways",
        "trained by modules": ", ".join(f"`{name}`" for name in formula.learnable),
        "used by": used_by(formula),
        "source": published(formula),
    }
    cells = {label: text.replace("|", "\\|") for label, text in rows.items() if text}
    lines = [f"| {label} | {text} |" for label, text in cells.items()]
    return "\n".join([FACTS, *lines, "", DEFAULTS])


def _computed(formula: Formula) -> dict[str, str]:
    found = formula.facts()
    _, _, span, mean, gain, _ = numbers(found)
    return {
        "from −∞": number(found.below),
        "at 0": number(float(formula(0.0))),
        "to +∞": number(found.above),
        "range": span,
        "monotone": found.monotone or "no",
        "smooth": SMOOTHNESS[found.smoothness],
        "mean over N(0, 1)": mean,
        "[gain](../api/zeta.nn.init.md)": gain,
    }


def number(value: float | None) -> str:
    """A value or limit to six digits, as text."""
    if value is None:
        return "no limit"
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    return f"{value + 0.0:.6g}".replace("-", "−")


def shapes(formula: Formula) -> str:
    """The pictures: f and its derivatives, then one for each parameter, each for either look."""
    titles = [f"{formula.name} and its derivative"]
    if len(formula.inputs) > 1:
        titles = [f"{formula.name} over its gate, for three values"]
        titles += [f"{formula.name}, its derivative by {name}" for name in formula.inputs]
    titles += [f"{formula.name}, {parameter} varied" for parameter in formula.scalars]
    images = [
        f"![{title}](images/{picture(formula, position, look)}){{.only-{look}}}"
        for position, title in enumerate(titles[:MOST_PICTURES])
        for look in LOOKS
    ]
    return "\n".join([":::{container} shapes", *images, ":::"])


def picture(formula: Formula, position: int, look: str) -> str:
    """A picture's file."""
    return f"{formula.name}-{position}-{look}.svg"


def pictures(formula: Formula) -> dict[str, str]:
    """File -> SVG, of the panels in all looks."""
    with mpl.rc_context(STYLE):
        drawn = [_svg(figure) for figure in panels(formula)[:MOST_PICTURES]]
    return {
        picture(formula, position, look): svg if look == "dark" else _light(svg)
        for position, svg in enumerate(drawn)
        for look in LOOKS
    }


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.set_layout_engine(None)
    lines = 1 + len(figure.axes[0].get_title()) // 55  # it wraps
    figure.subplots_adjust(**MARGINS, top=0.95 - 0.045 * lines)
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return stream.getvalue()


def _light(svg: str) -> str:
    return re.sub("|".join(TO_LIGHT), lambda found: TO_LIGHT[found[0]], svg)


def frameworks(formula: Formula) -> str:
    """Where it is found, looked up in the packages: what is not there has no row."""
    name, own = formula.name, own_class(formula)
    catalogue = f"zeta.activations.{name}"
    function = f"zeta.ops.{name}" if hasattr(ops, name) else catalogue
    rows = [("PyTorch", function, f"zeta.nn.{own}" if own else f"{catalogue}.module()")]
    for package, label, modules, generic in (
        (jax, "JAX, Flax NNX", flax, "FormulaModule"),
        (keras, "Keras", keras, "FormulaLayer"),
    ):
        if hasattr(package, name):
            module = own if own and hasattr(modules, own) else f"{generic}(activations.{name})"
            rows.append((label, f"{package.__name__}.{name}", f"{modules.__name__}.{module}"))
    lines = [f"| {label} | `{function}` | `{module}` |" for label, function, module in rows]
    lines.append(f"| NumPy, SymPy, mpmath, numbers | `{catalogue}` | |")
    return "\n".join(["| | function | module |", "|---|---|---|", *lines])


def own_class(formula: Formula) -> str | None:
    """The name of the module class that is this formula's alone, ``Exo`` say."""
    return CLASSES.get(formula.name) if CATALOGUE.get(formula.name) is formula else None


def example(formula: Formula) -> str:
    """A snippet that runs as it stands."""
    own, name = own_class(formula), formula.name
    lines = ["import torch", "from zeta import activations", ""]
    lines += ["x = torch.linspace(-3, 3, 7)", f"activations.{name}(x)"]
    if formula.parameters:
        parameter, value = next(iter(formula.parameters.items()))
        if parameter in formula.vectors:
            given = shown(tuple(number / 2 or 1 for number in value))
        else:
            given = f"{value / 2 or 1:.4g}"
        lines.append(f"activations.{name}(x, {parameter}={given})")
        lines.append(f"activations.{name}.module(learnable=True)(x)")
    if own:
        lines += ["", f"from zeta.nn import {own}", "", f"{own}()(x)"]
    return "\n".join(lines)


def accuracy(formula: Formula) -> str:
    """The largest errors in float32 over the tests' grid."""
    x = grid(torch.float32)
    got = formula(x).tolist()
    moderate, relative, worst = 0.0, 0.0, (0.0, 0.0, 0.0)
    for point, value, truth in zip(x.tolist(), got, truths(formula, torch.float32), strict=True):
        if not -FLOAT_MAX <= truth.value <= FLOAT_MAX:
            continue  # rounds to ±inf
        error = ulps(truth.value - value, truth.value, torch.float32)
        relative = max(relative, error / max(1.0, truth.condition))
        worst = max(worst, (error, point, truth.condition))
        if abs(point) <= 10:
            moderate = max(moderate, error)
    text = (
        f"In float32 on a processor, at {len(x)} points over the whole range, measured against 50 "
        "digits when this page was built:\n\n"
        "| | ulp |\n|---|---|\n"
        f"| largest error / max(1, κ) | {relative:.2f} |\n"
        f"| largest error where −10 ≤ x ≤ 10 | {moderate:.2f} |\n"
        f"| largest error | {worst[0]:.4g}, at x = {number(worst[1])}, where κ = {worst[2]:.3g} |"
    )
    kappa = "κ is the relative [condition number](../numerics.md#accuracy)"
    return f"{text}\n\n{kappa}; the bound is 4 max(1, κ)."


def cost(name: str) -> str:
    """Time relative to F.gelu, in float32, from the benchmark's files."""
    for path in sorted(BENCHMARKS.glob("*.json")):
        results = json.loads(path.read_text())
        ratios = {
            (row["setting"]["elements"], row["setting"]["mode"], row["provider"]): row["ratio"]
            for row in results["rows"]
            if row["setting"]["activation"] == name and row["setting"]["dtype"] == "float32"
        }
        if ratios:
            return _cost_table(ratios, results["environment"])
    return f"Not measured yet: `zeta bench {name}` does."


def _cost_table(ratios: dict[tuple[int, str, str], float], where: dict[str, str]) -> str:
    lines = [
        "| elements | forward | … eager formula | forward + backward | … eager formula |",
        "|---|---|---|---|---|",
    ]
    for elements in sorted({key[0] for key in ratios}):
        cells = [
            f"{ratios[elements, mode, provider]:.2f}"
            for mode in ("forward", "both")
            for provider in ("zeta", "eager")
        ]
        lines.append(f"| {elements:,} | {' | '.join(cells)} |")
    place = f"{where['CPU']}, {where['PyTorch threads']} threads, PyTorch {where['torch']}"
    return "\n".join(
        [
            f"Time relative to `F.gelu`, float32 ({place}), each cell as one run of `zeta bench` "
            "measured it:",
            "",
            *lines,
        ]
    )


# ---- The build ----------------------------------------------------------------------------------


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "activations"
    kinds = ((page, CATALOGUE), (gate_page, GATES), (logit_page, LOGITS))
    pages = {f"{f.name}.md": text(f) for text, formulas in kinds for f in formulas.values()}
    write_pages(folder, {"index.md": gallery.index(), "overview.html": overview.html()} | pages)
    drawn = [pictures(f) for _, formulas in kinds for f in formulas.values()]
    write_pages(folder / "images", {name: svg for files in drawn for name, svg in files.items()})


def _add_script(app: Sphinx, page: str, *_: Any) -> None:
    if page == "activations/index":
        app.add_js_file("gallery.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("builder-inited", _write)
    app.connect("html-page-context", _add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
