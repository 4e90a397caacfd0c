"""The report's plots: inline SVG whose colours follow the page, light or dark."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zeta.evaluate.protocol import formula_source
from zeta.evaluate.results import Comparison, Results, TaskInfo, short_names
from zeta.evaluate.wording import listing, signed
from zeta.load_formula import load_formula

# Matplotlib draws with these; in the SVG they become CSS variables that the page defines.
INK, FAINT = "#010101", "#020202"
SERIES = tuple(f"#0301{index:02x}" for index in range(8))
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Chart:
    """One plot: its SVG, and in words what it shows."""

    title: str
    description: str
    svg: Markup


def legend(results: Results) -> list[tuple[str, str, str]]:
    """For each activation: its name, colour and line style, as CSS spells them."""
    return [
        (
            short,
            f"var(--series-{SERIES.index(_color(results, name))})",
            "solid" if name in results.settings.candidates else "dashed",
        )
        for name, short in _names(results).items()
        if name in results.settings.activations
    ]


def difference_charts(results: Results) -> list[Chart]:
    """For each task, every candidate's mean difference with its interval and its seeds."""
    names = _names(results)
    charts = []
    for task in results.tasks:
        comparisons = [c for c in results.comparisons if c.task == task.source]
        draw = _drawing(_draw_differences, comparisons, names, results)
        rows = (
            f"{names[c.candidate]} minus {names[c.reference]} {signed(c.mean)}, "
            f"95 % interval {signed(c.low)} to {signed(c.high)}"
            for c in comparisons
        )
        title = f"{names[task.source]}: difference in {task.metric}"
        height = 0.8 + 0.6 * len(comparisons)
        charts.append(_chart(title, f"{title}. {'; '.join(rows)}.", draw, height))
    return charts


def sensitivity_charts(results: Results) -> list[Chart]:
    """For each task, validation score over learning rate."""
    names = _names(results)
    charts = []
    for task in results.tasks:
        tuned = [t for t in results.tunings if t.task == task.source]
        winners = (f"{names[t.activation]} {t.learning_rate:g}" for t in tuned)
        title = f"{names[task.source]}: validation {task.metric}"
        description = f"{title}. Best learning rates: {listing(list(winners))}."
        charts.append(_chart(title, description, _drawing(_draw_sensitivity, task, results)))
    return charts


def training_charts(results: Results) -> list[Chart]:
    """For each task, the mean training loss of the final trials by epoch."""
    names = _names(results)
    charts = []
    for task in results.tasks:
        title = f"{names[task.source]}: training loss"
        description = f"{title}, mean of the final trials that did not diverge."
        charts.append(_chart(title, description, _drawing(_draw_training, task, results)))
    return charts


def shape_charts(results: Results) -> list[Chart]:
    """Each activation as documented, and as it was after training where it is learnable."""
    charts = []
    for name, shown in _names(results).items():
        if name not in results.settings.activations:
            continue
        learned = [
            (task.source, layer)
            for task in results.tasks
            for layer in results.final_trials(task.source, name)[0].learned
        ]
        extra = " Thin lines: each layer after training, first seed of each task." * bool(learned)
        draw = _drawing(_draw_shape, name, [layer for _, layer in learned], results)
        charts.append(_chart(shown, f"The activation {shown} from -4 to 4.{extra}", draw, 2.3))
    return charts


def _draw_differences(
    axis: Axes, comparisons: Sequence[Comparison], names: dict[str, str], results: Results
) -> None:
    for row, c in enumerate(comparisons):
        color = _color(results, c.candidate)
        # The seeds lie a little below their interval, so that neither hides the other.
        below = np.full(len(c.differences), row + 0.22)
        axis.plot(c.differences, below, "o", color=color, ms=3, alpha=0.45)
        axis.plot([c.low, c.high], [row, row], color=color, lw=3, solid_capstyle="round")
        axis.plot([c.mean], [row], "D", color=color, ms=6)
        label = f"{names[c.candidate]} − {names[c.reference]}"
        axis.text(0, row - 0.25, label, transform=axis.get_yaxis_transform(), fontsize=8)
    axis.axvline(0, color=FAINT, lw=1, zorder=0)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(comparisons) - 0.5, -0.6)
    axis.set_xlabel("← worse · difference · better →")
    axis.locator_params(axis="x", nbins=5)


def _draw_sensitivity(axis: Axes, task: TaskInfo, results: Results) -> None:
    for tuning in (t for t in results.tunings if t.task == task.source):
        color = _color(results, tuning.activation)
        style = _line_style(results, tuning.activation)
        rates, scores = list(tuning.validation), list(tuning.validation.values())
        axis.plot(rates, scores, style, color=color)
        axis.plot([tuning.learning_rate], [tuning.score], "o", color=color, ms=5)
    axis.set_xscale("log")
    axis.set_xlabel("learning rate (● chosen)")


def _draw_training(axis: Axes, task: TaskInfo, results: Results) -> None:
    for name in results.settings.activations:
        trials = results.final_trials(task.source, name)
        curves = [trial.curve for trial in trials if trial.status == "ok"]
        if curves:
            mean = np.mean(curves, axis=0)
            epochs = np.arange(1, len(mean) + 1)
            style, color = _line_style(results, name), _color(results, name)
            axis.plot(epochs, mean, style, color=color)
    axis.set_yscale("log")
    axis.set_xlabel("epoch")


def _draw_shape(
    axis: Axes, name: str, learned: Sequence[dict[str, float]], results: Results
) -> None:
    formula, color = load_formula(formula_source(name)), _color(results, name)
    x = np.linspace(-4, 4, 161)
    for parameters in learned:
        axis.plot(x, formula(x, **parameters), color=color, lw=0.7, alpha=0.7)
    axis.plot(x, formula(x), color=color, lw=2.2)
    axis.axhline(0, color=FAINT, lw=0.6, zorder=0)
    axis.axvline(0, color=FAINT, lw=0.6, zorder=0)


def _names(results: Results) -> dict[str, str]:
    sources = (*results.settings.activations, *results.settings.tasks)
    return short_names(sources)


def _color(results: Results, activation: str) -> str:
    return SERIES[results.settings.activations.index(activation) % len(SERIES)]


def _line_style(results: Results, activation: str) -> str:
    """Candidates as lines, baselines dashed: told apart without colour too."""
    return "-" if activation in results.settings.candidates else "--"


def _drawing(draw: Callable[..., None], *args: object) -> Callable[[Axes], None]:
    return lambda axis: draw(axis, *args)


def _chart(
    title: str, description: str, draw: Callable[[Axes], None], height: float = 2.6
) -> Chart:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(3.7, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Chart(title, description, _inline(buffer.getvalue(), description))


def _inline(svg: str, description: str) -> Markup:
    """Matplotlib's document as an element of the page, named for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    # Ids that nothing refers to would be the same in every plot of the page.
    svg = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", svg)
    for index, color in enumerate(SERIES):
        svg = svg.replace(color, f"var(--series-{index})")
    svg = svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    opening = Markup('<svg role="img" aria-label="{}" ').format(description)
    return Markup(svg.replace("<svg ", opening, 1))
