"""`Task`: real data, and how a network is trained and scored on it."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from zeta._errors import UserError, one_line

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
Kind = Literal["classification", "regression", "likelihood"]
Phase = Literal["tuning", "final"]
MakeActivation = Callable[[], "nn.Module"]

TEST_FRACTION = 0.25
VALIDATION_FRACTION = 0.25
# Of rows in order of time: what one seed's window holds. Of two windows of half the rows, the test
# rows are to 23 % the same, as of two tests drawn at random; of 80 %, to 67 %.
WINDOW_FRACTION = 0.5
# Of a stream's window: what learning rates are tuned on, before the part that scores them.
STREAM_TUNING_FRACTION = 0.25
# Final seeds of a task whose trials train together, and of one whose trials take seconds each.
_MANY_SEEDS, _FEW_SEEDS = 20, 10
# Kind of task -> its score's name.
METRICS = {"classification": "accuracy", "regression": "R²", "likelihood": "log-likelihood"}
# The fewest rows of which both cuts leave a class some, and all together two, on either side.
_LEAST_OF_A_CLASS, _LEAST_ROWS = 4, 8
# Their squares, which standardisation takes, must be finite.
_LARGEST_VALUE = 1e150
# Class numbers beyond it are no vocabulary, and no output layer has room for them.
_LARGEST_CLASS = 2**24


@dataclass(frozen=True)
class Budget:
    """What a trial may spend, the same for every activation.

    Attributes:
        epochs: passes over the training data; of a stream, the parts that its one pass is
            reported in.
        batch_size: rows per step.
        width: units of the network's hidden layers.
    """

    epochs: int
    batch_size: int
    width: int


@dataclass(frozen=True)
class Shape:
    """What a network must fit.

    Attributes:
        inputs: the shape of one row of features.
        outputs: classes, or columns of a regression's targets.
        width: units of the hidden layers.
    """

    inputs: tuple[int, ...]
    outputs: int
    width: int


@dataclass(frozen=True)
class Split:
    """Training rows and the rows that score the trained network.

    Attributes:
        stop_x, stop_y: with validation stopping, the rows that say which epoch was the best;
            else none.
    """

    train_x: Array
    train_y: Array
    score_x: Array
    score_y: Array
    stop_x: Array
    stop_y: Array


def two_hidden_layers(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    """The usual network for rows of features: Linear, activation, Linear, activation, Linear."""
    from torch import nn

    (inputs,) = shape.inputs
    return nn.Sequential(
        nn.Linear(inputs, shape.width),
        make_activation(),
        nn.Linear(shape.width, shape.width),
        make_activation(),
        nn.Linear(shape.width, shape.outputs),
    )


def nothing_missing() -> None:
    """For data that are always there."""


def needs_package(name: str, install: str) -> Callable[[], str | None]:
    """For data inside a Python package, which is looked for without being imported.

    Args:
        name: of the package, as it is imported.
        install: the command that installs it.
    """

    def missing() -> str | None:
        found = importlib.util.find_spec(name)
        return None if found else f"its data are in the package {name}: {install}"

    return missing


def package_file(package: str, path: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]) / path


@dataclass(frozen=True)
class Task:
    """A data set, a network and a training budget; write one to evaluate on data of your own.

    Put ``my_task = Task(...)`` into a file and name it ``path/to/file.py:my_task``, on the
    command line or in :func:`zeta.evaluate.evaluate`.

    Attributes:
        name: a short name, shown in tables.
        title: one line that says what is predicted from what, and where the data come from.
        kind: "classification" (from class scores; accuracy), "regression" (R²) or "likelihood"
            (a class, from log-probabilities; the mean log-probability of the right one, in
            nats). For all, higher is better.
        load: gives the features (rows, …) and the targets: class numbers from 0, or values
            (rows,) or (rows, columns). Features of a floating-point type are standardised, whole
            numbers are left as they are, for an embedding. It is called in every worker process,
            often, and must give the same each time: seed random numbers, cache what is slow.
        budget: epochs, batch size and width of the network, the same for every activation.
        network: builds the network from its :class:`~zeta.evaluate.tasks.Shape`, with the
            activation wherever it is to be compared; by default two hidden layers on rows of
            features. It gives (rows, outputs). Dropout and batch normalisation train in training
            and predict in scoring; a stream's predictions are those of the training pass.
        in_order: rows are in order of time: a trial has a window of half of them, of which the
            last quarter tests; the last quarter of the rest validates.
        stream: rows are seen once, in order, each batch scored before it is trained on
            (prequential evaluation), in a window of half of them; learning rates are tuned on the
            first quarter of one, and a fresh network is scored on the rest.
        together: the most trials that train as one stacked model; 1 for networks whose cost is
            in large matrix products, which gain nothing, and for those that cannot be stacked (an
            error says so). Dropout draws other numbers in a stack than alone.
        missing: says what to install if the data are not there.
        dataset: what the data are called, if other tasks have the same: over all tasks together,
            they have one vote; by default the task's name.
        tells_apart: whether its network does better with an activation than without one. Where a
            linear network does as well, a difference between activations says little of them: the
            task has its verdicts, and no part in averages and ranks over tasks.
        matched: weights start with the variance that the activation asks for, see
            ``zeta.evaluate.initialisation.match_variance``.
        stopping: the learning rate falls by a cosine to 0 over all steps, and what is scored are
            the weights of the epoch that did best on validation rows, which a final trial then
            keeps from training too.

    Raises:
        UserError: an unknown kind, a budget that is no Budget of whole numbers from 1, a stream
            that is to stop, or matched weights where ``build`` is one of its own.

    Example:
        >>> import numpy as np
        >>> from zeta.evaluate import Budget, Task
        >>> parity = Task(
        ...     name="parity",
        ...     title="whether a number is odd, from its bits",
        ...     kind="classification",
        ...     load=lambda: ((np.arange(64)[:, None] >> np.arange(6)) % 2.0, np.arange(64) % 2),
        ...     budget=Budget(epochs=20, batch_size=8, width=16),
        ... )
        >>> parity.constant_score(parity.split("final", seed=0))
        0.5
    """

    name: str
    title: str
    kind: Kind
    load: Callable[[], tuple[Array, Array]]
    budget: Budget
    network: Callable[[Shape, MakeActivation], "nn.Module"] = two_hidden_layers
    in_order: bool = False
    stream: bool = False
    together: int = 16
    missing: Callable[[], str | None] = nothing_missing
    dataset: str = ""
    tells_apart: bool = True
    matched: bool = False
    stopping: bool = False

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise self._error(f"kind must be one of {', '.join(METRICS)}; got {self.kind!r}")
        numbers = astuple(self.budget) if isinstance(self.budget, Budget) else ()
        if not numbers or not all(map(_is_count, numbers)):
            raise self._error(f"budget must be a Budget of whole numbers from 1; got {self.budget}")
        if not _is_count(self.together):
            raise self._error(f"together must be a whole number from 1; got {self.together!r}")
        for name in ("load", "network", "missing"):
            if not callable(getattr(self, name)):
                raise self._error(f"{name} must be a function; got {getattr(self, name)!r}")
        if self.stream and self.stopping:
            raise self._error("a stream is seen in one pass, so that no epoch is its best")
        if self.matched and type(self).build is not Task.build:
            raise self._error("its networks come with weights, which no initialisation replaces")

    @property
    def metric(self) -> str:
        """The score's name; higher is better."""
        return METRICS[self.kind]

    @property
    def usual_seeds(self) -> int:
        """How many final trials an activation has, twenty where they train together, else ten."""
        return _MANY_SEEDS if self.together > 1 else _FEW_SEEDS

    def fingerprint(self) -> str:
        """A hash of the data: other data, another fingerprint."""
        digest = hashlib.sha256(f"{self.kind}{self.in_order}{self.stream}".encode())
        for array in self._data():
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def split(self, phase: Phase, seed: int) -> Split:
        """The rows of one trial, drawn by its seed, features standardised by the training rows.

        Those of a stream are standardised by the part that tunes.

        Args:
            phase: "final" draws the test rows, trains on all others and scores on them; "tuning"
                draws validation rows from those others, trains on what is left and scores on
                them: the test rows of its own seed are not looked at. With validation stopping
                final trials train on what tuning trials do. All are of the same sizes for every
                seed.
            seed: draws test and validation rows; in order of time, the start of the window.

        Raises:
            UserError: the data are not as documented, or cannot be split.
        """
        x, y = self._data()
        train, score = self._rows(y, phase, seed)
        stop = np.arange(0)
        if self.stopping:
            train, stop = self._rows(y, "tuning", seed)
        # Of a stream, only its start is known beforehand.
        known = self._rows(y, "tuning", seed)[0] if self.stream else train
        x, y = self.encoded(x, y, known)
        for rows, use in ((score, f"score the {phase} trials"), (stop, "say which epoch is best")):
            if self.kind == "regression" and len(rows) and not np.ptp(y[rows], axis=0).any():
                raise self._error(
                    f"the {len(rows)} rows that {use} all have the same target, "
                    "which leaves R² undefined; more rows with different targets are needed"
                )
        return Split(x[train], y[train], x[score], y[score], x[stop], y[stop])

    def encoded(self, x: Array, y: Array, known: Array) -> tuple[Array, Array]:
        """The data as networks take them, by what the rows ``known`` tell and no others."""
        x = x.astype(np.int64) if x.dtype.kind in "biu" else _standardised(x, known)
        return x, _standardised(y, known) if self.kind == "regression" else y.astype(np.int64)

    def test_to_train(self) -> float:
        """ρ/(1-ρ), where two trials share the part ρ of their test rows, as is expected of chance.

        Of rows that are drawn it is test rows to all others, as in the correction of Nadeau and
        Bengio (2003), "Inference for the generalization error", where these train. A window of
        the part w starts anywhere in the part 1-w of all rows, so that two of them lie |Δ| apart,
        of density 2 (1-w-|Δ|) / (1-w)².
        """
        if not (self.in_order or self.stream):
            others, test = self._rows(self._data()[1], "final", seed=0)
            return len(test) / len(others)
        tested = WINDOW_FRACTION * (1 - STREAM_TUNING_FRACTION if self.stream else TEST_FRACTION)
        room = 1 - WINDOW_FRACTION
        # The integral of (tested - Δ) times that density, from 0 to where nothing is shared.
        apart = min(tested, room)
        shared = tested * room * apart - (tested + room) * apart**2 / 2 + apart**3 / 3
        overlap = 2 * shared / room**2 / tested
        return overlap / (1 - overlap)

    def shape(self, width: int) -> Shape:
        """What a network of this width must fit."""
        x, y = self._data()
        if self.kind == "regression":
            outputs = 1 if y.ndim == 1 else y.shape[1]
        else:
            outputs = int(y.max()) + 1
        return Shape(x.shape[1:], outputs, width)

    def build(self, shape: Shape, make_activation: MakeActivation, seed: int) -> "nn.Module":
        """The network to train, its weights drawn by ``seed``, the same for every activation."""
        import torch

        torch.manual_seed(seed)
        return self.network(shape, make_activation)

    def score(self, predictions: Array, targets: Array) -> float:
        """The metric of class scores (rows, classes), log-probabilities, or values."""
        if self.kind == "classification":
            return float(np.mean(predictions.argmax(axis=1) == targets))
        if self.kind == "likelihood":
            return float(np.mean(predictions[np.arange(len(targets)), targets], dtype=np.float64))
        predictions = predictions.reshape(targets.shape)
        residual = float(np.sum((targets - predictions) ** 2, dtype=np.float64))
        spread = np.sum((targets - targets.mean(axis=0)) ** 2, dtype=np.float64)
        return 1.0 - residual / float(spread)

    def constant_score(self, split: Split) -> float:
        """The score of the best constant prediction, which a diverged trial is given."""
        rows = len(split.score_y)
        if self.kind == "regression":
            constant = split.train_y.mean(axis=0)
        else:
            classes = int(max(split.train_y.max(), split.score_y.max())) + 1
            # One more of each, so that a class which was never trained on has a probability.
            counts = np.bincount(split.train_y, minlength=classes) + 1.0
            constant = np.log(counts / counts.sum())
        return self.score(np.tile(constant, (rows, *[1] * np.ndim(constant))), split.score_y)

    def _rows(self, y: Array, phase: Phase, seed: int) -> tuple[Array, Array]:
        """The rows to train and to score on."""
        rows = np.arange(len(y))
        if self.in_order or self.stream:
            rows = _window(rows, seed)
        if self.stream:
            start, rest = np.split(rows, [round(len(rows) * STREAM_TUNING_FRACTION)])
            seen = start if phase == "tuning" else rest
            return seen, seen
        development, test = self._cut(y, rows, TEST_FRACTION, seed)
        if phase == "final":
            return development, test
        return self._cut(y, development, VALIDATION_FRACTION, seed)

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
        target_dims = (1, 2) if self.kind == "regression" else (1,)
        if (
            x.ndim < 2
            or y.ndim not in target_dims
            or len(x) != len(y)
            or 0 in (*x.shape[1:], *y.shape[1:])
        ):
            columns = " or (rows, columns)" if self.kind == "regression" else ""
            raise self._error(
                f"load must give features (rows, columns, …) and targets (rows,){columns}, "
                f"got shapes {x.shape} and {y.shape}"
            )
        if x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
            raise self._error(
                "features and targets must be arrays of numbers (classes are numbered 0, 1, …), "
                f"got dtypes {x.dtype} and {y.dtype}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise self._error("features and targets must be finite numbers")
        self._check_rows(x, y)
        if self.kind == "regression":
            self._check_values(y)
        else:
            self._check_classes(y)
        if self.network is two_hidden_layers:
            self._check_columns(x)
        return x, y

    def _check_rows(self, x: Array, y: Array) -> None:
        ordered = self.in_order or self.stream
        least = round(_LEAST_ROWS / WINDOW_FRACTION) if ordered else _LEAST_ROWS
        if len(y) < least:
            raise self._error(f"at least {least} rows are needed, got {len(y)}")
        window = len(_window(y, 0))
        if self.stream and round(window * STREAM_TUNING_FRACTION) < self.budget.epochs:
            raise self._error(
                "the first quarter of a stream's window, which is half of its rows, needs a row "
                "for each of its budget's epochs; got "
                f"{len(y)} rows in all and {self.budget.epochs} epochs"
            )
        if max(np.abs(values.astype(float)).max() for values in (x, y)) > _LARGEST_VALUE:
            raise self._error(f"features and targets must be at most {_LARGEST_VALUE:g} in size")

    def _check_columns(self, x: Array) -> None:
        """What the usual network takes."""
        if x.ndim != 2:
            raise self._error(
                f"rows of shape {x.shape[1:]} need a network of their own: give the Task a network"
            )
        if x.dtype.kind in "biu":
            raise self._error(
                f"features of type {x.dtype} are left as they are, for an embedding in a network "
                "of your own; for the usual one make them float: x.astype(float)"
            )

    def _check_classes(self, y: Array) -> None:
        classes, counts = np.unique(y, return_counts=True)
        if self.kind == "likelihood":  # of a vocabulary, where a word may be missing
            if y.dtype.kind not in "iu" or classes[0] < 0 or classes[-1] > _LARGEST_CLASS:
                raise self._error(f"targets must be whole class numbers from 0 to {_LARGEST_CLASS}")
            return
        if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
            some = ", ".join(f"{label:g}" for label in classes[:3].astype(float))
            raise self._error(
                "targets must be the class numbers 0, 1, …, two or more and none left out; "
                f"got {some}{', …' * (len(classes) > 3)}"
            )
        if not (self.in_order or self.stream) and counts.min() < _LEAST_OF_A_CLASS:
            raise self._error(
                f"each class needs at least {_LEAST_OF_A_CLASS} rows; "
                f"class {counts.argmin()} has {counts.min()}"
            )

    def _check_values(self, y: Array) -> None:
        if y.min() == y.max():
            raise self._error(f"the targets must differ; all are {float(y.flat[0]):g}")

    def _error(self, problem: str) -> UserError:
        return UserError(f"task {self.name!r}: {problem}")

    def _cut(self, y: Array, rows: Array, fraction: float, seed: int) -> tuple[Array, Array]:
        """Two parts of ``rows``, the second ``fraction`` of them.

        In order of time, or drawn by ``seed`` with classes in equal shares.
        """
        if self.in_order:
            first, second = np.split(rows, [len(rows) - round(len(rows) * fraction)])
            return first, second
        shuffled = np.random.default_rng(seed).permutation(rows)
        if self.kind == "regression":
            groups = [shuffled]
        else:
            groups = [shuffled[y[shuffled] == label] for label in np.unique(y)]
        cuts = [round(len(group) * fraction) for group in groups]
        firsts = [group[cut:] for group, cut in zip(groups, cuts, strict=True)]
        seconds = [group[:cut] for group, cut in zip(groups, cuts, strict=True)]
        return np.sort(np.concatenate(firsts)), np.sort(np.concatenate(seconds))


def _window(rows: Array, seed: int) -> Array:
    """So many rows in a row, from a start that ``seed`` draws."""
    length = round(len(rows) * WINDOW_FRACTION)
    start = np.random.default_rng(seed).integers(len(rows) - length + 1)
    return rows[start : start + length]


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _standardised(values: Array, train: Array) -> Array:
    """Mean 0 and standard deviation 1 on the training rows; a constant column becomes 0."""
    known = values[train]
    mean = known.mean(axis=0, dtype=np.float64)
    deviation = known.std(axis=0, dtype=np.float64)
    # A constant's deviation may be a rounding error, and that of the smallest numbers underflows.
    scale = np.where((np.ptp(known, axis=0) > 0) & (deviation > 0), deviation, 1.0)
    return np.asarray((values - mean) / scale, dtype=np.float32)
