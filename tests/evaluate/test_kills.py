"""`kill -9` at any moment: nothing finished is lost or redone, and the table is the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from answering import InThisProcess
from zeta.evaluate import Settings
from zeta.evaluate.progress import Silent
from zeta.evaluate.store import TrialStore
from zeta.evaluate.study import Study

# Small trials: a good part of the time goes into storing them, where a kill does most harm.
TASK = """
import numpy as np
from zeta.evaluate import Budget, Task

def load():
    x = np.random.default_rng(0).normal(size=(160, 4))
    return x, (x.sum(axis=1) > 0).astype(int)

blobs = Task("blobs", "the sign of a sum", "classification", load, Budget(2, 32, 8))
"""
# Logs which groups were handed out for training and which trials were reported as finished.
RUN = """
import json, os, sys
from pathlib import Path
from zeta.evaluate import Settings
from zeta.evaluate.engines import LocalEngine
from zeta.evaluate.progress import Silent
from zeta.evaluate.study import Study

log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def say(what, groups):
    names = [[trial.hex() for trial in group] for group in groups]
    os.write(log, (json.dumps([what, names]) + "\\n").encode())

class LoggingEngine(LocalEngine):
    def run(self, groups):
        say("asked", groups)
        return super().run(groups)

class LoggingProgress(Silent):
    def finished(self, trials, *, resumed):
        say("finished", [[trial.key for trial in trials]])

if __name__ == "__main__":
    settings = Settings(("exo",), ("task.py:blobs",), num_seeds=40, tuning_seeds=(0, 1))
    with LoggingEngine(workers=2) as engine:
        Study(settings, Path("out"), engine, LoggingProgress()).run()
"""


class SweepUnderKills:
    """A folder in which one sweep is started, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left_behind = Counter[str]()  # by kills: what kind of unfinished business
        self._stored: dict[str, bytes] = {}
        self._times_trained: dict[str, int] = {}  # when it was first seen to be finished
        folder.mkdir()
        (folder / "task.py").write_text(TASK)
        (folder / "run.py").write_text(RUN)

    def run(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Run until something is so, or to the end; whether it got there."""
        process = subprocess.Popen(
            [sys.executable, "run.py"],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None:
            if until():
                os.killpg(process.pid, signal.SIGKILL)
                # It ends with the last process that holds standard error: no worker is left.
                process.communicate(timeout=60)
                return False
            time.sleep(0.01)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        return True

    def has_finished_some(self) -> bool:
        """Whether any trial was reported as finished."""
        return any(self._logged("finished"))

    def check(self) -> None:
        """Hold what is stored against the log, and against what was stored before."""
        handed_out, reported = self._logged("asked"), self._logged("finished")
        stored = _trials_in(self.folder / "out")
        assert all(stored.get(key) == before for key, before in self._stored.items()), "rewritten"
        assert {key for group in reported for key in group} <= stored.keys(), "lost"
        reopened = self._reopened()
        for group in handed_out:
            assert len(reopened.keys() & set(group)) in (0, len(group)), "half a group"
        times = Counter(key for group in handed_out for key in group)
        assert all(times[key] == before for key, before in self._times_trained.items()), "redone"
        self._times_trained = {key: times[key] for key in reopened}
        self._stored = stored

    def results(self) -> Any:
        """What `results.json` says, without what may differ between two runs."""
        data = json.loads((self.folder / "out" / "results.json").read_text())
        for part in (data, *data["trials"], *data["scores"]):
            for name in ("timing", "environment", "step_ms"):
                part.pop(name, None)
        return data

    def _logged(self, what: str) -> list[list[str]]:
        path = self.folder / "log"
        text = path.read_text() if path.exists() else ""
        lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
        return [group for kind, groups in lines if kind == what for group in groups]

    def _reopened(self) -> dict[str, bytes]:
        """What another run would find; a copy is opened, so that the next run has the work."""
        if not (self.folder / "out" / "trials").exists():
            return {}
        copy = shutil.copytree(self.folder / "out", self.folder / "copy")
        self.left_behind.update(path.suffix for path in (copy / "trials").iterdir())
        notes = list[str]()
        TrialStore(copy, notes.append).close()
        assert not notes
        found = _trials_in(copy)
        shutil.rmtree(copy)
        return found


def _trials_in(folder: Path) -> dict[str, bytes]:
    """Key -> the file's content, which tells how long the trial took and so when it was run."""
    return {path.stem: path.read_bytes() for path in (folder / "trials").glob("*.json")}


def test_killed_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = SweepUnderKills(tmp_path / "sweep")
    assert not sweep.run(sweep.has_finished_some)
    sweep.check()
    assert sweep.run()
    sweep.check()
    undisturbed = SweepUnderKills(tmp_path / "undisturbed")
    monkeypatch.chdir(undisturbed.folder)
    settings = Settings(("exo",), ("task.py:blobs",), num_seeds=40, tuning_seeds=(0, 1))
    Study(settings, Path("out"), InThisProcess(), Silent()).run()
    assert sweep.results() == undisturbed.results()


@pytest.mark.slow
def test_killed_a_hundred_times_at_random_moments(tmp_path: Path) -> None:
    undisturbed = SweepUnderKills(tmp_path / "undisturbed")
    started = time.monotonic()
    assert undisturbed.run()
    duration, expected = time.monotonic() - started, undisturbed.results()

    moments, killed, sweeps, left_behind = random.Random(0), 0, 0, Counter[str]()

    def later(seconds: float) -> Callable[[], bool]:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() > end

    while killed < 100:
        sweep = SweepUnderKills(tmp_path / f"sweep-{sweeps}")
        while killed < 100 and not sweep.run(later(moments.uniform(0, 0.7 * duration))):
            killed += 1
            sweep.check()
        assert sweep.run()
        sweep.check()
        assert sweep.results() == expected
        sweeps, left_behind = sweeps + 1, left_behind + sweep.left_behind
    print(f"{killed} kills in {sweeps} sweeps of {len(expected['trials'])} trials; "
          f"left behind: {dict(left_behind)}")  # fmt: skip
