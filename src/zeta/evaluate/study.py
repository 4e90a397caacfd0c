"""`Study`: tune, extend the grid, train with fresh seeds, compare, report."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from zeta.doctor import environment
from zeta.evaluate.engines import Engine
from zeta.evaluate.progress import Progress
from zeta.evaluate.protocol import Phase, Settings, Trial, TrialKey
from zeta.evaluate.results import Results, Run, Tuning
from zeta.evaluate.signals import uninterrupted
from zeta.evaluate.store import TrialStore
from zeta.evaluate.sweep import Sweep


class Study:
    """One evaluation from its first trial to the written report.

    Args:
        settings: what to compare.
        folder: for the report and the finished trials.
        engine: runs the others.
        progress: told of every finished trial.
        skipped: task -> why it is left out; noted once nothing can be wrong any more, and reported.

    Raises:
        UserError: an unknown name or an unusable file.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        engine: Engine,
        progress: Progress,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.folder = settings, folder
        self._engine, self._progress = engine, progress
        self._skipped = dict(skipped or {})
        self._sweep = Sweep(settings)
        if next((folder / "trials").glob("*.json"), None) is None:
            engine.start()  # the workers' imports take as long as loading the data here
        self._infos = self._sweep.infos
        self._trials: dict[TrialKey, Trial] = {}
        self._run = 0

    @property
    def finished(self) -> int:
        """The finished trials, resumed ones included."""
        return len(self._trials)

    def run(self) -> Results:
        """Everything from tuning to the written report.

        Raises:
            UserError: the folder cannot be used, or a trial cannot be run.
        """
        started = time.perf_counter()
        machine = environment()  # first: if it fails, no training is lost
        with TrialStore(self.folder, self._progress.note) as store:
            for name, reason in self._skipped.items():
                self._progress.note(f"task {name} is skipped: {reason}")
            tunings = self._tune(store)
            self._finals(store, tunings)
            # Imported late: SciPy and Matplotlib take a second that the workers are better given.
            from zeta.evaluate.analyse import analyse
            from zeta.evaluate.report import write_report
            from zeta.evaluate.shapes import sample_shapes

            trials = tuple(sorted(self._trials.values(), key=self._sweep.report_order))
            run = Run(
                settings=self.settings,
                tasks=tuple(self._infos.values()),
                tunings=tuple(tunings),
                trials=trials,
                shapes=sample_shapes(self.settings, trials),
                environment=machine,
                skipped=self._skipped,
                timing={
                    "seconds": round(time.perf_counter() - started, 2),
                    "run": self._run,
                    "resumed": len(self._trials) - self._run,
                },
            )
            results = analyse(run, self.folder)
            write_report(results)
        return results

    def _tune(self, store: TrialStore) -> list[Tuning]:
        """The learning rate of every pair; edge winners extend their grid, round by round."""
        pairs = self._sweep.pairs
        while asked := {p: s for p in pairs if (s := self._sweep.next_steps(p, self._trials))}:
            keys = [self._sweep.tuning_keys(pair, steps) for pair, steps in asked.items()]
            self._complete(store, "tuning", keys)
        return [self._sweep.tuning(pair, self._trials) for pair in pairs]

    def _finals(self, store: TrialStore, tunings: Sequence[Tuning]) -> None:
        """Train every activation with fresh seeds at its tuned learning rates."""
        keys = [self._sweep.final_keys((t.task, t.activation), t.learning_rates) for t in tunings]
        self._complete(store, "final", keys)

    def _complete(
        self, store: TrialStore, phase: Phase, asked: Sequence[Sequence[TrialKey]]
    ) -> None:
        """Have every trial asked for, a list for each pair: from the store, or else run."""
        keys = [key for of_pair in asked for key in of_pair]
        self._progress.phase(phase, self._totals(phase, keys))
        stored = {key: trial for key in keys if (trial := store.load(key))}
        if stored:
            self._trials |= stored
            self._progress.finished(list(stored.values()), resumed=True)
        groups = [group for of_pair in asked for group in self._sweep.groups(of_pair)]
        missing = [part for group in groups for part in _missing(group, stored)]
        missing.sort(key=self._expected_cost, reverse=True)
        for trials in self._engine.run(missing) if missing else ():
            with uninterrupted():  # what is stored is counted
                store.save(trials)
                self._trials |= {trial.key: trial for trial in trials}
                self._run += len(trials)
            self._progress.finished(trials, resumed=False)

    def _totals(self, phase: Phase, keys: Sequence[TrialKey]) -> dict[str, int]:
        """Task -> the trials that are finished, asked for now, or to come in the final phase."""
        count = Counter(key.task for key in (*self._trials, *keys))
        if phase == "tuning":
            for task, _ in self._sweep.pairs:
                count[task] += self._infos[task].seeds
        return dict(count)

    def _expected_cost(self, group: Sequence[TrialKey]) -> tuple[float, float]:
        """Long groups go first, so that none is left over at the end for one worker alone.

        Seconds, by the finished trials of the task; before there are any, its budget must do.
        """
        task, budget = group[0].task, group[0].budget
        seconds = [t.timing["seconds"] for key, t in self._trials.items() if key.task == task]
        known = fmean(seconds) * len(group) if seconds else float("inf")
        return known, len(group) * budget.epochs * budget.width


def _missing(group: list[TrialKey], stored: Mapping[TrialKey, Trial]) -> list[list[TrialKey]]:
    """What remains to be run of a group: all of it together, or single trials on their own."""
    missing = [key for key in group if key not in stored]
    return [group] if len(missing) == len(group) else [[key] for key in missing]
