"""`Sweep`: which trials an evaluation needs, and what its finished tuning trials decide."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from zeta.evaluate import tasks as task_registry
from zeta.evaluate.candidates import check_gates, load_candidate
from zeta.evaluate.protocol import (
    Phase,
    Settings,
    Trial,
    TrialKey,
    formula_fingerprint,
    half_decade,
)
from zeta.evaluate.results import TaskInfo, Tuning
from zeta.evaluate.tasks import Task
from zeta.evaluate.tasks.task import Array

Pair = tuple[str, str]  # task, activation
Trials = Mapping[TrialKey, Trial]


class Sweep:
    """The trials of one evaluation; it runs none and stores none.

    Args:
        settings: what to compare.

    Raises:
        UserError: an unknown name, an unusable file, a gate on a task without gated units, or an
            activation without the gain that a task's weights are to be drawn with.

    Example:
        >>> from zeta.evaluate import Settings
        >>> from zeta.evaluate.sweep import Sweep
        >>> sweep = Sweep(Settings(("exo",), ("diabetes",), num_seeds=10))
        >>> sweep.next_steps(("diabetes", "exo"), {})
        [-7, -6, -5, -4, -3]
        >>> len(sweep.tuning_keys(("diabetes", "exo"), [-6, -5]))
        12
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        formulas = {name: load_candidate(name) for name in settings.activations}
        self._formulas = {n: formula_fingerprint(n, f) for n, f in formulas.items()}
        self._tasks = {name: task_registry.get(name) for name in settings.tasks}
        check_gates(formulas, self._tasks)
        if any(task.matched for task in self._tasks.values()):
            from zeta.evaluate.initialisation import matched_gain  # late: it imports PyTorch

            for name, formula in formulas.items():
                matched_gain(name, formula)

    @property
    def pairs(self) -> list[Pair]:
        """Every task with every activation that is run on it."""
        return self.settings.pairs

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
        """What the tuning of a pair found, once :meth:`next_steps` asks for no more.

        Each final seed trains at the rate that wins in a resample of the tuning seeds, the same
        one for every activation: what is uncertain about the rate is part of how final scores
        spread.
        """
        steps, _ = self._tuned(pair, trials)
        scores_RS = self._validation(pair, steps, trials)
        curve = map(float, smoothed(scores_RS.mean(axis=1)))
        rates = [half_decade(step) for step in steps]
        draws = [
            np.random.default_rng(seed).integers(scores_RS.shape[1], size=scores_RS.shape[1])
            for seed in self.settings.final_seeds(self.infos[pair[0]].seeds)
        ]
        chosen = tuple(half_decade(self._winner(steps, scores_RS[:, draw])) for draw in draws)
        return Tuning(*pair, dict(zip(rates, curve, strict=True)), chosen)

    def tuning_keys(self, pair: Pair, steps: Sequence[int]) -> list[TrialKey]:
        """The tuning trials of these learning rates."""
        return [
            self._key(pair, half_decade(step), seed, "tuning")
            for step in steps
            for seed in self.settings.tuning_seeds_of(pair[1])
        ]

    def final_keys(self, pair: Pair, learning_rates: Sequence[float]) -> list[TrialKey]:
        """The final trials, one for each rate; equal rates, which train fastest, side by side."""
        seeds = self.settings.final_seeds(len(learning_rates))
        keys = [self._key(pair, r, s, "final") for r, s in zip(learning_rates, seeds, strict=True)]
        return sorted(keys, key=lambda key: (key.learning_rate, key.seed))

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
            winner = self._winner(steps, self._validation(pair, steps, trials))
            asked = self._extension(winner, steps)
        return steps, asked

    def _extension(self, winner: int, steps: Sequence[int]) -> list[int]:
        """The step beyond the edge that won, unless that side was extended often enough."""
        grid, most = self.settings.grid_steps, self.settings.max_extensions
        if winner == steps[0] and grid[0] - winner < most:
            return [winner - 1]
        if winner == steps[-1] and winner - grid[-1] < most:
            return [winner + 1]
        return []

    def _winner(self, steps: Sequence[int], scores_RS: Array) -> int:
        """The step with the best smoothed mean score; of equals, the nearest to the middle."""
        grid = self.settings.grid_steps
        middle = (grid[0] + grid[-1]) / 2
        curve = dict(zip(steps, smoothed(scores_RS.mean(axis=1)), strict=True))
        return max(steps, key=lambda step: (curve[step], -abs(step - middle)))

    def _validation(self, pair: Pair, steps: Sequence[int], trials: Trials) -> Array:
        """Validation scores (rates, tuning seeds)."""
        scores = [trials[key].score for key in self.tuning_keys(pair, steps)]
        return np.reshape(scores, (len(steps), -1))

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
        seeds = self.settings.num_seeds or task.usual_seeds
        for activation in (self.settings.reference, self.settings.control):
            _check_splits(task, "tuning", self.settings.tuning_seeds_of(activation))
        _check_splits(task, "final", self.settings.final_seeds(seeds))
        return TaskInfo(
            source=name,
            title=task.title,
            metric=task.metric,
            data=task.fingerprint(),
            dataset=task.dataset or name,
            seeds=seeds,
            test_to_train=task.test_to_train(),
            epochs=budget.epochs,
            batch_size=budget.batch_size,
            width=budget.width,
            tells_apart=task.tells_apart,
        )


def smoothed(curve: Array) -> Array:
    """Each rate's score with half of its neighbours' mixed in: weights 1 2 1, at the ends 2 1.

    Example:
        >>> import numpy as np
        >>> from zeta.evaluate.sweep import smoothed
        >>> smoothed(np.array([0.0, 4.0, 0.0]))
        array([1.33333333, 2.        , 1.33333333])
    """
    number = len(curve)
    weights = 2 * np.eye(number) + np.eye(number, k=1) + np.eye(number, k=-1)
    return np.asarray(weights @ curve / weights.sum(axis=1))


def _check_splits(task: Task, phase: Phase, seeds: Sequence[int]) -> None:
    """Find an unusable split before any training: the same targets throughout leave no R².

    Raises:
        UserError: the data cannot be split.
    """
    for seed in seeds if task.kind == "regression" else seeds[:1]:
        task.split(phase, seed)
