"""The leaderboard's page: one file that loads nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from zeta import activations
from zeta._errors import UserError
from zeta._facts import published, used_by
from zeta._formula import Formula
from zeta._listing import number, shape
from zeta.evaluate.charts import Tip, draw_svg
from zeta.evaluate.pen import Palette
from zeta.evaluate.results import Verdict
from zeta.evaluate.shapes import GRID
from zeta.evaluate.statistics import Estimate
from zeta.evaluate.store import write_atomically
from zeta.evaluate.wording import count, signed
from zeta.leaderboard.board import Board, Cell, Entry, Played, Standings

PAGE = "leaderboard.html"
# A cell's shade: thresholds of |effect| on the common scale.
_SHADES = (0.003, 0.01, 0.03, 0.1)
# A curve's picture: from -4 to 4 by from -2 to 4, 10 pixels a unit.
_LOW, _HIGH, _UNIT = -2.0, 4.0, 10


@dataclass(frozen=True)
class Row:
    """An entry where it is placed.

    Attributes:
        place: 1 is best.
        played: the last selecting round that it reached.
        rounds: every round that it was in, with what it did there.
        formula: None where it is not known any more.
    """

    place: int
    name: str
    played: Played
    entry: Entry
    rounds: list[tuple[Played, Entry]]
    formula: Formula | None
    curve: str

    def cell(self, task: str) -> Cell | None:
        """How it did on a task, in the last selecting round that had it."""
        found = [c for p, e in self.rounds if p.selects for c in e.cells if c.task == task]
        return found[-1] if found else None

    def effect(self, round_name: str) -> Estimate | None:
        """Its mean difference to the reference in a round."""
        return next((e.mean for p, e in self.rounds if p.name == round_name), None)

    @property
    def width(self) -> float:
        """Decades of learning rates that do, mean over the tasks."""
        return float(np.mean([cell.width for cell in self.entry.cells]))

    @property
    def diverged(self) -> float:
        """The share of trials, mean over the tasks."""
        return float(np.mean([cell.diverged for cell in self.entry.cells]))

    @property
    def facts(self) -> str:
        """What there is to know of the formula, in a line."""
        if self.formula is None:
            return ""
        if len(self.formula.inputs) > 1:
            return ", ".join(filter(None, (used_by(self.formula), published(self.formula))))
        facts = self.formula.facts()
        limits = f"{number(facts.below)} at −∞, {number(facts.above)} at +∞"
        origin = filter(None, (facts.used_by, published(self.formula)))
        return "; ".join([limits, shape(facts), f"gain {facts.gain:.3f}", *origin])


def write_page(board: Board, folder: Path) -> None:
    """Write ``leaderboard.html``, whole or not at all.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        write_atomically(folder / PAGE, render(board))
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error


def render(board: Board) -> str:
    """The page: the ranking, cost against quality, a map of tasks, and each entry's profile."""
    loader = jinja2.ChoiceLoader(
        [jinja2.PackageLoader("zeta.leaderboard"), jinja2.PackageLoader("zeta.evaluate")]
    )
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "shade": shade, "interval": interval}
    scripts = [environment.get_template(name) for name in ("report.js", "leaderboard.js")]
    script = "\n".join(template.render() for template in scripts)
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        divisions=[(division, rows(division), cost_plot(division)) for division in board.divisions],
        headline=headline(board),
        tasks_of=tasks_of,
        rounds_beside=rounds_beside,
        units=(_UNIT * (GRID[-1] - GRID[0]), _UNIT * (_HIGH - _LOW)),
        axes=(_UNIT * -GRID[0], _UNIT * _HIGH),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def headline(board: Board) -> str:
    """What the first division says, in a sentence.

    The count is of those whose mean differs from the reference's after correction.
    """
    division = board.divisions[0]
    ranked = [p for p in division.rounds if p.selects]
    if not ranked:
        return "No entry could be ranked so far"
    played = ranked[-1]
    others = [e for e in played.entries if e.activation != division.reference]
    better = [e.activation for e in others if e.verdict is Verdict.BETTER]
    tried = len({e.activation for p in division.rounds for e in p.entries})
    found = ", ".join(better) if better else "none"
    return (
        f"Of {count(tried, 'activation')}, {len(others)} reached the last round; better than "
        f"{division.reference} over its data sets: {found}"
    )


def rows(division: Standings) -> list[Row]:
    """The division's entries, best first: later rounds before earlier ones."""
    known = {**activations.CATALOGUE, **activations.GATES}
    return [
        Row(
            place=place,
            name=entry.activation,
            played=played,
            entry=entry,
            rounds=[
                (p, e)
                for p in division.rounds
                for e in p.entries
                if e.activation == entry.activation
            ],
            formula=known.get(entry.activation),
            curve=_curve(division.shapes.get(entry.activation, ())),
        )
        for place, (played, entry) in enumerate(division.placed, start=1)
    ]


def tasks_of(division: Standings) -> list[str]:
    """The tasks of the rounds that select."""
    names = (task for p in division.rounds if p.selects for task in p.tasks)
    return list(dict.fromkeys(names))


def rounds_beside(division: Standings) -> list[Played]:
    """The rounds beside those by which entries are placed."""
    return [played for played in division.rounds if played.entries and not played.selects]


def shade(effect: float) -> str:
    """The class of a cell in the map: its sign, and how far from 0 it is.

    Example:
        >>> from zeta.leaderboard.page import shade
        >>> shade(0.002), shade(0.02), shade(-0.5)
        ('even', 'ahead-2', 'behind-4')
    """
    steps = sum(abs(effect) >= threshold for threshold in _SHADES)
    return f"{'ahead' if effect > 0 else 'behind'}-{steps}" if steps else "even"


def interval(found: Estimate | None) -> str:
    """An estimate in words; a dash where there is none."""
    if found is None:
        return "–"
    return f"{signed(found.value)} ({signed(found.low)} to {signed(found.high)})"


def _curve(values: Sequence[float | None]) -> str:
    """The values as the path of an SVG, of which the page shows what lies in its frame."""
    path, pen = [], "M"
    for x, y in zip(GRID, values, strict=False):
        inside = y is not None and 2 * _LOW <= y <= 2 * _HIGH
        if inside:
            assert y is not None
            path.append(f"{pen}{_UNIT * (x - GRID[0]):.0f} {_UNIT * (_HIGH - y):.1f}")
        pen = "L" if inside else "M"
    return " ".join(path)


def cost_plot(division: Standings) -> Markup:
    """Quality over the cost of a step; empty where no cost is known, or no entry is placed."""
    if not any(entry.activation in division.costs for _, entry in division.placed):
        return Markup("")
    title = f"{division.name}: mean difference to {division.reference} over the time of a step"
    return draw_svg(title, title, (7.4, 4.2), lambda axis, palette: _draw(axis, palette, division))


def _draw(axis: Axes, palette: Palette, division: Standings) -> Iterator[Tip]:
    placed = [(p, e) for p, e in division.placed if e.activation in division.costs]
    last = [p for p in division.rounds if p.selects][-1]
    values = sorted((e.shrunken.value for _, e in placed), reverse=True)
    lowest = values[3 * (len(values) - 1) // 4]
    frontier = _frontier(division, [entry for played, entry in placed if played is last])
    for played, entry in placed:
        name, time = entry.activation, division.costs[entry.activation].time
        shown = max(entry.shrunken.value, lowest)
        color = palette.series[0] if played is last else palette.faint
        axis.plot([time], [shown], "v" if shown > entry.shrunken.value else "o", color=color, ms=5)
        if (entry in frontier and shown > lowest) or name in division.kept:
            axis.annotate(
                name, (time, shown), (4, 3), textcoords="offset points",
                fontsize=8, color=palette.ink,
            )  # fmt: skip
        yield Tip(time, shown, f"{name}: {signed(entry.shrunken.value)}, {time:.2f} times the time")
    corners = [
        (division.costs[e.activation].time, e.shrunken.value)
        for e in frontier
        if e.shrunken.value >= lowest
    ]
    axis.step(*zip(*corners, strict=True), where="post", color=palette.series[0], lw=1, zorder=0)
    axis.axhline(0, color=palette.faint, lw=1, zorder=0)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(f"time of value and gradients, in those of {division.reference}")
    axis.set_ylabel("better →")


def _frontier(division: Standings, entries: Sequence[Entry]) -> list[Entry]:
    """The entries than which none is both cheaper and better, cheapest first."""
    found: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: division.costs[entry.activation].time):
        if not found or entry.shrunken.value > found[-1].shrunken.value:
            found.append(entry)
    return found
