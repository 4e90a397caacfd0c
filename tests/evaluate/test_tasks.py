"""The tasks: splits that do not leak, scores, and tasks of the user's own."""

import gzip
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from zeta import activations
from zeta._errors import UnknownNameError, UserError
from zeta.evaluate import TrialKey, formula_fingerprint, run_trial, tasks
from zeta.evaluate.tasks import Budget, Task
from zeta.evaluate.tasks.letters import CONTEXT, LETTERS
from zeta.evaluate.tasks.task import WINDOW_FRACTION, needs_package
from zeta.evaluate.tasks.words import VOCABULARY

ALL = pytest.mark.parametrize("task", tasks.TASKS.values(), ids=tasks.TASKS)
BUDGET = Budget(epochs=1, batch_size=8, width=4)


def numbered() -> tuple[np.ndarray, np.ndarray]:
    """Rows that can be told apart: the feature is the row's number."""
    return np.arange(200.0).reshape(200, 1), np.arange(200) % 4


TOY = Task("toy", "row numbers", "classification", numbered, BUDGET)


def rows(x: np.ndarray, all_train: np.ndarray) -> set[int]:
    """Row numbers, undoing the standardisation by the training rows."""
    return set(np.round(x[:, 0] * all_train.std() + all_train.mean()).astype(int))


def skip_if_missing(task: Task) -> None:
    if reason := task.missing():
        pytest.skip(f"{task.name}: {reason}")


@ALL
def test_real_data(task: Task) -> None:
    skip_if_missing(task)
    split = task.split("final", seed=1)
    total = len(task.load()[1]) * (WINDOW_FRACTION if task.in_order or task.stream else 1)
    if task.stream:
        assert split.train_x is split.score_x or np.array_equal(split.train_x, split.score_x)
        assert len(split.score_x) == pytest.approx(total * 0.75, abs=1)
        known = task.split("tuning", seed=1).train_x
    else:
        assert len(split.train_x) + len(split.score_x) == total
        assert len(split.score_x) == pytest.approx(total * 0.25, abs=5)
        known = split.train_x
    if known.dtype.kind == "f":
        assert known.dtype == np.float32
        np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-3)
    if task.kind == "classification" and not task.stream:
        shares = [np.bincount(y) / len(y) for y in (split.train_y, split.score_y)]
        np.testing.assert_allclose(*shares, atol=0.01)
    assert task.fingerprint() == task.fingerprint()


@ALL
def test_networks_take_the_activation_and_the_data(task: Task) -> None:
    skip_if_missing(task)
    made: list[nn.Module] = []

    def make_activation() -> nn.Module:
        made.append(activations.exo.module(learnable=True))
        return made[-1]

    network = task.build(task.shape(task.budget.width), make_activation, seed=1)
    assert made
    assert {m for m in network.modules() if m in made} == set(made)
    split = task.split("tuning", seed=1)
    output = network(torch.from_numpy(split.score_x[:64]))
    targets = split.score_y[:64]
    if task.kind == "likelihood":
        torch.testing.assert_close(output.exp().sum(-1), torch.ones(64))
    assert np.isfinite(task.score(output.detach().numpy(), targets))
    output.sum().backward()
    assert all(m.alpha.grad is not None for m in made)


@pytest.mark.parametrize("name", ["photograph", "transfer", "spoken_digits", "words_selu_softmax"])
def test_tasks_can_be_learned(name: str) -> None:
    task = tasks.get(name)
    skip_if_missing(task)
    formula = formula_fingerprint("silu", activations.silu)
    budget = replace(task.budget, epochs=2)
    key = TrialKey(name, task.fingerprint(), "silu", formula, 0.003, 1, "final", budget)
    value = run_trial(key).value
    assert value is not None
    assert value > task.constant_score(task.split("final", 1)) + 0.1


def test_a_gated_transformer_has_as_many_parameters() -> None:
    plain_task, gated_task = tasks.get("letters"), tasks.get("letters_gated")
    shape = tasks.Shape((CONTEXT,), LETTERS, plain_task.budget.width)
    networks = [task.network(shape, nn.ReLU) for task in (plain_task, gated_task)]
    plain, gated = (sum(p.numel() for p in network.parameters()) for network in networks)
    assert plain == gated


def test_patches_are_pieces_of_their_quarter() -> None:
    from sklearn.datasets import load_sample_image

    x, y = tasks.get("patches").load()
    upper_left, lower_right = (x[np.flatnonzero(y == label)[0]] for label in (0, 7))
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    np.testing.assert_array_equal(upper_left.transpose(1, 2, 0), china[:8, :8])
    row = 8 * 27  # the first of the lower half's 53 rows of pieces, whose number is odd
    np.testing.assert_array_equal(
        lower_right.transpose(1, 2, 0), flower[row : row + 8, 8 * 41 : 8 * 42]
    )


def test_fashion_mnist_is_where_debian_puts_it_or_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from files in the format of the package, which a machine may lack."""
    monkeypatch.setenv("ZETA_DATASETS", str(tmp_path))
    task = tasks.get("fashion_mnist")
    assert "apt install dataset-fashion-mnist" in (task.missing() or "")
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    images = np.random.default_rng(0).integers(256, size=(80, 28, 28), dtype=np.uint8)
    labels = np.arange(80, dtype=np.uint8) % 10
    for name, header, content in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
        packed = gzip.compress(bytes(header) + content.tobytes())
        (folder / f"train-{name}-ubyte.gz").write_bytes(packed)
    assert task.missing() is None
    x, y = task.load()
    assert np.array_equal(x, images[:, None])
    assert np.array_equal(y, labels)
    network = task.build(task.shape(4), nn.ReLU, seed=1)
    assert network(torch.from_numpy(x)).shape == (80, 10)
    monkeypatch.delenv("ZETA_DATASETS")
    debian = Path("/usr/share/datasets/fashion-mnist")
    assert (task.missing() is None) == debian.is_dir()


def test_a_package_that_is_not_there_is_named() -> None:
    missing = needs_package("no_such_package", "pip install no-such-package")
    assert missing() == "its data are in the package no_such_package: pip install no-such-package"
    assert needs_package("numpy", "")() is None


def test_words_of_a_vocabulary_may_be_missing() -> None:
    def load() -> tuple[np.ndarray, np.ndarray]:
        return np.arange(80).reshape(40, 2), np.arange(40) * 3

    words = Task("words", "", "likelihood", load, BUDGET, nn.Identity, in_order=True)
    assert words.shape(4).outputs == 118
    split = words.split("final", 0)
    assert split.train_x.dtype.kind == "i"
    assert split.train_x.max() < split.score_x.min(), "in order of time"
    assert words.constant_score(split) < 0


def test_targets_of_several_columns() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2)) * [1, 100]
    task = Task("columns", "", "regression", lambda: (x, y), BUDGET)
    assert task.shape(4).outputs == 2
    split = task.split("final", 0)
    assert task.score(split.score_y, split.score_y) == 1
    assert task.score(np.tile(split.score_y.mean(0), (5, 1)), split.score_y) == pytest.approx(0)


def test_a_stream_is_standardised_by_what_came_before() -> None:
    def load() -> tuple[np.ndarray, np.ndarray]:
        return np.arange(80.0)[:, None], np.arange(80) % 2

    stream = Task("time", "", "classification", load, BUDGET, stream=True)
    tuning, final = stream.split("tuning", 0), stream.split("final", 0)
    assert len(tuning.score_x) == 10, "a quarter of half of the rows"
    assert np.all(np.diff(final.train_x[:, 0]) > 0)
    step = np.diff(tuning.train_x[:2, 0])
    np.testing.assert_allclose(final.train_x[0] - tuning.train_x[-1], step, rtol=1e-5)


def test_each_seed_draws_its_test_and_validation_rows() -> None:
    x, y = numbered()
    tested = []
    for seed in range(8):
        development, test = TOY._cut(y, np.arange(200), 0.25, seed)
        final, tuning = TOY.split("final", seed), TOY.split("tuning", seed)
        tested.append(rows(final.score_x, x[development]))
        assert tested[-1] == set(test)
        train, validation = TOY._cut(y, development, 0.25, seed)
        assert rows(tuning.score_x, x[train]) == set(validation)
        assert not (set(train) | set(validation)) & set(test)
        assert not set(train) & set(validation)
    shared = [len(a & b) / 48 for i, a in enumerate(tested) for b in tested[:i]]
    ratio = TOY.test_to_train()
    assert np.mean(shared) == pytest.approx(ratio / (1 + ratio), abs=0.03)


@pytest.mark.parametrize("changes", [{"in_order": True}, {"stream": True}])
def test_windows_share_the_part_of_their_test_rows_that_is_corrected_for(
    changes: dict[str, bool],
) -> None:
    task = replace(TOY, load=lambda: (np.arange(2000.0)[:, None], np.arange(2000) % 4), **changes)
    tested = [set(task._rows(task.load()[1], "final", seed)[1]) for seed in range(60)]
    shared = [len(a & b) / len(a) for i, a in enumerate(tested) for b in tested[:i]]
    ratio = task.test_to_train()
    assert np.mean(shared) == pytest.approx(ratio / (1 + ratio), abs=0.05)


def test_nothing_of_the_test_rows_decides_how_training_rows_are_made() -> None:
    """Changed beyond recognition, they leave the training rows as they were."""
    for task in tasks.TASKS.values():
        if task.missing() or task.name in ("fashion_mnist", "see_and_hear"):
            continue
        x, y = task.load()
        train, test = task._rows(y, "final", 3)
        if task.stream:  # what is known beforehand is the start
            train, test = task._rows(y, "tuning", 3)[0], test
        changed = x.copy()
        changed[test] = changed[test][::-1] * (1 if x.dtype.kind in "biu" else 7)
        other = y.copy()
        other[test] = other[test][::-1]
        ours = task.encoded(x, y, train)
        theirs = task.encoded(changed, other, train)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a[train], b[train])


def test_scores_and_constant_predictor() -> None:
    assert TOY.score(np.eye(4)[[0, 1, 2, 3]], np.array([0, 1, 2, 0])) == 0.75
    assert TOY.constant_score(TOY.split("final", 0)) == pytest.approx(0.25, abs=0.03)
    regression = tasks.get("diabetes")
    y = np.array([1.0, 2.0, 3.0])
    assert regression.score(y, y) == 1
    assert regression.score(np.full(3, 2.0), y) == 0
    assert -0.1 < regression.constant_score(regression.split("final", 0)) <= 0


def test_tasks_of_the_same_data_say_so() -> None:
    """Over all tasks together they have one vote."""
    of = {name: task.dataset or name for name, task in tasks.TASKS.items()}
    assert {name for name, data in of.items() if data == "digits"} == {
        "digits", "digits_conv", "digits_gated", "transfer", "see_and_hear",
    }  # fmt: skip
    assert {name for name, data in of.items() if data == "addresses"} == {
        name for name in tasks.TASKS if name.startswith(("words", "letters"))
    }


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
        (np.eye(7), np.arange(7), "at least 8 rows are needed, got 7"),
        (np.eye(8), np.full(8, 2.5), "targets must differ; all are 2.5"),
        (np.eye(8), np.full(8, True), "targets must differ; all are 1"),
        (np.eye(8), np.ones((8, 0)), r"got shapes .* and \(8, 0\)"),
        (np.eye(8) * 1e200, np.arange(8), r"at most 1e\+150 in size"),
        (np.eye(8), np.ones((8, 2)) * [1, 2], "the 2 rows that score the final trials all have"),
        (np.eye(8, dtype=np.uint8), np.arange(8), r"of type uint8 .*x\.astype\(float\)"),
        (np.ones((8, 2, 2)), np.arange(8), r"shape \(2, 2\) need a network of their own"),
        (np.eye(8), np.eye(8)[0], "the 2 rows that score the final trials all have the same"),
    ],
)
def test_unusable_data(x: np.ndarray, y: np.ndarray, message: str) -> None:
    bad = Task("bad", "", "regression", lambda: (x, y), BUDGET)
    with pytest.raises(UserError, match=f"task 'bad': .*{message}"):
        bad.split("final", 0)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"together": 0}, "together must be a whole number from 1; got 0"),
        ({"load": 3}, "load must be a function; got 3"),
        ({"network": nn.ReLU()}, None),
        ({"network": "deep"}, "network must be a function; got 'deep'"),
    ],
)
def test_unusable_fields(changes: dict[str, object], message: str | None) -> None:
    if message is None:
        replace(TOY, **changes)  # whatever can be called will do
        return
    with pytest.raises(UserError, match=message):
        replace(TOY, **changes)


@pytest.mark.parametrize("kind", ["classification", "likelihood"])
@pytest.mark.parametrize("changes", [{"stream": True}, {"in_order": True}])
@pytest.mark.parametrize("rows", [0, 2])
def test_too_few_rows(kind: str, changes: dict[str, bool], rows: int) -> None:
    few = replace(TOY, kind=kind, load=lambda: (np.eye(2)[:rows], np.arange(2)[:rows]), **changes)
    with pytest.raises(UserError, match=f"at least 16 rows are needed, got {rows}"):
        few.split("final", 0)


def test_a_stream_with_more_epochs_than_rows() -> None:
    with pytest.raises(UserError, match=r"a row for each .* epochs; got 200 rows .* 26 epochs"):
        replace(TOY, stream=True, budget=Budget(26, 2, 3)).fingerprint()


def test_a_vocabulary_that_is_none() -> None:
    huge = replace(TOY, kind="likelihood", load=lambda: (np.eye(8), np.arange(8) + 2**40))
    with pytest.raises(UserError, match="whole class numbers from 0 to 16777216"):
        huge.fingerprint()


def test_half_precision_is_standardised_without_overflow() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)) * 1e4
    halved = replace(TOY, load=lambda: (x.astype(np.float16), np.arange(200) % 4))
    train = halved.split("final", 0).train_x
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-3)


def test_a_constant_column_becomes_0() -> None:
    x = np.stack([np.full(200, 0.1), np.arange(200.0)], axis=1)
    assert (
        not replace(TOY, load=lambda: (x, np.arange(200) % 4))
        .split("final", 0)
        .train_x[:, 0]
        .round(6)
        .any()
    )


@pytest.mark.parametrize("kind", ["u1", ">i4", "?"])
def test_whole_numbers_fit_an_embedding(kind: str) -> None:
    x = np.ones((200, 2), dtype=kind)
    task = replace(TOY, load=lambda: (x, np.arange(200) % 4), network=lambda *_: nn.Identity())
    assert nn.Embedding(2, 3)(torch.from_numpy(task.split("final", 0).train_x)).shape == (152, 2, 3)


@pytest.mark.parametrize("name", ["words_stream", "words_softmax"])
def test_the_vocabulary_is_of_what_is_known(name: str) -> None:
    task = tasks.TASKS[name]
    skip_if_missing(task)
    y = task.load()[1]
    known = task._rows(y, "tuning", 3)[0]
    found = task.encoded(*task.load(), known)[1]
    assert found.max() == VOCABULARY - 1
    assert (found == 0)[known].mean() < (found == 0).mean(), "it fits less well elsewhere"


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
