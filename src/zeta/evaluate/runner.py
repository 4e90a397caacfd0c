"""`Runner`: have every trial of a sweep, from the store or else trained and stored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from zeta.evaluate.engines import Engine
from zeta.evaluate.progress import Progress
from zeta.evaluate.protocol import Phase, Trial, TrialKey
from zeta.evaluate.results import Tuning
from zeta.evaluate.signals import uninterrupted
from zeta.evaluate.store import TrialStore
from zeta.evaluate.sweep import Sweep


class Runner:
    """Tunes every pair of a sweep, extends its grid, and trains it with fresh seeds.

    Args:
        sweep: says which trials are needed.
        engine: trains those that are not in the store.
        progress: told of every finished trial.

    Attributes:
        trials: the finished ones, of the store and trained.
        trained: how many of them the store did not have.
    """

    def __init__(self, sweep: Sweep, engine: Engine, progress: Progress) -> None:
        self._sweep, self._engine, self._progress = sweep, engine, progress
        self.trials: dict[TrialKey, Trial] = {}
        self.trained = 0

    def run(self, store: TrialStore) -> list[Tuning]:
        """What tuning found of every pair, whose final trials are then finished too.

        Raises:
            UserError: the store cannot be written to, or a trial cannot be run.
        """
        tunings = self._tune(store)
        self._finals(store, tunings)
        return tunings

    def _tune(self, store: TrialStore) -> list[Tuning]:
        """The learning rate of every pair; edge winners extend their grid, round by round."""
        pairs = self._sweep.pairs
        while asked := {p: s for p in pairs if (s := self._sweep.next_steps(p, self.trials))}:
            keys = [self._sweep.tuning_keys(pair, steps) for pair, steps in asked.items()]
            self._complete(store, "tuning", keys)
        return [self._sweep.tuning(pair, self.trials) for pair in pairs]

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
            self.trials |= stored
            self._progress.finished(list(stored.values()), resumed=True)
        groups = [group for of_pair in asked for group in self._sweep.groups(of_pair)]
        missing = [part for group in groups for part in _missing(group, stored)]
        missing.sort(key=self._expected_cost, reverse=True)
        for trials in self._engine.run(missing) if missing else ():
            with uninterrupted():  # what is stored is counted
                store.save(trials)
                self.trials |= {trial.key: trial for trial in trials}
                self.trained += len(trials)
            self._progress.finished(trials, resumed=False)

    def _totals(self, phase: Phase, keys: Sequence[TrialKey]) -> dict[str, int]:
        """Task -> the trials that are finished, asked for now, or to come in the final phase."""
        count = Counter(key.task for key in (*self.trials, *keys))
        if phase == "tuning":
            for task, _ in self._sweep.pairs:
                count[task] += self._sweep.infos[task].seeds
        return dict(count)

    def _expected_cost(self, group: Sequence[TrialKey]) -> tuple[float, float]:
        """Long groups go first, so that none is left over at the end for one worker alone.

        Seconds, by the finished trials of the task; before there are any, its budget must do.
        """
        task, budget = group[0].task, group[0].budget
        seconds = [t.timing["seconds"] for key, t in self.trials.items() if key.task == task]
        known = fmean(seconds) * len(group) if seconds else float("inf")
        return known, len(group) * budget.epochs * budget.width


def _missing(group: list[TrialKey], stored: Mapping[TrialKey, Trial]) -> list[list[TrialKey]]:
    """What remains to be run of a group: all of it together, or single trials on their own."""
    missing = [key for key in group if key not in stored]
    return [group] if len(missing) == len(group) else [[key] for key in missing]
