"""Studies in this process: by an engine that answers from the key, and by one that trains."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np

from zeta import activations
from zeta.evaluate import Settings, Trial, TrialKey, report, tasks
from zeta.evaluate.progress import Silent
from zeta.evaluate.protocol import formula_source, is_trained
from zeta.evaluate.results import Results
from zeta.evaluate.study import Study
from zeta.evaluate.training import run_trials

CONSTANT = 0.1  # the score of a constant prediction, on every split
Value = Callable[[TrialKey], float | None]


class AnsweringEngine:
    """Gives every trial the value of a function of its key, by default the last trial first."""

    def __init__(self, value: Value, in_order: bool = False) -> None:
        self.value, self.ran = value, list[TrialKey]()
        self.groups = list[Sequence[TrialKey]]()
        self._step = 1 if in_order else -1

    def start(self) -> None:
        """Nothing to start."""

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        for group in groups[:: self._step]:
            self.groups.append(group)
            yield [self._answer(key) for key in group[:: self._step]]

    def __enter__(self) -> "AnsweringEngine":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def _answer(self, key: TrialKey) -> Trial:
        self.ran.append(key)
        value = self.value(key)
        status = "diverged" if value is None else "ok"
        steps = np.arange(key.budget.epochs) if value is not None else []
        curve = tuple(float(1 / (1 + key.learning_rate * 30 * step)) for step in steps)
        learned = (_learned(key),) if is_trained(key.activation) else ()
        timing = {"seconds": len(self.ran) / 8, "step_ms": 0.5}
        return Trial(key, _metric(key.task), status, value, 100, curve, learned, timing, CONSTANT)


class InThisProcess:
    """Runs the trials as they are asked for."""

    def start(self) -> None:
        """Nothing to start."""

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        yield from map(run_trials, groups)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


@cache  # a task of a file is loaded anew whenever it is asked for
def _metric(task: str) -> str:
    return tasks.get(task).metric


def _learned(key: TrialKey) -> dict[str, float]:
    """Parameters somewhere around the documented ones."""
    drawn = np.random.default_rng(key.seed)
    formula = activations.get(formula_source(key.activation))
    scalars = formula.flat(formula.parameters)
    return {name: value * drawn.uniform(0.8, 1.2) for name, value in scalars.items()}


def noise(key: TrialKey) -> float:
    """Reproducible noise that depends on the seed and, half as much, on the activation."""
    shared = np.random.default_rng(key.seed).normal()
    own = np.random.default_rng([key.seed, *key.activation.encode()]).normal()
    return float(0.9 + 0.01 * shared + 0.005 * own)


def study(
    folder: Path, value: Value, settings: Settings, drawn: bool = False
) -> tuple[Results, AnsweringEngine]:
    """What it finds, and the engine; the report is empty if it is not to be ``drawn``."""
    engine = AnsweringEngine(value)
    with contextlib.nullcontext() if drawn else undrawn():
        return Study(settings, folder, engine, Silent()).run(), engine


def undrawn() -> AbstractContextManager[object]:
    """While reports are empty pages: their plots take nearly all the time of these studies."""
    return mock.patch.object(report, "render", return_value="")


def settings_for(*candidates: str, task: str = "digits", seeds: int = 10) -> Settings:
    return Settings(candidates, (task,), seeds, tuning_seeds=(0, 1))


def write_tasks(folder: Path, number: int) -> tuple[str, ...]:
    """So many small classification tasks, each with data of its own, in a file; their names."""
    path = folder / "tasks.py"
    path.write_text(
        "import numpy as np\nfrom zeta.evaluate import Budget, Task\n"
        "def make(number):\n"
        "    x = np.random.default_rng(number).normal(size=(40, 3))\n"
        "    load = lambda: (x, (x.sum(axis=1) > 0).astype(int))\n"
        "    title = f'the sign of a sum, draw {number}'\n"
        "    return Task(f'task_{number}', title, 'classification', load, Budget(30, 8, 16))\n"
        f"for number in range({number}):\n"
        "    globals()[f'task_{number}'] = make(number)\n"
    )
    return tuple(f"{path}:task_{number}" for number in range(number))


def realistic(key: TrialKey) -> float | None:
    """Scores of tasks of different difficulty; exo is a little better on some, laplace worse."""
    name = key.task.rpartition(":")[2]  # without the path, which is another in every run
    task = sum(name.encode()) % 7
    gain = {"exo": 0.004 * (task % 3), "laplace": -0.006 * task}.get(key.activation, 0.0)
    if key.activation == "laplace" and key.seed % 5 == 0 and task == 6:
        return None
    tuned = 0.02 * abs(np.log10(key.learning_rate) + 2.5)
    drawn_by = f"{name} {key.activation} {key.phase} {key.learning_rate}"
    own = 0.004 * np.random.default_rng([key.seed, *drawn_by.encode()]).normal()
    return float(min(noise(key) + own - 0.02 * task + gain - tuned, 0.999))
