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

from zeta.evaluate.results import Results, TaskInfo, Verdict, short_names
from zeta.evaluate.wording import signed

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
    """The table, the verdict, and where the report is, on standard output."""
    console = Console(file=sys.stdout)
    names = short_names((*results.settings.activations, *results.settings.tasks))
    for task in results.tasks:
        console.print(_table(results, task))
    console.print(Text(results.conclusion.headline, style="bold"), soft_wrap=True)
    console.print(Text(results.conclusion.paragraph))
    for candidate, sentence in results.conclusion.candidates.items():
        console.print(Text(f"  {names[candidate]}: {sentence}."))
    console.print(Text(f"Report: {results.report}"), soft_wrap=True)


def _table(results: Results, task: TaskInfo) -> Table:
    names = short_names((*results.settings.activations, *results.settings.tasks))
    title = Text(f"{names[task.source]} ({task.metric})")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title)
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("activation", overflow="fold")
    table.add_column("mean±sd", no_wrap=True)
    table.add_column("difference\n[95 % interval]", no_wrap=True)
    table.add_column("verdict", max_width=len("no difference"))
    for activation in results.settings.activations:
        score = results.score(task.source, activation)
        difference, verdict = Text("baseline", style="dim"), Text("")
        if c := results.comparison(task.source, activation):
            difference = Text(
                f"{signed(c.mean)} to {names[c.reference]}\n[{signed(c.low)}, {signed(c.high)}]"
            )
            verdict = Text(c.verdict.value, style=_STYLES.get(c.verdict, ""))
        value = f"{score.mean:.4f}±{score.sd:.4f}"
        value += f"\n{score.diverged} diverged" if score.diverged else ""
        table.add_row(Text(names[activation]), Text(value), difference, verdict)
    return table
