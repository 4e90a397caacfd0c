"""The report's plots: inline SVG whose colours follow the page, or files for a paper."""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from zeta.evaluate.pen import PAGE, PAPER, Palette, Pen, Style
from zeta.evaluate.protocol import Trial, scored_epochs
from zeta.evaluate.ranking import Ranking
from zeta.evaluate.results import AcrossTasks, Comparison, Results, Shape, TaskInfo
from zeta.evaluate.shapes import GRID
from zeta.evaluate.wording import interval, listing, signed

# Inches, at 96 pixels each: a phone shows the plots of usual width at their own size.
_WIDTH, _SMALL, _WIDE = 3.7, 2.3, 7.4
_POINTS = 72  # of an SVG, to the inch
_LEGEND_COLUMNS, _LEGEND_ROW = 2, 0.2  # a row in inches
# A line shows the values of so many of its points at most.
_MOST_TIPS = 12
# What a file of a figure may end in.
FORMATS = ("svg", "pdf")


@dataclass(frozen=True)
class Tip:
    """What is shown beside the pointer at a place, given in the axes' numbers."""

    x: float
    y: float
    text: str


Draw = Callable[[Axes, Pen], Iterable[Tip]]


@dataclass(frozen=True)
class Chart:
    """One plot: what draws it, and in words what it shows.

    Attributes:
        lines: the activations whose names it does not have in it; the page has a legend for all.
    """

    title: str
    description: str
    results: Results
    draw: Draw
    height: float = 2.6
    width: float = _WIDTH
    lines: tuple[str, ...] = ()

    @property
    def wide(self) -> bool:
        """Whether it needs a row of its own."""
        return self.width > _WIDTH

    @property
    def svg(self) -> Markup:
        """An element of the page, with values where the pointer rests."""
        return draw_svg(
            self.title,
            self.description,
            (self.width, self.height),
            lambda axis, palette: self.draw(axis, Pen(self.results, palette)),
        )

    def save(self, stem: Path) -> None:
        """Write it as ``stem``.svg and ``stem``.pdf, with its title and legend."""
        with matplotlib.rc_context(_style(PAPER, self.title) | {"pdf.fonttype": 42}):
            figure = _figure((self.width, self.height))
            list(self.draw(figure.add_subplot(), Pen(self.results, PAPER)))
            figure.suptitle(self.title, fontsize=10)
            self.add_legend(figure)
            for suffix in FORMATS:
                date = "Date" if suffix == "svg" else "CreationDate"
                figure.savefig(f"{stem}.{suffix}", metadata={date: None})

    def add_legend(self, figure: Figure) -> None:
        """Name the lines below the plot, which becomes so much higher."""
        pen = Pen(self.results, PAPER)
        drawn = [Line2D([], [], **pen.line(n, [0, 1]), label=pen.labels[n]) for n in self.lines]
        if drawn:
            rows = -(-len(drawn) // _LEGEND_COLUMNS)
            figure.set_figheight(self.height + _LEGEND_ROW * rows)
            figure.legend(
                handles=drawn,
                loc="outside lower center",
                ncols=_LEGEND_COLUMNS,
                fontsize=7,
                columnspacing=1.0,
            )


def draw_svg(
    title: str,
    description: str,
    size: tuple[float, float],
    draw: Callable[[Axes, Palette], Iterable[Tip]],
) -> Markup:
    """A plot as an element of a page, whose colours follow the page's, with values at the pointer.

    Args:
        title: no two plots of a page have the same.
        description: for screen readers.
        size: width and height, in inches.
    """
    with matplotlib.rc_context(_style(PAGE, title) | {"svg.fonttype": "none"}):
        figure = _figure(size)
        tips = list(draw(figure.add_subplot(), PAGE))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = _inline(buffer.getvalue(), description)
    return Markup(svg.removesuffix("</svg>") + str(_circles(figure, tips)) + "</svg>")


def _figure(size: tuple[float, float]) -> Figure:
    return Figure(figsize=size, layout="constrained", dpi=_POINTS)


def _style(palette: Palette, salt: str) -> dict[str, Any]:
    ink, faint = palette.ink, palette.faint
    return {
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": ink,
        "axes.edgecolor": faint,
        "axes.labelcolor": ink,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": faint,
        "ytick.color": faint,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "axes.formatter.useoffset": False,
        "text.parse_math": False,  # a dollar sign in a user's name is one
    }


class _PlainLog(LogFormatter):
    """Numbers on a logarithmic axis as they are written, without the formulas of the default."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def legend(results: Results, activations: Sequence[str]) -> list[tuple[str, Style]]:
    """The name and the line of each activation."""
    styles = Pen(results).styles
    return [(results.names[name], styles[name]) for name in activations]


def difference_charts(results: Results) -> list[Chart]:
    """For each task, every candidate's mean difference with its interval and its seeds."""
    names = results.names
    charts = []
    for task in results.tasks:
        comparisons = [c for c in results.comparisons if c.task == task.source]
        draw = _drawing(_draw_differences, comparisons)
        rows = (
            f"{names[c.candidate]} minus {names[c.reference]} {signed(c.mean)}, "
            f"{interval(c.low, c.high)}"
            for c in comparisons
        )
        title = f"{names[task.source]}: difference in {task.metric}"
        height = 0.8 + 0.5 * len(comparisons)
        charts.append(Chart(title, f"{title}. {'; '.join(rows)}.", results, draw, height))
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
    draw = _drawing(_draw_interquartile, across)
    height = 0.8 + 0.32 * len(across.aggregates)
    description = f"{title}, with 95 % intervals. {'; '.join(means)}."
    return Chart(title, description, results, draw, height)


def _profile_chart(across: AcrossTasks, results: Results) -> Chart:
    title = "Performance profiles"
    description = (
        f"{title}: for every score on the common scale, the share of all runs above it, with "
        "95 % bands for the candidates. The higher the line, the better."
    )
    drawn = tuple(a.activation for a in across.aggregates)
    draw = _drawing(_draw_profiles, across)
    return Chart(title, description, results, draw, 2.9, lines=drawn)


def _rank_chart(ranking: Ranking, results: Results) -> Chart:
    title = f"Mean ranks over {ranking.tasks} tasks"
    ranks = (f"{results.names[name]} {mean:.2f}" for name, mean in ranking.ranks.items())
    description = (
        f"Critical-difference diagram. {title}, 1 is best: {', '.join(ranks)}. Bars join "
        f"activations that do not differ; critical difference {ranking.critical_difference:.2f}."
    )
    height = 1.6 + 0.2 * len(ranking.ranks)
    return Chart(title, description, results, _drawing(_draw_ranks, ranking), height, _WIDE)


def sensitivity_charts(results: Results) -> list[Chart]:
    """For each task, validation score over learning rate."""
    names = results.names
    charts = []
    for task in results.tasks:
        tuned = [t for t in results.tunings if t.task == task.source]
        winners = (f"{names[t.activation]} {t.learning_rate:g}" for t in tuned)
        title = f"{names[task.source]}: validation {task.metric}"
        description = f"{title}. Best learning rates: {listing(list(winners))}."
        draw, lines = _drawing(_draw_sensitivity, task), results.settings.activations
        charts.append(Chart(title, description, results, draw, lines=lines))
    return charts


def training_charts(results: Results) -> list[Chart]:
    """For each task, by epoch: the training loss, and the scores on validation and test rows."""
    charts = []
    for task in results.tasks:
        title = f"{results.names[task.source]}: training loss"
        description = f"{title}, mean of the final trials that did not diverge."
        draw, lines = _drawing(_draw_training, task), results.settings.activations
        charts.append(Chart(title, description, results, draw, lines=lines))
        charts += _score_charts(results, task)
    return charts


def _score_charts(results: Results, task: TaskInfo) -> list[Chart]:
    """Streams have none: they are scored before they are trained on."""
    tunings = [tuning for tuning in results.tunings if tuning.task == task.source]
    trials = {
        "validation": {t.activation: results.tuning_trials(t) for t in tunings},
        "test": {t.activation: results.final_trials(t.task, t.activation) for t in tunings},
    }
    charts = []
    for rows, of_all in trials.items():
        curves = {name: mean for name, some in of_all.items() if (mean := _mean_scores(some))}
        if curves:
            title = f"{results.names[task.source]}: {rows} {task.metric} by epoch"
            which = (
                "tuning trials at the learning rate chosen" if rows != "test" else "final trials"
            )
            description = f"{title}, mean of the {which} that did not diverge."
            draw, lines = _drawing(_draw_scores, task, curves), results.settings.activations
            charts.append(Chart(title, description, results, draw, lines=lines))
    return charts


def _mean_scores(trials: Sequence[Trial]) -> list[float]:
    """Over the trials that did not diverge and were scored by epoch; older ones were not."""
    curves = [
        trial.score_curve
        for trial in trials
        if trial.status == "ok"
        and len(trial.score_curve) == len(scored_epochs(trial.key.budget.epochs))
    ]
    mean: list[float] = np.mean(curves, axis=0).tolist() if curves else []
    return mean


def shape_charts(results: Results) -> list[Chart]:
    """Each activation as documented, and as it was after training where it is learnable."""
    charts = []
    for shape in results.shapes:
        name = results.names[shape.activation]
        description = f"The activation {name} from {GRID[0]:g} to {GRID[-1]:g}."
        if shape.learned:
            description += " Thin lines: each layer after training, first seed of each task."
        charts.append(Chart(name, description, results, _drawing(_draw_shape, shape), 1.7, _SMALL))
    return charts


def _draw_differences(axis: Axes, pen: Pen, comparisons: Sequence[Comparison]) -> Iterator[Tip]:
    names = pen.labels
    for row, c in enumerate(comparisons):
        color = pen.color(c.candidate)
        # The seeds lie a little below their interval, so that neither hides the other.
        below = np.full(len(c.differences), row + 0.22)
        axis.plot(c.differences, below, "o", color=color, ms=3, alpha=0.45)
        axis.plot([c.low, c.high], [row, row], color=color, lw=3, solid_capstyle="round")
        axis.plot([c.mean], [row], "D", color=color, ms=6)
        other = "its frozen twin" if c.question == "ablation" else names[c.reference]
        label = f"{names[c.candidate]} − {other}"
        axis.text(
            0, row - 0.25, label,
            transform=axis.get_yaxis_transform(), fontsize=8,
            bbox={"facecolor": pen.palette.panel, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        yield from (
            Tip(d, row + 0.22, f"{label}: seed {i} of {len(below)}, {signed(d)}")
            for i, d in enumerate(c.differences, start=1)
        )
        yield Tip(c.mean, row, f"{label}: mean {signed(c.mean)}, {interval(c.low, c.high)}")
    rope = comparisons[0].rope
    axis.axvspan(-rope, rope, color=pen.palette.faint, alpha=0.15, lw=0, zorder=0)
    axis.axvline(0, color=pen.palette.faint, lw=1, zorder=0)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(comparisons) - 0.5, -0.6)
    axis.set_xlabel("← worse · difference · better →")
    axis.locator_params(axis="x", nbins=5)


def _draw_interquartile(axis: Axes, pen: Pen, across: AcrossTasks) -> Iterator[Tip]:
    labels = [pen.labels[a.activation] for a in across.aggregates]
    for row, aggregate in enumerate(across.aggregates):
        color, mean = pen.color(aggregate.activation), aggregate.interquartile_mean
        axis.plot([mean.low, mean.high], [row, row], color=color, lw=3, solid_capstyle="round")
        axis.plot([mean.value], [row], "D", color=color, ms=6)
        words = f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"
        yield Tip(mean.value, row, f"{labels[row]}: {words}")
    axis.set_yticks(range(len(labels)))
    axis.set_yticklabels(labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.axvline(1, color=pen.palette.faint, lw=1, zorder=0)
    axis.set_xlabel("common scale · better →")
    axis.locator_params(axis="x", nbins=4)


def _draw_profiles(axis: Axes, pen: Pen, across: AcrossTasks) -> Iterator[Tip]:
    for a in across.aggregates:
        line = pen.line(a.activation, across.thresholds)
        if a.activation in pen.results.settings.candidates:
            axis.fill_between(
                across.thresholds,
                a.profile_low,
                a.profile_high,
                color=line["color"],
                alpha=0.15,
                lw=0,
            )
        axis.plot(across.thresholds, a.profile, **line)
        label = pen.labels[a.activation]
        yield from _along(across.thresholds, a.profile, label, "{1:.0%} of runs above {0:.3g}")
    axis.set_ylim(0, 1)
    axis.set_xlabel("score on the common scale")
    axis.set_ylabel("share of runs above")


def _draw_ranks(axis: Axes, pen: Pen, ranking: Ranking) -> Iterator[Tip]:
    import pandas
    import scikit_posthocs

    names = [pen.labels[name] for name in ranking.ranks]
    colors = {pen.labels[name]: pen.color(name) for name in ranking.ranks}
    scikit_posthocs.critical_difference_diagram(
        dict(zip(names, ranking.ranks.values(), strict=True)),
        pandas.DataFrame(ranking.p_values, index=names, columns=names),
        ax=axis,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        label_props={"fontsize": 9},
        color_palette=colors,
        crossbar_props={"color": pen.palette.ink, "linewidth": 3},
        text_h_margin=0.05,
    )
    # Its own bar of the critical difference would lie across the numbers of the axis.
    best, reach = min(ranking.ranks.values()), ranking.critical_difference
    axis.plot([best, best + reach], [1.6, 1.6], "|-", color=pen.palette.ink, lw=1.5)
    axis.text(best + reach / 2, 1.8, f"critical difference {reach:.2f}", ha="center", fontsize=9)
    return iter(())  # the figures are written beside the names


def _draw_sensitivity(axis: Axes, pen: Pen, task: TaskInfo) -> Iterator[Tip]:
    for tuning in (t for t in pen.results.tunings if t.task == task.source):
        rates, scores = list(tuning.validation), list(tuning.validation.values())
        line = pen.line(tuning.activation, rates)
        axis.plot(rates, scores, **line)
        chosen = {"color": line["color"], "mfc": "none", "ms": 9}
        axis.plot([tuning.learning_rate], [tuning.score], "o", **chosen)
        yield from _along(rates, scores, pen.labels[tuning.activation], "{1:.4f} at {0:g}")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(_PlainLog())
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel("learning rate (○ chosen)")


def _draw_training(axis: Axes, pen: Pen, task: TaskInfo) -> Iterator[Tip]:
    for name in pen.results.settings.activations:
        trials = pen.results.final_trials(task.source, name)
        curves = [trial.curve for trial in trials if trial.status == "ok"]
        if curves:
            mean = np.mean(curves, axis=0).tolist()
            epochs = range(1, len(mean) + 1)
            axis.plot(epochs, mean, **pen.line(name, mean))
            yield from _along(epochs, mean, pen.labels[name], "{1:.4g} in epoch {0}")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_PlainLog())
    axis.yaxis.set_minor_formatter(_PlainLog())
    axis.locator_params(axis="x", integer=True)
    axis.set_xlabel("epoch")


def _draw_scores(
    axis: Axes, pen: Pen, task: TaskInfo, curves: Mapping[str, list[float]]
) -> Iterator[Tip]:
    epochs = scored_epochs(task.epochs)
    for name, mean in curves.items():
        axis.plot(epochs, mean, **pen.line(name, mean))
        yield from _along(epochs, mean, pen.labels[name], "{1:.4f} after epoch {0}")
    axis.locator_params(axis="x", integer=True)
    axis.set_xlabel("epoch")


def _draw_shape(axis: Axes, pen: Pen, shape: Shape) -> Iterator[Tip]:
    color, faint = pen.color(shape.activation), pen.palette.faint
    for learned in shape.learned:
        axis.plot(GRID, np.array(learned, dtype=float), color=color, lw=0.7, alpha=0.7)
    values: list[float] = np.array(shape.values, dtype=float).tolist()
    axis.plot(GRID, values, color=color, lw=2.2)
    axis.axhline(0, color=faint, lw=0.6, zorder=0)
    axis.axvline(0, color=faint, lw=0.6, zorder=0)
    yield from _along(GRID, values, pen.labels[shape.activation], "{1:.4g} at {0:g}")


def _along(x: Sequence[float], y: Sequence[float], label: str, text: str) -> Iterator[Tip]:
    """Values of some of a line's points, its ends among them.

    Args:
        label: of the line.
        text: what to show of a point, its braces filled with x and y.
    """
    for i in sorted({round(i) for i in np.linspace(0, len(x) - 1, min(len(x), _MOST_TIPS))}):
        yield Tip(x[i], y[i], f"{label}: {text.format(x[i], y[i])}")


def _drawing(draw: Callable[..., Iterator[Tip]], *args: object) -> Draw:
    return lambda axis, pen: draw(axis, pen, *args)


def _circles(figure: Figure, tips: Sequence[Tip]) -> Markup:
    """A circle at each tip that lies in the axes; browsers show its title at the pointer."""
    (axis,) = figure.axes
    size = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>')
    height = figure.bbox.height
    circles = Markup("")
    for tip in tips:
        x, y = axis.transData.transform((tip.x, tip.y))
        if math.isfinite(x + y) and axis.bbox.padded(1).contains(x, y):
            circles += size.format(x, height - y, tip.text)
    return Markup('<g class="tips">{}</g>').format(circles)


def _inline(svg: str, description: str) -> str:
    """Matplotlib's document as an element of the page, named for screen readers."""
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    # Ids that nothing refers to would be the same in every plot of the page.
    svg = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", svg)
    for index, color in enumerate(PAGE.series):
        svg = svg.replace(color, f"var(--series-{index})")
    for name in ("ink", "faint", "panel"):
        svg = svg.replace(getattr(PAGE, name), f"var(--{name})")
    opening = Markup('<svg role="img" aria-label="{}" ').format(description)
    return svg.replace("<svg ", str(opening), 1)
