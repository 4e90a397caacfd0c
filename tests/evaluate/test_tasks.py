"""The tasks: splits that do not leak, scores, and tasks of the user's own."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zeta._errors import UnknownNameError, UserError
from zeta.evaluate import tasks
from zeta.evaluate.tasks import Budget, Task

ALL = pytest.mark.parametrize("task", tasks.TASKS.values(), ids=tasks.TASKS)
BUDGET = Budget(epochs=1, batch_size=8, width=4)


def numbered() -> tuple[np.ndarray, np.ndarray]:
    """Rows that can be told apart: the feature is the row's number."""
    return np.arange(200.0).reshape(200, 1), np.arange(200) % 4


TOY = Task("toy", "row numbers", "classification", numbered, BUDGET)


def rows(x: np.ndarray, all_train: np.ndarray) -> set[int]:
    """Row numbers, undoing the standardisation by the training rows."""
    return set(np.round(x[:, 0] * all_train.std() + all_train.mean()).astype(int))


@ALL
def test_real_data(task: Task) -> None:
    split = task.split("final", seed=1)
    total = len(split.train_x) + len(split.score_x)
    assert total == len(task.load()[1])
    assert len(split.score_x) == pytest.approx(total * 0.25, abs=5)
    assert split.train_x.dtype == np.float32
    np.testing.assert_allclose(split.train_x.mean(axis=0), 0, atol=1e-4)
    if task.kind == "classification":
        shares = [np.bincount(y) / len(y) for y in (split.train_y, split.score_y)]
        np.testing.assert_allclose(*shares, atol=0.01)
    assert task.fingerprint() == task.fingerprint()


def test_the_test_set_is_fixed_and_never_seen_in_tuning() -> None:
    x, y = numbered()
    development, test = TOY._cut(y, np.arange(200), 0.25, 0)
    final = [TOY.split("final", seed) for seed in (1, 2)]
    assert np.array_equal(final[0].score_x, final[1].score_x)
    assert rows(final[0].score_x, x[development]) == set(test)
    seen = []
    for seed in (1, 2):
        train, validation = TOY._cut(y, development, 0.25, seed)
        tuning = TOY.split("tuning", seed)
        seen.append(rows(tuning.score_x, x[train]))
        assert seen[-1] == set(validation)
        assert not (set(train) | set(validation)) & set(test)
        assert not set(train) & set(validation)
    assert seen[0] != seen[1]


def test_scores_and_constant_predictor() -> None:
    assert TOY.score(np.eye(4)[[0, 1, 2, 3]], np.array([0, 1, 2, 0])) == 0.75
    assert TOY.constant_score() == pytest.approx(0.25, abs=0.03)
    regression = tasks.get("diabetes")
    y = np.array([1.0, 2.0, 3.0])
    assert regression.score(y, y) == 1
    assert regression.score(np.full(3, 2.0), y) == 0
    assert -0.1 < regression.constant_score() <= 0


def test_other_data_other_fingerprint() -> None:
    changed = Task("toy", "", "classification", lambda: (numbered()[0] + 1, numbered()[1]), BUDGET)
    assert changed.fingerprint() != TOY.fingerprint()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.eye(3), np.arange(4), r"got shapes \(3, 3\) and \(4,\)"),
        (np.arange(4.0), np.arange(4), r"got shapes \(4,\) and \(4,\)"),
        (np.ones((4, 0)), np.arange(4), r"got shapes \(4, 0\)"),
        (np.full((3, 1), np.nan), np.arange(3), "must be finite"),
        (np.eye(3), np.array(["a", "b", "c"]), r"must be arrays of numbers.*got dtypes .* <U1"),
        (np.eye(7), np.arange(7), "regression needs at least 8 rows, got 7"),
        (np.eye(8), np.full(8, 2.5), "targets must differ; all are 2.5"),
        (np.eye(8), np.full(8, True), "targets must differ; all are 1"),
        (np.eye(8), np.eye(8)[0], "the 2 rows that score the final trials all have the same"),
    ],
)
def test_unusable_data(x: np.ndarray, y: np.ndarray, message: str) -> None:
    bad = Task("bad", "", "regression", lambda: (x, y), BUDGET)
    with pytest.raises(UserError, match=f"task 'bad': .*{message}"):
        bad.constant_score()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.arange(8) % 2 - 1, "class numbers 0, 1, …, two or more and none left out; got -1, 0$"),
        (np.arange(8) % 2 + 0.5, "got 0.5, 1.5$"),
        (np.arange(8) % 2 * 10**9, "got 0, 1e.09$"),
        (np.arange(16) % 4 + 1, "got 1, 2, 3, …$"),
        (np.zeros(8), "got 0$"),
        (np.array([0] * 9 + [1] * 3), "each class needs at least 4 rows; class 1 has 3"),
    ],
)
def test_unusable_classes(y: np.ndarray, message: str) -> None:
    bad = Task("bad", "", "classification", lambda: (np.eye(len(y)), y), BUDGET)
    with pytest.raises(UserError, match=f"task 'bad': .*{message}"):
        bad.fingerprint()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "y"),
    [
        ("classification", np.arange(8) % 2 > 0),
        ("classification", np.arange(8) % 2 * 1.0),
        ("regression", np.arange(8)),
    ],
)
def test_the_fewest_rows_will_do(kind: str, y: np.ndarray, seed: int) -> None:
    task = Task("few", "", kind, lambda: (np.eye(8), y), BUDGET)
    split = task.split("tuning", seed)
    assert len(set(split.score_y)) == len(split.score_y) == len(task.split("final", 0).score_y) == 2


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: 1 / 0, "it failed: ZeroDivisionError: division by zero"),
        (lambda: sys.exit("bye"), "it failed: SystemExit: bye"),
        (lambda: None, "it failed: TypeError: 'NoneType' object is not iterable"),
        (lambda: (np.eye(3),), "got 1$"),
        (lambda: (np.eye(3), np.arange(3), 3), "got 3$"),
    ],
)
def test_unusable_load(load: Callable[[], object], message: str) -> None:
    bad = Task("bad", "", "regression", load, BUDGET)
    with pytest.raises(UserError, match=f"task 'bad': load must give two arrays.*{message}"):
        bad.fingerprint()


@pytest.mark.parametrize(
    "budget", [Budget(0, 2, 3), Budget(1, -2, 3), Budget(1, 2, 3.0), Budget(True, 2, 3), (1, 2, 3)]
)
def test_unusable_budget(budget: object) -> None:
    with pytest.raises(UserError, match="task 'bad': budget must be a Budget of whole numbers"):
        Task("bad", "", "regression", numbered, budget)


def test_unknown_kind(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from zeta.evaluate import Budget, Task\n"
        "mine = Task('mine', '', 'clasification', None, Budget(1, 2, 3))\n"
    )
    with pytest.raises(
        UserError, match=r"line 2: .*task 'mine': kind must be one of classification"
    ):
        tasks.get(f"{path}:mine")


def test_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown task 'digit'; did you mean 'digits'"):
        tasks.get("digit")


def test_a_task_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\nfrom zeta.evaluate import Budget, Task\n"
        "def load():\n    return np.eye(8), np.arange(8.0)\n"
        "mine = Task('mine', 'a test', 'regression', load, Budget(1, 2, 3))\nother = 3\n"
    )
    assert tasks.get(f"{path}:mine").metric == "R²"
    with pytest.raises(UserError, match="is not a Task but of type int"):
        tasks.get(f"{path}:other")
