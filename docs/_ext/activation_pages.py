"""A page for each activation of the catalogue, from its formula alone.

A new formula has its page at the next build. What a page states is computed or measured here:
LaTeX and slopes by SymPy, limits and errors against mpmath, shapes drawn; costs come from
the files of ``zeta bench`` in ``benchmarks/results``.
"""

import ast
import inspect
import io
import json
import math
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import torch
from cycler import cycler
from matplotlib.figure import Figure
from sphinx.application import Sphinx

from cases import grid, truths, ulps
from pages import write_pages
from zeta import flax, jax, keras, ops
from zeta._formula import Formula, shown
from zeta._modules import CLASSES
from zeta.activations import CATALOGUE, GATES, LOGITS
from zeta.plot import panels

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "results"
# Colours of the site's two looks; furo shows an image of the class only-light or only-dark.
# Lines that the colour-blind tell apart too, on white and on black (after Okabe and Ito 2008).
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"axes.prop_cycle": cycler(color=["#0072b2", "#d55e00", "#009e73"])},
    "dark": mpl.style.library["dark_background"]
    | {"axes.prop_cycle": cycler(color=["#56b4e9", "#e69f00", "#2bd9a8"])},
}
# The same bytes at every build, and letters as paths: an image has no fonts of its own.
COMMON: dict[str, Any] = {"svg.hashsalt": "zeta", "svg.fonttype": "path"}
FLOAT_MAX = torch.finfo(torch.float32).max
# Far out, and no multiples of each other: an oscillation shows.
FAR = (1.0e6, 1.37e6, 1.81e6, 2.93e6)

HEAD = """\
# {name}

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

## Limits

| x | f(x) |
|---|---|
| −∞ | {below} |
| 0 | {at_zero} |
| +∞ | {above} |

At the parameters' defaults; NaN gives NaN.

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

LOGIT_PAGE = """\
{head}
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

INDEX = """\
# Activations

Every activation of the catalogue. Each page is made from the formula when this site is built.

| | | from −∞ | to +∞ |
|---|---|---|---|
{rows}

## Gates

Formulas of two inputs; [how they are used](../guides/formula.md#several-inputs-gates).

| | |
|---|---|
{gates}

## Between logits and a loss

Formulas of one input, for a softmax; [how they are used](../guides/heads.md).

| | |
|---|---|
{logits}

```{{toctree}}
:hidden:

{names}
```
"""


def page(formula: Formula) -> str:
    """The whole page, in Markdown."""
    name, below, above = formula.name, *limits(formula)
    return PAGE.format(
        head=_head(formula, shapes(formula)),
        latex=f"f(x) = {formula.latex()}",
        slope=f"f'(x) = {formula.latex(derivative=True)}",
        source=source(formula),
        below=below,
        at_zero=number(float(formula(0.0))),
        above=above,
        frameworks=frameworks(formula),
        example=example(formula),
        accuracy=accuracy(formula),
        cost=cost(name),
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
    )


def logit_page(formula: Formula) -> str:
    """The whole page of a formula between logits and a softmax, in Markdown."""
    return LOGIT_PAGE.format(
        head=_head(formula, shapes(formula)),
        latex=f"f(x) = {formula.latex()}",
        slope=f"f'(x) = {formula.latex(derivative=True)}",
        source=source(formula),
        name=formula.name,
    )


def _head(formula: Formula, pictures: str) -> str:
    docstring = textwrap.indent(inspect.getdoc(formula) or "", "   ")
    signature = repr(formula)
    return HEAD.format(name=formula.name, signature=signature, docstring=docstring, shapes=pictures)


def index() -> str:
    """The table of all."""
    rows = []
    for formula in CATALOGUE.values():
        ends = " | ".join(limits(formula))
        rows.append(f"| [{formula.name}]({formula.name}.md) | {_summary(formula)} | {ends} |")
    gates = [f"| [{f.name}]({f.name}.md) | {_summary(f)} |" for f in GATES.values()]
    logits = [f"| [{f.name}]({f.name}.md) | {_summary(f)} |" for f in LOGITS.values()]
    names = "\n".join([*CATALOGUE, *GATES, *LOGITS])
    tables = {"rows": rows, "gates": gates, "logits": logits}
    return INDEX.format(**{k: "\n".join(lines) for k, lines in tables.items()}, names=names)


def _summary(formula: Formula) -> str:
    text = inspect.getdoc(formula) or ""
    return text.partition("Source:")[0].partition("\n\n")[0].strip()


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


def number(value: float) -> str:
    """To six digits, as text."""
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    return f"{value + 0.0:.6g}".replace("-", "−")


@cache
def limits(formula: Formula) -> tuple[str, str]:
    """What f tends to on either side."""
    return _limit(formula, -1), _limit(formula, 1)


def _limit(formula: Formula, sign: int) -> str:
    values = [float(formula.reference(sign * x)) for x in FAR]
    if min(map(abs, values)) > 1e3:
        return number(math.copysign(math.inf, values[0]))
    if max(values) - min(values) < 1e-6:
        return number(float(formula(sign * math.inf)))
    return "no limit"


def shapes(formula: Formula) -> str:
    """The pictures: f and its derivatives, then one for each parameter, each for either look."""
    titles = [f"{formula.name} and its derivative"]
    if len(formula.inputs) > 1:
        titles = [f"{formula.name} over its gate, for three values"]
        titles += [f"{formula.name}, its derivative by {name}" for name in formula.inputs]
    titles += [f"{formula.name}, {parameter} varied" for parameter in formula.scalars]
    images = [
        f"![{title}](images/{picture(formula, position, look)}){{.only-{look}}}"
        for position, title in enumerate(titles)
        for look in LOOKS
    ]
    return "\n".join([":::{container} shapes", *images, ":::"])


def picture(formula: Formula, position: int, look: str) -> str:
    """A picture's file."""
    return f"{formula.name}-{position}-{look}.svg"


def pictures(formula: Formula) -> dict[str, str]:
    """File -> SVG, of all panels in all looks."""
    files = {}
    for look, style in LOOKS.items():
        with mpl.rc_context(COMMON | style):
            for position, figure in enumerate(panels(formula)):
                files[picture(formula, position, look)] = _svg(figure)
    return files


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return stream.getvalue()


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
    write_pages(folder, {"index.md": index()} | pages)
    drawn = [pictures(f) for _, formulas in kinds for f in formulas.values()]
    write_pages(folder / "images", {name: svg for files in drawn for name, svg in files.items()})


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
