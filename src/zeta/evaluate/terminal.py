"""The evaluation in a terminal: its plan, live progress bars, then a table and the verdict."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task as RichTask,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from zeta.evaluate.plan import Plan
from zeta.evaluate.protocol import Phase, Trial
from zeta.evaluate.results import Question, Results, TaskInfo, Verdict, short_names
from zeta.evaluate.tasks.condition import split_condition
from zeta.evaluate.versus import Versus, describe
from zeta.evaluate.wording import left_out, percent, signed

_PHASES = {"tuning": "tuning learning rates", "final": "final trials, fresh seeds"}
_STYLES = {Verdict.BETTER: "bold green", Verdict.WORSE: "bold red"}
_SECONDS_BETWEEN_LINES = 10.0


class TerminalProgress:
    """A :class:`zeta.evaluate.Progress` for a terminal: a bar for each task.

    Where there is no terminal, a line now and then.

    Args:
        console: writes to standard error, so that standard output holds the result alone.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._bars = Progress(
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
        self._rows: dict[str, TaskID] = {}
        self._phase: Phase | None = None
        self._run = 0  # trials, not those that were finished before
        self._started = self._last_line = time.monotonic()

    def phase(self, name: Phase, totals: Mapping[str, int]) -> None:
        """A phase begins, or its plan grew."""
        short = short_names(list(totals))
        for task, total in totals.items():
            if task not in self._rows:
                self._rows[task] = self._bars.add_task("", total=total)
            self._bars.update(
                self._rows[task], description=f"{short[task]}: {_PHASES[name]}", total=total
            )
        if self._phase != name:
            self._phase = name
            if not self._live:
                self.note(_PHASES[name])

    def finished(self, trials: Sequence[Trial], *, resumed: bool) -> None:
        """These trials are finished and kept."""
        for task, count in Counter(trial.key.task for trial in trials).items():
            if resumed:
                # A step that took no time would make the time left too short.
                done = int(self._bar(task).completed) + count
                self._bars.reset(self._rows[task], completed=done)
            else:
                self._bars.advance(self._rows[task], count)
        self._run += 0 if resumed else len(trials)
        now = time.monotonic()
        if not self._live and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.note(self._line(now - self._started))

    def note(self, line: str) -> None:
        """One line above the bars."""
        self._console.print(Text(line), soft_wrap=True)

    def _bar(self, task: str) -> RichTask:
        return next(bar for bar in self._bars.tasks if bar.id == self._rows[task])

    def _line(self, elapsed: float) -> str:
        """How many trials are finished, and the time left at the speed of this run."""
        finished = sum(int(bar.completed) for bar in self._bars.tasks)
        total = sum(int(bar.total or 0) for bar in self._bars.tasks)
        line = f"{finished}/{total} trials, {_duration(elapsed)}"
        if not self._run:
            return line
        return f"{line}, about {_duration(elapsed * (total - finished) / self._run)} left"

    def __enter__(self) -> "TerminalProgress":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


def print_plan(plan: Plan) -> None:
    """Trials, time and memory, on standard output."""
    console = Console(file=sys.stdout)
    names = short_names([task.task for task in plan.tasks])
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("task", "tuning", "final", "finished", "s per trial", "MB", "finds"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task in plan.tasks:
        seconds = "" if task.seconds is None else f"{task.seconds:.2g}"
        memory = "" if task.memory is None else f"{task.memory / 1e6:.0f}"
        counts = (task.tuning, task.final, task.finished)
        row = (names[task.task], *counts, seconds, memory, f"{task.detectable:.1f} sd")
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
    _print_skipped(console, plan.skipped)
    own = [task for task in plan.tasks if split_condition(task.task)[1] is None]
    silent = [names[task.task] for task in own if not task.tells_apart]
    if said := left_out(silent, len(own)):
        console.print(Text(said), soft_wrap=True)
    more = f", or of {plan.under_conditions} under conditions" if plan.under_conditions else ""
    console.print(
        "finds: the difference that is found with 80 %, in standard deviations of the paired "
        f"differences, if it is the only one of {plan.comparisons}{more}.",
        soft_wrap=True,
    )
    remaining = sum(task.remaining for task in plan.tasks)
    console.print(
        f"{remaining} trials to run, and up to {plan.most_extensions} more where a learning rate "
        "on the grid's edge wins.",
        soft_wrap=True,
    )
    if not remaining:
        return
    took = "a short probe" if any(task.measured for task in plan.tasks) else "finished trials"
    console.print(
        f"About {_duration(plan.seconds)} on {plan.workers} cores, going by {took}.",
        soft_wrap=True,
    )
    if plan.memory is not None:
        console.print(f"About {plan.memory / 1e6:.0f} MB of memory for the workers.")


def _duration(seconds: float) -> str:
    """In the unit that a person would say it in."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


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
    _print_skipped(console, results.skipped)
    console.print(Text(f"Report: {results.report}"), soft_wrap=True)


def _print_skipped(console: Console, skipped: Mapping[str, str]) -> None:
    for name, why in skipped.items():
        console.print(Text(f"Skipped {name}: {why}"), soft_wrap=True)


def print_versus(found: Versus, names: dict[str, str]) -> None:
    """Two activations, or two tasks, side by side, and the verdicts in words."""
    console = Console(file=sys.stdout)
    a, b = names[found.a], names[found.b]
    across = "task" if found.kind == "activation" else "activation"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(across, overflow="fold")
    table.add_column(Text(f"{a}\n{b}"), overflow="fold")
    table.add_column("difference\n[95 % interval]", no_wrap=True)
    table.add_column("p\n(BH)", no_wrap=True)
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
    table.add_column("verdict", max_width=len("too few seeds"))
    twins = results.settings.ablations.values()
    here = [name for on, name in results.settings.pairs if on == task.source]
    for activation in here:
        score = results.score(task.source, activation)
        role = "parameters frozen" if activation in twins else "baseline"
        role = "control" if activation == results.settings.control else role
        difference, verdict = Text(role, style="dim"), Text("")
        question: Question = "condition" if task.source in results.settings.variants else "baseline"
        if c := results.comparison(task.source, activation, question):
            difference = Text(
                f"{signed(c.mean)} to {names[c.reference]}\n[{signed(c.low)}, {signed(c.high)}]"
            )
            verdict = Text(c.verdict.value, style=_STYLES.get(c.verdict, ""))
        value = f"{score.mean:.4f}±{score.sd:.4f}"
        value += f"\n{score.diverged} diverged" if score.diverged else ""
        table.add_row(Text(names[activation]), Text(value), difference, verdict)
    return table
