"""`Sweep`: which trials an evaluation needs, and what its finished tuning trials decide."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from zeta.evaluate import tasks as task_registry
from zeta.evaluate.protocol import (
    Phase,
    Settings,
    Trial,
    TrialKey,
    formula_fingerprint,
    formula_source,
    half_decade,
)
from zeta.evaluate.results import TaskInfo, Tuning
from zeta.load_formula import load_formula

Pair = tuple[str, str]  # task, activation
Trials = Mapping[TrialKey, Trial]


class Sweep:
    """The trials of one evaluation; it runs none and stores none.

    Args:
        settings: what to compare.

    Raises:
        UserError: an unknown name or an unusable file.

    Example:
        >>> from zeta.evaluate import Settings
        >>> from zeta.evaluate.sweep import Sweep
        >>> sweep = Sweep(Settings(("exo",), ("diabetes",), num_seeds=10))
        >>> sweep.next_steps(("diabetes", "exo"), {})
        [-7, -6, -5, -4, -3]
        >>> len(sweep.tuning_keys(("diabetes", "exo"), [-6, -5]))
        4
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        formulas = {name: load_formula(formula_source(name)) for name in settings.activations}
        self._formulas = {n: formula_fingerprint(n, f) for n, f in formulas.items()}
        self._tasks = {name: task_registry.get(name) for name in settings.tasks}

    @property
    def pairs(self) -> list[Pair]:
        """Every task with every activation."""
        return [(task, name) for task in self._tasks for name in self._formulas]

    @cached_property
    def infos(self) -> dict[str, TaskInfo]:
        """The tasks as reports describe them; the data are loaded for it.

        Raises:
            UserError: data that cannot be loaded, split or scored.
        """
        return {name: self._describe(name) for name in self._tasks}

    def next_steps(self, pair: Pair, trials: Trials) -> list[int]:
        """The learning rates, in half decades, to be tried next; none if the pair is tuned."""
        return self._tuned(pair, trials)[1]

    def steps(self, pair: Pair, trials: Trials) -> list[int]:
        """All learning rates, in half decades, tried so far or to be tried next."""
        return [step for steps in self._tuned(pair, trials) for step in steps]

    def tuning(self, pair: Pair, trials: Trials) -> Tuning:
        """What the tuning of a pair found, once :meth:`next_steps` asks for no more."""
        steps, _ = self._tuned(pair, trials)
        validation = {half_decade(s): self._validation(pair, s, trials) for s in steps}
        return Tuning(*pair, validation, half_decade(self._winner(pair, steps, trials)))

    def tuning_keys(self, pair: Pair, steps: Sequence[int]) -> list[TrialKey]:
        """The tuning trials of these learning rates."""
        return [
            self._key(pair, half_decade(step), seed, "tuning")
            for step in steps
            for seed in self.settings.tuning_seeds
        ]

    def final_keys(self, pair: Pair, learning_rate: float) -> list[TrialKey]:
        """The final trials, in the order of their seeds."""
        return [self._key(pair, learning_rate, s, "final") for s in self.settings.final_seeds]

    def groups(self, keys: Sequence[TrialKey]) -> list[list[TrialKey]]:
        """The trials of one pair, cut into those that are trained together.

        It depends on the keys alone and not on what is finished: whether a trial's companions
        change its last bit or not, a resumed evaluation gives what an undisturbed one gives.
        """
        most = self._tasks[keys[0].task].together
        return [list(keys[i : i + most]) for i in range(0, len(keys), most)]

    def report_order(self, trial: Trial) -> tuple[bool, int, float, int]:
        """Reports list trials in an order that does not depend on which finished first."""
        key = trial.key
        position = self.pairs.index((key.task, key.activation))
        return key.phase == "final", position, key.learning_rate, key.seed

    def _tuned(self, pair: Pair, trials: Trials) -> tuple[list[int], list[int]]:
        """The steps that were tried, and the steps to be tried next; edge winners add one."""
        steps, asked = list[int](), list(self.settings.grid_steps)
        while asked and all(key in trials for key in self.tuning_keys(pair, asked)):
            steps = sorted(steps + asked)
            asked = self._extension(self._winner(pair, steps, trials), steps)
        return steps, asked

    def _extension(self, winner: int, steps: Sequence[int]) -> list[int]:
        """The step beyond the edge that won, unless that side was extended often enough."""
        grid, most = self.settings.grid_steps, self.settings.max_extensions
        if winner == steps[0] and grid[0] - winner < most:
            return [winner - 1]
        if winner == steps[-1] and winner - grid[-1] < most:
            return [winner + 1]
        return []

    def _winner(self, pair: Pair, steps: Sequence[int], trials: Trials) -> int:
        """The step with the best mean validation score; of equals, the nearest to the middle."""
        grid = self.settings.grid_steps
        middle = (grid[0] + grid[-1]) / 2
        return max(steps, key=lambda s: (self._validation(pair, s, trials), -abs(s - middle)))

    def _validation(self, pair: Pair, step: int, trials: Trials) -> float:
        info = self.infos[pair[0]]
        values = [info.score_of(trials[key]) for key in self.tuning_keys(pair, [step])]
        return sum(values) / len(values)

    def _key(self, pair: Pair, learning_rate: float, seed: int, phase: Phase) -> TrialKey:
        task, activation = pair
        return TrialKey(
            task=task,
            data=self.infos[task].data,
            activation=activation,
            formula=self._formulas[activation],
            learning_rate=learning_rate,
            seed=seed,
            phase=phase,
            budget=self.settings.budget(self._tasks[task].budget),
        )

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
