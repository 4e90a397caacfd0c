"""The plan, measured in real worker processes."""

from dataclasses import replace
from pathlib import Path

import pytest

from answering import noise, settings_for, study
from zeta._errors import UserError
from zeta.evaluate import Settings, plan
from zeta.evaluate.plan import Plan, TaskPlan, make_plan
from zeta.evaluate.progress import Silent
from zeta.evaluate.terminal import print_plan

TASK = """
import numpy as np
from zeta.evaluate import Budget, Task

def load():
    x = np.random.default_rng(0).normal(size=(160, 4))
    return x, (x.sum(axis=1) > 0).astype(int)

class Fatal(Task):
    def score(self, predictions, targets):
        if predictions.shape[0] < 40:  # a validation split's, in a worker
            import os
            os._exit(1)
        return super().score(predictions, targets)

description = "blobs", "the sign of a sum", "classification", load
blobs = Task(*description, Budget(50, 32, 8))
fatal = Fatal(*description, Budget(50, 32, 8))
"""


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def test_nothing_is_written_and_the_probe_is_of_this_task(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    source = f"{tmp_path}/task.py:blobs"
    progress = Noting()
    found = plan(["exo"], [source], num_seeds=10, out=tmp_path / "out", progress=progress)
    assert progress.notes == [f"1 of 1 tasks measured: {source}"]
    (task,) = found.tasks
    assert found.start > 0
    assert (task.task, task.tuning, task.final, task.finished) == (source, 150, 50, 0)
    assert task.measured
    assert task.seconds is not None
    assert 0 < task.seconds < 10
    assert task.first > 0, "its first trials load the data"
    assert task.memory is None or 5e7 < task.memory < 5e9, "a process with PyTorch in it"
    assert [path.name for path in tmp_path.iterdir()] == ["task.py"]


def task_plan(seconds: float | None, remaining: int, first: float = 0.0) -> TaskPlan:
    return TaskPlan("t", remaining, 0, 0, 10, seconds, None, True, 2.0, first)


def test_the_time_is_that_of_everything() -> None:
    two = Plan((task_plan(0.5, 40, 1.5), task_plan(0.25, 80, 4.0)), 120, 2, 1, start=3.0)
    # Of 120 more a tenth, twelve on 120; the data of both, PyTorch's first steps once; two starts.
    assert two.seconds == pytest.approx(1.1 * (20 + 20) / 2 + (1.5 + 4.0 - 1.5) + 2 * 3.0)
    one = Plan((task_plan(1.0, 11), task_plan(None, 0)), 0, 64, 1, start=0.0)
    assert one.seconds == 10.0, "a group is not shared"
    assert Plan((task_plan(None, 0),), 0, 2, 1).seconds == 0.0


def test_skipped_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = {"adult": "its data are in the package widedeep: pip install widedeep"}
    print_plan(Plan((task_plan(None, 0),), 0, 2, 1, skipped=skipped))
    assert "Skipped adult: its data are in the package widedeep: pip" in capsys.readouterr().out


def test_tasks_that_tell_nothing_apart_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    silent = replace(task_plan(None, 0), task="s", tells_apart=False)
    print_plan(Plan((silent, task_plan(None, 0)), 0, 2, 1))
    said = "On s a linear network does as well; without, too few tasks are left to average over."
    assert said in capsys.readouterr().out


def test_finished_trials_are_counted_and_timed(tmp_path: Path) -> None:
    settings = replace(settings_for("exo"), epoch_divisor=15)
    results, _ = study(tmp_path, noise, settings)
    (task,) = make_plan(settings, tmp_path).tasks
    assert (task.remaining, task.finished) == (0, len(results.trials))
    (task,) = make_plan(replace(settings, num_seeds=12), tmp_path).tasks
    assert task.remaining == 2 * len(settings.activations)
    assert not task.measured


def test_a_probe_that_dies_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    source = f"{tmp_path}/task.py:fatal"
    with pytest.raises(UserError, match=r"a trial of task '.*:fatal' ended its process"):
        make_plan(Settings(("exo",), (source,)), tmp_path / "out")


def test_seeds_that_can_find_nothing_are_refused_with_how_many_would_do(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    source = f"{tmp_path}/task.py:blobs"
    message = r"with 4 seeds on task '.*' and 1 comparisons in all, .*; 5 seeds would do"
    with pytest.raises(UserError, match=message):
        plan(["exo"], [source], num_seeds=4, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"with 5 seeds .* 3 comparisons in all, .*; 6 seeds"):
        plan(["exo", "elu", "mish"], [source], num_seeds=5, out=tmp_path / "out")
