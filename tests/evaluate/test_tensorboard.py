"""Event files, read back by TensorBoard itself."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="pip install 'zeta-nn[tensorboard]'")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zeta._errors import UserError
from zeta.evaluate import Budget, Trial, TrialKey
from zeta.evaluate.progress import Silent
from zeta.evaluate.tensorboard import TensorBoard

KEY = TrialKey("a/task.py:blobs", "d", "relu", "f", 0.01, 100, "final", Budget(2, 4, 8))
TRIAL = Trial(KEY, "accuracy", "ok", 0.5, 7, (0.25, 0.125))
RUN = Path("blobs") / "relu" / "final lr=0.01 seed=100"


def written(folder: Path, *trials: Trial) -> Path:
    board = TensorBoard(folder, ["a/task.py:blobs", "relu"], Silent())
    board.finished(trials, resumed=False)
    return folder


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run)).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_curve_and_final_value(tmp_path: Path) -> None:
    run = written(tmp_path, TRIAL) / RUN
    assert scalars(run) == {
        "training loss": [(1, 0.25), (2, 0.125)],
        "test accuracy": [(2, 0.5)],
    }


def test_a_diverged_trial_has_no_value(tmp_path: Path) -> None:
    diverged = replace(TRIAL, status="diverged", value=None, curve=(0.25,))
    assert scalars(written(tmp_path, diverged) / RUN) == {"training loss": [(1, 0.25)]}


def test_a_trial_is_written_once_and_its_successor_takes_its_place(tmp_path: Path) -> None:
    (file,) = (written(tmp_path, TRIAL) / RUN).iterdir()
    before = file.stat().st_mtime_ns
    written(tmp_path, TRIAL)
    assert file.stat().st_mtime_ns == before
    other = replace(TRIAL, key=replace(KEY, formula="another"), value=0.75)
    assert scalars(written(tmp_path, other) / RUN)["test accuracy"] == [(2, 0.75)]
    assert len(list((tmp_path / RUN).iterdir())) == 1


def test_no_framework_is_imported() -> None:
    code = (
        "import sys, zeta.evaluate.tensorboard; print({'torch', 'tensorflow'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write TensorBoard's files to .*Not a directory"):
        TensorBoard(tmp_path / "file" / "board", [], Silent())
