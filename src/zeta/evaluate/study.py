"""`Study`: tune, extend the grid, train with fresh seeds, compare, report."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from zeta.doctor import environment
from zeta.evaluate import tasks as task_registry
from zeta.evaluate.engine import Engine
from zeta.evaluate.protocol import (
    Phase,
    Settings,
    Trial,
    TrialKey,
    formula_fingerprint,
    formula_source,
    half_decade,
)
from zeta.evaluate.results import Results, Run, TaskInfo, Tuning
from zeta.evaluate.store import TrialStore
from zeta.load_formula import load_formula

Pair = tuple[str, str]  # task, activation


class Progress(Protocol):
    """Told what happens during an evaluation."""

    def phase(self, name: str, total: int) -> None:
        """A phase begins; ``total`` trials are now planned in all, finished ones included."""

    def advance(self, finished: int) -> None:
        """``finished`` trials are done in all."""

    def note(self, line: str) -> None:
        """Something the user should read."""


class Silent:
    """A :class:`Progress` that shows nothing."""

    def phase(self, name: str, total: int) -> None:
        """Ignored."""

    def advance(self, finished: int) -> None:
        """Ignored."""

    def note(self, line: str) -> None:
        """Ignored."""


class Study:
    """One evaluation: which trials it needs, in which order, and what follows from them.

    Args:
        settings: what to compare.
        folder: for the report and the finished trials.
        engine: runs the others.
        progress: told of every finished trial.

    Raises:
        UserError: an unknown name, an unusable file or an unwritable folder.
    """

    def __init__(
        self, settings: Settings, folder: Path, engine: Engine, progress: Progress
    ) -> None:
        self.settings, self.folder = settings, folder
        self._engine, self._progress = engine, progress
        formulas = {name: load_formula(formula_source(name)) for name in settings.activations}
        self._formulas = {n: formula_fingerprint(n, f) for n, f in formulas.items()}
        self._tasks = {name: task_registry.get(name) for name in settings.tasks}
        self._store = TrialStore(folder, progress.note)
        if self._store.is_empty():
            engine.start()  # the workers' imports take as long as loading the data here
        self._infos = {name: self._describe(name) for name in settings.tasks}
        self._trials: dict[TrialKey, Trial] = {}
        self._run = 0

    @property
    def finished(self) -> int:
        """The finished trials, resumed ones included."""
        return len(self._trials)

    def run(self) -> Results:
        """Everything from tuning to the written report."""
        started = time.perf_counter()
        machine = environment()  # first: if it fails, no training is lost
        tunings = self._tune()
        self._finals(tunings)
        # Imported late: SciPy and Matplotlib take a second that the workers are better given.
        from zeta.evaluate.analyse import analyse
        from zeta.evaluate.report import write_report
        from zeta.evaluate.shapes import sample_shapes

        trials = tuple(sorted(self._trials.values(), key=self._order))
        run = Run(
            settings=self.settings,
            tasks=tuple(self._infos.values()),
            tunings=tuple(tunings),
            trials=trials,
            shapes=sample_shapes(self.settings, trials),
            environment=machine,
            timing={
                "seconds": round(time.perf_counter() - started, 2),
                "run": self._run,
                "resumed": len(self._trials) - self._run,
            },
        )
        results = analyse(run, self.folder)
        write_report(results)
        return results

    def _tune(self) -> list[Tuning]:
        """The learning rate of every pair; edge winners extend their grid, round by round."""
        grid = self.settings.grid_steps
        steps = {pair: list(grid) for pair in self._pairs()}
        asked = steps
        for _ in range(2 * self.settings.max_extensions + 1):
            self._complete("tuning", [self._tuning_keys(p, s) for p, s in asked.items()])
            winners = {pair: self._winner(pair, steps[pair]) for pair in steps}
            asked = {p: self._extension(winners[p], steps[p]) for p in steps}
            asked = {pair: new for pair, new in asked.items() if new}
            if not asked:
                break
            steps |= {pair: sorted(steps[pair] + new) for pair, new in asked.items()}
        return [
            Tuning(
                *pair,
                {half_decade(s): self._validation(pair, s) for s in steps[pair]},
                half_decade(winners[pair]),
            )
            for pair in steps
        ]

    def _extension(self, winner: int, steps: Sequence[int]) -> list[int]:
        """The step beyond the edge that won, unless that side was extended often enough."""
        grid, most = self.settings.grid_steps, self.settings.max_extensions
        if winner == steps[0] and grid[0] - winner < most:
            return [winner - 1]
        if winner == steps[-1] and winner - grid[-1] < most:
            return [winner + 1]
        return []

    def _winner(self, pair: Pair, steps: Sequence[int]) -> int:
        """The step with the best mean validation score; of equals, the nearest to the middle."""
        grid = self.settings.grid_steps
        middle = (grid[0] + grid[-1]) / 2
        return max(steps, key=lambda s: (self._validation(pair, s), -abs(s - middle)))

    def _validation(self, pair: Pair, step: int) -> float:
        info = self._infos[pair[0]]
        values = [info.score_of(self._trials[key]) for key in self._tuning_keys(pair, [step])]
        return sum(values) / len(values)

    def _finals(self, tunings: Sequence[Tuning]) -> None:
        """Train every activation with fresh seeds at its tuned learning rate."""
        seeds = self.settings.final_seeds
        groups = [
            [self._key((t.task, t.activation), t.learning_rate, seed, "final") for seed in seeds]
            for t in tunings
        ]
        self._complete("final", groups)

    def _complete(self, phase: Phase, groups: Sequence[Sequence[TrialKey]]) -> None:
        """Have every trial of the groups: from the store, or else run together and stored."""
        keys = [key for group in groups for key in group]
        still_to_come = len(self._pairs()) * self.settings.num_seeds if phase == "tuning" else 0
        self._progress.phase(phase, len(self._trials) + len(keys) + still_to_come)
        stored = {key: self._store.load(key) for key in keys}
        self._trials |= {key: trial for key, trial in stored.items() if trial}
        self._progress.advance(len(self._trials))
        missing = [[key for key in group if stored[key] is None] for group in groups]
        missing = [group for group in missing if group]
        for trials in self._engine.run(missing) if missing else ():
            self._store.save(trials)
            self._trials |= {trial.key: trial for trial in trials}
            self._run += len(trials)
            self._progress.advance(len(self._trials))

    def _tuning_keys(self, pair: Pair, steps: Sequence[int]) -> list[TrialKey]:
        return [
            self._key(pair, half_decade(step), seed, "tuning")
            for step in steps
            for seed in self.settings.tuning_seeds
        ]

    def _key(self, pair: Pair, learning_rate: float, seed: int, phase: Phase) -> TrialKey:
        task, activation = pair
        return TrialKey(
            task=task,
            data=self._infos[task].data,
            activation=activation,
            formula=self._formulas[activation],
            learning_rate=learning_rate,
            seed=seed,
            phase=phase,
            budget=self.settings.budget(self._tasks[task].budget),
        )

    def _pairs(self) -> list[Pair]:
        return [(task, name) for task in self._tasks for name in self._formulas]

    def _describe(self, name: str) -> TaskInfo:
        task = self._tasks[name]
        budget = self.settings.budget(task.budget)
        for seed in self.settings.tuning_seeds:
            task.split("tuning", seed)  # an unusable one is found before any training
        return TaskInfo(
            source=name,
            title=task.title,
            metric=task.metric,
            data=task.fingerprint(),
            constant=task.constant_score(),
            epochs=budget.epochs,
            batch_size=budget.batch_size,
            width=budget.width,
        )

    def _order(self, trial: Trial) -> tuple[bool, int, float, int]:
        """Reports list trials in an order that does not depend on which finished first."""
        key = trial.key
        position = self._pairs().index((key.task, key.activation))
        return key.phase == "final", position, key.learning_rate, key.seed
