"""Whole evaluations, tuning included, against rows that they never saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from zeta.evaluate import Settings, Verdict, tasks
from zeta.evaluate.engines import LocalEngine
from zeta.evaluate.progress import Silent
from zeta.evaluate.results import Comparison, Results
from zeta.evaluate.study import Study

RUNS, CHECKS = 12, 8
DECIDED = Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT
# Test rows of a trial, a quarter of three quarters, to sealed rows, a quarter.
TEST_TO_SEALED = 3 / 4
CANDIDATES = ("exo", "elu", "laplace")
# On the quick ones little is decided, on the other two something is in a full run.
SEALED = (*tasks.QUICK, "photograph", "housing")
# For each run and task, the rows of a quarter are sealed: `open_…` is the task of the others, and
# `sealed_…` trains on those and tests on these.
TASKS = f"""
from dataclasses import fields
import numpy as np
from zeta.evaluate import Task, tasks

def parts(task, run):
    y = task.load()[1]
    return task._cut(y, np.arange(len(y)), 0.25, 1_000_000 + run)

class Sealed(Task):
    def _rows(self, y, phase, seed):
        return parts(tasks.get(self.name.split("-")[1]), int(self.name.split("-")[2]))

def open_task(task, run):
    rows = parts(task, run)[0]
    load = lambda: tuple(array[rows] for array in task.load())
    return Task(f"open-{{task.name}}-{{run}}", task.title, task.kind, load, task.budget)

for name in {SEALED}:
    for run in range({RUNS}):
        task = tasks.get(name)
        globals()[f"open_{{name}}_{{run}}"] = open_task(task, run)
        globals()[f"sealed_{{name}}_{{run}}"] = Sealed(
            f"sealed-{{name}}-{{run}}", task.title, task.kind, task.load, task.budget
        )
"""


def sealed_scores(results: Results, engine: LocalEngine) -> dict[tuple[str, str], float]:
    """The mean score on the sealed rows of each activation, trained as the evaluation tuned it."""
    keys = []
    for tuning in results.tunings:
        source = tuning.task.replace("open_", "sealed_")
        trained = results.final_trials(tuning.task, tuning.activation)[:CHECKS]
        data = tasks.get(source).fingerprint()
        keys.append([replace(t.key, task=source, data=data) for t in trained])
    scores: dict[tuple[str, str], list[float]] = {}
    for group in engine.run(keys):
        task = group[0].key.task.replace("sealed_", "open_")
        scores[task, group[0].key.activation] = [trial.score for trial in group]
    return {pair: float(np.mean(values)) for pair, values in scores.items()}


def agrees(c: Comparison, sealed: float) -> bool:
    """Whether what was decided holds on the sealed rows."""
    if c.verdict is Verdict.EQUIVALENT:
        return abs(sealed) <= c.rope
    return (sealed > 0) == (c.verdict is Verdict.BETTER)


def holds(c: Comparison, sealed: float) -> bool:
    """Whether the interval holds the sealed mean, once it allows for that mean's own luck.

    The interval is for the mean over all rows there could be. The sealed rows are a sample too: if
    all of s² is the luck of test rows, their mean has the variance s²·TEST_TO_SEALED.
    """
    luck = np.std(c.differences, ddof=1) * np.sqrt(TEST_TO_SEALED)
    wider = np.hypot(c.error, luck) / c.error if c.error else 1.0
    return abs(sealed - c.mean) <= (c.high - c.mean) * wider


def least(number: int) -> float:
    """How many of so many it is at least, but for 2.5 % of cases, if each is with 95 %."""
    return float(stats.binom.ppf(0.025, number, 0.95))


@pytest.mark.slow
def test_verdicts_and_intervals_hold_on_sealed_rows(tmp_path: Path) -> None:
    (tmp_path / "sealed.py").write_text(TASKS)
    found = []
    with LocalEngine() as engine:
        for run in range(RUNS):
            names = tuple(f"{tmp_path}/sealed.py:open_{name}_{run}" for name in SEALED)
            seeds = tuple(range(1000 * run, 1000 * run + 6))
            settings = Settings(
                CANDIDATES,
                names,
                tuning_seeds=seeds,
                first_seed=1000 * run + 100,
            )
            results = Study(settings, tmp_path / f"run-{run}", engine, Silent()).run()
            scores = sealed_scores(results, engine)
            for c in results.comparisons:
                sealed = scores[c.task, c.candidate] - scores[c.task, c.reference]
                found.append((c, sealed))
                name = c.task.rpartition("open_")[2].rpartition("_")[0]
                interval = f"{c.mean:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"
                said = f"{run} {name} {c.candidate}: {c.verdict} {interval} sealed {sealed:+.4f}"
                print(said, flush=True)
    decided = [agrees(c, s) for c, s in found if c.verdict in DECIDED]
    covered = [c.low <= s <= c.high for c, s in found]
    allowed = [holds(c, s) for c, s in found]
    print(f"{sum(decided)} of {len(decided)} decided verdicts hold on the sealed rows; "
          f"{sum(covered)} of {len(covered)} intervals hold the sealed mean, and {sum(allowed)} "
          "if they allow for its own luck")  # fmt: skip
    assert sum(decided) >= least(len(decided))
    assert sum(allowed) >= least(len(allowed))
