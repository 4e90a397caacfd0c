"""The evaluation in a terminal: a live progress bar, then a table and the verdict."""

import sys
import time
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from zeta.evaluate.results import Results, TaskInfo, Verdict
from zeta.evaluate.versus import Versus, describe
from zeta.evaluate.wording import percent, signed

_PHASES = {"tuning": "tuning learning rates", "final": "final trials, fresh seeds"}
_STYLES = {Verdict.BETTER: "bold green", Verdict.WORSE: "bold red"}
_SECONDS_BETWEEN_LINES = 10.0


class TerminalProgress:
    """A :class:`zeta.evaluate.Progress` for a terminal; sparse lines where there is none.

    Args:
        console: writes to standard error, so that standard output holds the result alone.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._row = self._bar.add_task("starting", total=None)
        self._description, self._total = "starting", 0
        self._started = self._last_line = time.monotonic()

    def phase(self, name: str, total: int) -> None:
        """A phase begins, or its plan grew."""
        self._total = total
        self._bar.update(self._row, description=_PHASES[name], total=total)
        if self._description != _PHASES[name]:
            self._description = _PHASES[name]
            if not self._live:
                self.note(self._description)

    def advance(self, finished: int) -> None:
        """``finished`` trials are done in all."""
        self._bar.update(self._row, completed=finished)
        now = time.monotonic()
        if not self._live and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            elapsed = now - self._started
            self.note(f"{finished}/{self._total} trials, {elapsed:.0f} s")

    def note(self, line: str) -> None:
        """One line above the bar."""
        self._console.print(Text(line), soft_wrap=True)

    def __enter__(self) -> "TerminalProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


def print_results(results: Results) -> None:
    """The tables, the verdict, and where the report is, on standard output."""
    console = Console(file=sys.stdout)
    names = results.names
    for task in results.tasks:
        console.print(_table(results, task, names))
    conclusion = results.conclusion
    console.print(Text(conclusion.headline, style="bold"), soft_wrap=True)
    console.print(Text(conclusion.paragraph))
    for candidate, sentence in conclusion.candidates.items():
        console.print(Text(f"  {names[candidate]}: {sentence}."))
    for candidate, sentence in conclusion.ablations.items():
        console.print(Text(f"  {names[candidate]}: {sentence}."))
    for name, why in results.skipped.items():
        console.print(Text(f"Skipped {name}: {why}"))
    console.print(Text(f"Report: {results.report}"), soft_wrap=True)


def print_versus(found: Versus, names: dict[str, str]) -> None:
    """Two activations, or two tasks, side by side, and the verdicts in words."""
    console = Console(file=sys.stdout)
    a, b = names[found.a], names[found.b]
    across = "task" if found.kind == "activation" else "activation"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(across, overflow="fold")
    table.add_column(Text(f"{a}\n{b}"), overflow="fold")
    table.add_column("difference\n[95 % interval]", no_wrap=True)
    table.add_column("p\n(Holm)", no_wrap=True)
    table.add_column("improves\nwith probability", no_wrap=True)
    for label, c in found.comparisons.items():
        first, second = found.scores[label]
        table.add_row(
            Text(names[label]),
            Text(f"{first.mean:.4f}±{first.sd:.4f}\n{second.mean:.4f}±{second.sd:.4f}"),
            Text(f"{signed(c.mean)}\n[{signed(c.low)}, {signed(c.high)}]"),
            Text(f"{c.p_adjusted:.3f}"),
            Text(percent(c.improvement)),
        )
    console.print(table)
    for sentence in describe(found, names):
        console.print(Text(sentence))


def _table(results: Results, task: TaskInfo, names: dict[str, str]) -> Table:
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title=Text(f"{names[task.source]} ({task.metric})")
    )
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("activation", overflow="fold")
    table.add_column("mean±sd", no_wrap=True)
    table.add_column("difference\n[95 % interval]", no_wrap=True)
    table.add_column("verdict", max_width=len("no difference"))
    twins = results.settings.ablations.values()
    for activation in results.settings.activations:
        score = results.score(task.source, activation)
        role = "parameters frozen" if activation in twins else "baseline"
        difference, verdict = Text(role, style="dim"), Text("")
        if c := results.comparison(task.source, activation):
            difference = Text(
                f"{signed(c.mean)} to {names[c.reference]}\n[{signed(c.low)}, {signed(c.high)}]"
            )
            verdict = Text(c.verdict.value, style=_STYLES.get(c.verdict, ""))
        value = f"{score.mean:.4f}±{score.sd:.4f}"
        value += f"\n{score.diverged} diverged" if score.diverged else ""
        table.add_row(Text(names[activation]), Text(value), difference, verdict)
    return table
