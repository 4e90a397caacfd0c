"""`TensorBoard`: trials as event files, a run for each, to be looked at in TensorBoard."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from zeta._errors import UserError, missing_extra
from zeta.evaluate.progress import Progress
from zeta.evaluate.protocol import Phase, Trial, scored_epochs
from zeta.evaluate.results import short_names

# The writer of records and its messages alone: neither TensorFlow nor PyTorch is imported.
try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError:
    raise missing_extra("--tensorboard", "TensorBoard", extra="tensorboard") from None


class TensorBoard:
    """A :class:`zeta.evaluate.Progress` that writes event files and tells another one.

    A trial is the run ``task/activation/phase lr=… seed=…``, with ``training loss`` and the
    score by epoch and, at the last epoch, ``validation`` or ``test`` and the metric. Its file is
    written whole once the trial is finished; a finished trial's file is not written again.

    Args:
        folder: for the event files; made if it does not exist.
        names: activations and tasks as they are named on the command line.
        inner: told everything.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path, names: Sequence[str], inner: Progress) -> None:
        self._folder, self._inner = folder, inner
        self._names = short_names(names)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def phase(self, name: Phase, totals: Mapping[str, int]) -> None:
        """Passed on."""
        self._inner.phase(name, totals)

    def finished(self, trials: Sequence[Trial], *, resumed: bool) -> None:
        """Write the trials' files.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            for trial in trials:
                self._write(trial)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        self._inner.finished(trials, resumed=resumed)

    def note(self, line: str) -> None:
        """Passed on."""
        self._inner.note(line)

    def _write(self, trial: Trial) -> None:
        key = trial.key
        run = f"{key.phase} lr={key.learning_rate:g} seed={key.seed}"
        folder = self._folder / self._part(key.task) / self._part(key.activation) / run
        file = folder / f"events.out.tfevents.{key.hex()}"
        if file.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.*"):  # of the formula or data as they were before
            old.unlink()
        temporary = folder / f"{os.getpid()}.tmp"  # TensorBoard does not take it for events
        with temporary.open("wb") as stream:
            writer = RecordWriter(stream)
            for event in _events(trial):
                writer.write(event.SerializeToString())
        temporary.replace(file)

    def _part(self, name: str) -> str:
        """A folder's name."""
        return re.sub(r"[^\w.()-]+", "_", self._names[name])


def _events(trial: Trial) -> Iterator[Event]:
    now = time.time()
    yield Event(wall_time=now, file_version="brain.Event:2")

    def scalar(tag: str, step: int, value: float) -> Event:
        return Event(
            wall_time=now,
            step=step,
            summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]),
        )

    for epoch, loss in enumerate(trial.curve, start=1):
        yield scalar("training loss", epoch, loss)
    rows = "test" if trial.key.phase == "final" else "validation"
    epochs = scored_epochs(trial.key.budget.epochs)
    for epoch, score in zip(epochs, trial.score_curve, strict=False):
        yield scalar(f"{rows} {trial.metric} by epoch", epoch, score)
    if trial.value is not None:
        yield scalar(f"{rows} {trial.metric}", len(trial.curve), trial.value)


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write TensorBoard's files to {str(folder)!r}: {error.strerror}")
