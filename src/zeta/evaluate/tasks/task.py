"""`Task`: real data, and how a network is trained and scored on it."""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zeta._errors import UserError
from zeta.load_formula import one_line

Array = npt.NDArray[Any]

TEST_FRACTION = 0.25
VALIDATION_FRACTION = 0.25
# Kind of task -> its score's name.
METRICS = {"classification": "accuracy", "regression": "R²"}
# The fewest rows of which both cuts leave a class some, and a regression two, on either side.
_LEAST_OF_A_CLASS, _LEAST_OF_A_REGRESSION = 4, 8
# The held-out test set never depends on a trial's seed.
TEST_SPLIT_SEED = 0


@dataclass(frozen=True)
class Budget:
    """What a trial may spend, the same for every activation.

    Attributes:
        epochs: passes over the training data.
        batch_size: rows per step.
        width: units in each of the two hidden layers.
    """

    epochs: int
    batch_size: int
    width: int


@dataclass(frozen=True)
class Split:
    """Training rows and the rows that score the trained network."""

    train_x: Array
    train_y: Array
    score_x: Array
    score_y: Array


@dataclass(frozen=True)
class Task:
    """A data set with its training budget; write one to evaluate on data of your own.

    Put ``my_task = Task(...)`` into a file and name it ``path/to/file.py:my_task``, on the
    command line or in :func:`zeta.evaluate.evaluate`.

    Attributes:
        name: a short name, shown in tables.
        title: one line that says what is predicted from what, and where the data come from.
        kind: "classification" (scored by accuracy) or "regression" (scored by R²). For both,
            higher is better.
        load: gives the features (rows, columns) and the targets (rows,): class numbers
            0, 1, … or real values. It must give the same arrays on every call.
        budget: epochs, batch size and width.

    Example:
        >>> import numpy as np
        >>> from zeta.evaluate import Budget, Task
        >>> def halves():
        ...     x = np.linspace(-1, 1, 40).reshape(40, 1)
        ...     return x, (x[:, 0] > 0).astype(int)
        >>> task = Task("halves", "the sign of x", "classification", halves, Budget(5, 8, 16))
        >>> task.metric, len(task.split("final", seed=1).score_x)
        ('accuracy', 10)
    """

    name: str
    title: str
    kind: Literal["classification", "regression"]
    load: Callable[[], tuple[Array, Array]]
    budget: Budget

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise self._error(f"kind must be one of {', '.join(METRICS)}; got {self.kind!r}")
        numbers = astuple(self.budget) if isinstance(self.budget, Budget) else ()
        if not numbers or not all(type(n) is int and n > 0 for n in numbers):
            raise self._error(f"budget must be a Budget of whole numbers from 1; got {self.budget}")

    @property
    def metric(self) -> str:
        """The score's name; higher is better."""
        return METRICS[self.kind]

    def fingerprint(self) -> str:
        """A hash of the data: other data, another fingerprint."""
        digest = hashlib.sha256(self.kind.encode())
        for array in self._data():
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def split(self, phase: str, seed: int) -> Split:
        """The rows of one trial, features standardised by the training rows.

        Args:
            phase: "tuning" splits the development data by ``seed`` into training and validation
                rows; "final" trains on all development data and scores on the test set.
            seed: of the validation split.

        Raises:
            UserError: the data are not as documented, or cannot be split.
        """
        x, y = self._data()
        development, test = self._cut(y, np.arange(len(y)), TEST_FRACTION, TEST_SPLIT_SEED)
        if phase == "tuning":
            train, score = self._cut(y, development, VALIDATION_FRACTION, seed)
        else:
            train, score = development, test
        x = _standardised(x, train)
        y = y.astype(np.int64) if self.kind == "classification" else _standardised(y, train)
        if self.kind == "regression" and np.ptp(y[score]) == 0:
            raise self._error(
                f"the {len(score)} rows that score the {phase} trials all have the same target, "
                "which leaves R² undefined; more rows with different targets are needed"
            )
        return Split(x[train], y[train], x[score], y[score])

    def score(self, predictions: Array, targets: Array) -> float:
        """The metric: accuracy of class scores (rows, classes), or R² of values (rows,)."""
        if self.kind == "classification":
            return float(np.mean(predictions.argmax(axis=1) == targets))
        residual = float(np.sum((targets - predictions) ** 2))
        return 1.0 - residual / float(np.sum((targets - targets.mean()) ** 2))

    def constant_score(self) -> float:
        """The test score of the best constant prediction, which a diverged trial is given."""
        split = self.split("final", seed=0)
        if self.kind == "classification":
            constant = np.bincount(split.train_y).astype(float)
            return self.score(np.tile(constant, (len(split.score_y), 1)), split.score_y)
        return self.score(np.full(len(split.score_y), split.train_y.mean()), split.score_y)

    def _data(self) -> tuple[Array, Array]:
        """What ``load`` gives, checked.

        Raises:
            UserError: it fails, or the arrays are not as documented.
        """
        try:
            arrays = tuple(map(np.asarray, self.load()))
        except (Exception, SystemExit) as error:
            raise self._error(
                f"load must give two arrays, features and targets; it failed: {one_line(error)}"
            ) from error
        if len(arrays) != 2:
            raise self._error(f"load must give two arrays, features and targets; got {len(arrays)}")
        x, y = arrays
        if x.ndim != 2 or y.shape != x.shape[:1] or not x.shape[1]:
            raise self._error(
                "load must give features (rows, columns) and targets (rows,), "
                f"got shapes {x.shape} and {y.shape}"
            )
        if x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
            raise self._error(
                "features and targets must be arrays of numbers (classes are numbered 0, 1, …), "
                f"got dtypes {x.dtype} and {y.dtype}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise self._error("features and targets must be finite numbers")
        if self.kind == "classification":
            self._check_classes(y)
        else:
            self._check_values(y)
        return x, y

    def _check_classes(self, y: Array) -> None:
        classes, counts = np.unique(y, return_counts=True)
        if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
            some = ", ".join(f"{label:g}" for label in classes[:3].astype(float))
            raise self._error(
                "targets must be the class numbers 0, 1, …, two or more and none left out; "
                f"got {some}{', …' * (len(classes) > 3)}"
            )
        if counts.min() < _LEAST_OF_A_CLASS:
            raise self._error(
                f"each class needs at least {_LEAST_OF_A_CLASS} rows; "
                f"class {counts.argmin()} has {counts.min()}"
            )

    def _check_values(self, y: Array) -> None:
        if len(y) < _LEAST_OF_A_REGRESSION:
            raise self._error(
                f"regression needs at least {_LEAST_OF_A_REGRESSION} rows, got {len(y)}"
            )
        if y.min() == y.max():
            raise self._error(f"the targets must differ; all are {float(y[0]):g}")

    def _error(self, problem: str) -> UserError:
        return UserError(f"task {self.name!r}: {problem}")

    def _cut(self, y: Array, rows: Array, fraction: float, seed: int) -> tuple[Array, Array]:
        """Two parts of ``rows``, the second ``fraction`` of them; classes in equal shares."""
        shuffled = np.random.default_rng(seed).permutation(rows)
        if self.kind == "regression":
            groups = [shuffled]
        else:
            groups = [shuffled[y[shuffled] == label] for label in np.unique(y)]
        cuts = [round(len(group) * fraction) for group in groups]
        second = [group[:cut] for group, cut in zip(groups, cuts, strict=True)]
        first = [group[cut:] for group, cut in zip(groups, cuts, strict=True)]
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def _standardised(values: Array, train: Array) -> Array:
    """Mean 0 and standard deviation 1 on the training rows; a constant column becomes 0."""
    mean, deviation = values[train].mean(axis=0), values[train].std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    return np.asarray((values - mean) / scale, dtype=np.float32)
