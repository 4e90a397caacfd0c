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
from matplotlib.ticker import LogFormatter

from zeta.evaluate.ranking import Ranking
from zeta.evaluate.results import AcrossTasks, Comparison, Results, Shape, TaskInfo
from zeta.evaluate.shapes import GRID
from zeta.evaluate.wording import interval, listing, signed

# Inches, at 96 pixels each: a phone shows the plots of usual width at their own size.
_WIDTH, _SMALL, _WIDE = 3.7, 2.3, 7.4
_LONGEST_LABEL = 28
# Matplotlib draws with these; in the SVG they become CSS variables that the page defines.
INK, FAINT, PANEL = "#010101", "#020202", "#040404"
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
    "text.parse_math": False,  # a dollar sign in a user's name is one
}


@dataclass(frozen=True)
class Chart:
    """One plot: its SVG, and in words what it shows."""

    title: str
    description: str
    svg: Markup
    width: float

    @property
    def wide(self) -> bool:
        """Whether it needs a row of its own."""
        return self.width > _WIDTH


class _PlainLog(LogFormatter):
    """Numbers on a logarithmic axis as they are written, without the formulas of the default."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def legend(results: Results, activations: Sequence[str]) -> list[tuple[str, str, str]]:
    """For each activation: its name, colour and line style, as CSS spells them."""
    styles = {"-": "solid", "--": "dashed", ":": "dotted"}
    return [
        (
            results.names[name],
            f"var(--series-{SERIES.index(_color(results, name))})",
            styles[_line_style(results, name)],
        )
        for name in activations
    ]


def difference_charts(results: Results) -> list[Chart]:
    """For each task, every candidate's mean difference with its interval and its seeds."""
    names = results.names
    charts = []
    for task in results.tasks:
        comparisons = [c for c in results.comparisons if c.task == task.source]
        draw = _drawing(_draw_differences, comparisons, results)
        rows = (
            f"{names[c.candidate]} minus {names[c.reference]} {signed(c.mean)}, "
            f"{interval(c.low, c.high)}"
            for c in comparisons
        )
        title = f"{names[task.source]}: difference in {task.metric}"
        height = 0.8 + 0.5 * len(comparisons)
        charts.append(_chart(title, f"{title}. {'; '.join(rows)}.", draw, height))
    return charts


def across_charts(results: Results) -> list[Chart]:
    """What the tasks say together: interquartile means, profiles, and ranks if there are any."""
    across = results.across
    if across is None:
        return []
    charts = []
    if across.aggregates:
        charts += [_interquartile_chart(across, results), _profile_chart(across, results)]
    if across.ranking:
        charts.append(_rank_chart(across.ranking, results))
    return charts


def _interquartile_chart(across: AcrossTasks, results: Results) -> Chart:
    title = "Interquartile mean over all tasks"
    means = (
        f"{results.names[a.activation]} {a.interquartile_mean.value:.4f} "
        f"({a.interquartile_mean.low:.4f} to {a.interquartile_mean.high:.4f})"
        for a in across.aggregates
    )
    draw = _drawing(_draw_interquartile, across, results)
    height = 0.8 + 0.32 * len(across.aggregates)
    return _chart(title, f"{title}, with 95 % intervals. {'; '.join(means)}.", draw, height)


def _profile_chart(across: AcrossTasks, results: Results) -> Chart:
    title = "Performance profiles"
    description = (
        f"{title}: for every score on the common scale, the share of all runs above it, with "
        "95 % bands for the candidates. The higher the line, the better."
    )
    return _chart(title, description, _drawing(_draw_profiles, across, results), 2.9)


def _rank_chart(ranking: Ranking, results: Results) -> Chart:
    title = f"Mean ranks over {ranking.tasks} tasks"
    ranks = (f"{results.names[name]} {mean:.2f}" for name, mean in ranking.ranks.items())
    description = (
        f"Critical-difference diagram. {title}, 1 is best: {', '.join(ranks)}. Bars join "
        f"activations that do not differ; critical difference {ranking.critical_difference:.2f}."
    )
    height = 1.6 + 0.2 * len(ranking.ranks)
    return _chart(title, description, _drawing(_draw_ranks, ranking, results), height, _WIDE)


def sensitivity_charts(results: Results) -> list[Chart]:
    """For each task, validation score over learning rate."""
    names = results.names
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
    charts = []
    for task in results.tasks:
        title = f"{results.names[task.source]}: training loss"
        description = f"{title}, mean of the final trials that did not diverge."
        charts.append(_chart(title, description, _drawing(_draw_training, task, results)))
    return charts


def shape_charts(results: Results) -> list[Chart]:
    """Each activation as documented, and as it was after training where it is learnable."""
    charts = []
    for shape in results.shapes:
        name = results.names[shape.activation]
        description = f"The activation {name} from {GRID[0]:g} to {GRID[-1]:g}."
        if shape.learned:
            description += " Thin lines: each layer after training, first seed of each task."
        draw = _drawing(_draw_shape, shape, results)
        charts.append(_chart(name, description, draw, 1.7, _SMALL))
    return charts


def _draw_differences(axis: Axes, comparisons: Sequence[Comparison], results: Results) -> None:
    names = _labels(results)
    for row, c in enumerate(comparisons):
        color = _color(results, c.candidate)
        # The seeds lie a little below their interval, so that neither hides the other.
        below = np.full(len(c.differences), row + 0.22)
        axis.plot(c.differences, below, "o", color=color, ms=3, alpha=0.45)
        axis.plot([c.low, c.high], [row, row], color=color, lw=3, solid_capstyle="round")
        axis.plot([c.mean], [row], "D", color=color, ms=6)
        other = names[c.reference] if c.question == "baseline" else "its frozen twin"
        axis.text(
            0, row - 0.25, f"{names[c.candidate]} − {other}",
            transform=axis.get_yaxis_transform(), fontsize=8,
            bbox={"facecolor": PANEL, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    axis.axvline(0, color=FAINT, lw=1, zorder=0)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(comparisons) - 0.5, -0.6)
    axis.set_xlabel("← worse · difference · better →")
    axis.locator_params(axis="x", nbins=5)


def _draw_interquartile(axis: Axes, across: AcrossTasks, results: Results) -> None:
    for row, aggregate in enumerate(across.aggregates):
        color, mean = _color(results, aggregate.activation), aggregate.interquartile_mean
        axis.plot([mean.low, mean.high], [row, row], color=color, lw=3, solid_capstyle="round")
        axis.plot([mean.value], [row], "D", color=color, ms=6)
    axis.set_yticks(range(len(across.aggregates)))
    axis.set_yticklabels([_labels(results)[a.activation] for a in across.aggregates])
    axis.set_ylim(len(across.aggregates) - 0.5, -0.5)
    axis.axvline(1, color=FAINT, lw=1, zorder=0)
    axis.set_xlabel("common scale · better →")
    axis.locator_params(axis="x", nbins=4)


def _draw_profiles(axis: Axes, across: AcrossTasks, results: Results) -> None:
    for a in across.aggregates:
        color = _color(results, a.activation)
        if a.activation in results.settings.candidates:
            axis.fill_between(
                across.thresholds, a.profile_low, a.profile_high, color=color, alpha=0.15, lw=0
            )
        axis.plot(across.thresholds, a.profile, _line_style(results, a.activation), color=color)
    axis.set_ylim(0, 1)
    axis.set_xlabel("score on the common scale")
    axis.set_ylabel("share of runs above")


def _draw_ranks(axis: Axes, ranking: Ranking, results: Results) -> None:
    import pandas
    import scikit_posthocs

    labels = _labels(results)
    names = [labels[name] for name in ranking.ranks]
    colors = {labels[name]: _color(results, name) for name in ranking.ranks}
    scikit_posthocs.critical_difference_diagram(
        dict(zip(names, ranking.ranks.values(), strict=True)),
        pandas.DataFrame(ranking.p_values, index=names, columns=names),
        ax=axis,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        label_props={"fontsize": 9},
        color_palette=colors,
        crossbar_props={"color": INK, "linewidth": 3},
        text_h_margin=0.05,
    )
    # Its own bar of the critical difference would lie across the numbers of the axis.
    best, reach = min(ranking.ranks.values()), ranking.critical_difference
    axis.plot([best, best + reach], [1.6, 1.6], "|-", color=INK, lw=1.5)
    axis.text(best + reach / 2, 1.8, f"critical difference {reach:.2f}", ha="center", fontsize=9)


def _draw_sensitivity(axis: Axes, task: TaskInfo, results: Results) -> None:
    for tuning in (t for t in results.tunings if t.task == task.source):
        color = _color(results, tuning.activation)
        style = _line_style(results, tuning.activation)
        rates, scores = list(tuning.validation), list(tuning.validation.values())
        axis.plot(rates, scores, style, color=color)
        axis.plot([tuning.learning_rate], [tuning.score], "o", color=color, ms=5)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(_PlainLog())
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel("learning rate (● chosen)")


def _draw_training(axis: Axes, task: TaskInfo, results: Results) -> None:
    for name in results.settings.activations:
        trials = results.final_trials(task.source, name)
        curves = [trial.curve for trial in trials if trial.status == "ok"]
        if curves:
            mean = np.mean(curves, axis=0)
            epochs = np.arange(1, len(mean) + 1)
            style, color = _line_style(results, name), _color(results, name)
            marker = "o" if len(mean) == 1 else None  # a line through one point is none
            axis.plot(epochs, mean, style, color=color, marker=marker, ms=5)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_PlainLog())
    axis.yaxis.set_minor_formatter(_PlainLog())
    axis.locator_params(axis="x", integer=True)
    axis.set_xlabel("epoch")


def _draw_shape(axis: Axes, shape: Shape, results: Results) -> None:
    color = _color(results, shape.activation)
    for values in shape.learned:
        axis.plot(GRID, np.array(values, dtype=float), color=color, lw=0.7, alpha=0.7)
    axis.plot(GRID, np.array(shape.values, dtype=float), color=color, lw=2.2)
    axis.axhline(0, color=FAINT, lw=0.6, zorder=0)
    axis.axvline(0, color=FAINT, lw=0.6, zorder=0)


def _labels(results: Results) -> dict[str, str]:
    """Names of activations and tasks that a plot has room for, still distinct."""
    labels: dict[str, str] = {}
    for source, name in results.names.items():
        label = name if len(name) <= _LONGEST_LABEL else f"…{name[1 - _LONGEST_LABEL :]}"
        while label in labels.values():
            label += "′"
        labels[source] = label
    return labels


def _color(results: Results, activation: str) -> str:
    return SERIES[results.settings.activations.index(activation) % len(SERIES)]


def _line_style(results: Results, activation: str) -> str:
    """Candidates as lines, baselines dashed, twins dotted: told apart without colour too."""
    if activation in results.settings.candidates:
        return "-"
    return ":" if activation in results.settings.ablations.values() else "--"


def _drawing(draw: Callable[..., None], *args: object) -> Callable[[Axes], None]:
    return lambda axis: draw(axis, *args)


def _chart(
    title: str,
    description: str,
    draw: Callable[[Axes], None],
    height: float = 2.6,
    width: float = _WIDTH,
) -> Chart:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Chart(title, description, _inline(buffer.getvalue(), description), width)


def _inline(svg: str, description: str) -> Markup:
    """Matplotlib's document as an element of the page, named for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    # Ids that nothing refers to would be the same in every plot of the page.
    svg = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", svg)
    for index, color in enumerate(SERIES):
        svg = svg.replace(color, f"var(--series-{index})")
    svg = (
        svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)").replace(PANEL, "var(--panel)")
    )
    opening = Markup('<svg role="img" aria-label="{}" ').format(description)
    return Markup(svg.replace("<svg ", opening, 1))
