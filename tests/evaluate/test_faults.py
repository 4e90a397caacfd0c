"""Full disks, dead workers, formulas that fail: one clear line, and nothing finished is lost."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from answering import InThisProcess
from zeta._errors import UserError
from zeta.evaluate.engines import LocalEngine
from zeta.evaluate.progress import Silent
from zeta.evaluate.protocol import Settings, Trial
from zeta.evaluate.study import Study

TASK = """
import numpy as np
from zeta.evaluate import Budget, Task

def load():
    x = np.random.default_rng(0).normal(size=(160, 4))
    return x, (x.sum(axis=1) > 0).astype(int)

blobs = Task("blobs", "the sign of a sum", "classification", load, Budget(4, 32, 8))
"""
FORMULA = """
from zeta import formula

@formula
def raises(x):
    if hasattr(x, "shape"):
        raise ValueError("not this\\nframework")
    return x * x

@formula
def shorter(x):
    return x[:1] if hasattr(x, "shape") else x * x
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "mine.py").write_text(FORMULA)
    return tmp_path


def evaluate(
    files: Path, activation: str = "exo", most_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, in a process whose files may have so many bytes each."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    arguments = ["evaluate", activation, "--task", "task.py:blobs", "--out", "out", "--seeds", "4"]
    return subprocess.run(
        [sys.executable, "-m", "zeta.cli", *arguments],
        cwd=files,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit,
    )


def kept(files: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files.glob("out/trials/*.json")}


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system: run as root")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs, which Linux has")
def test_a_full_disk(files: Path) -> None:
    with small_disk(files / "out", "160k"):
        full = evaluate(files)
        assert full.returncode == 1
        last = full.stderr.splitlines()[-1]
        assert last.startswith("zeta: cannot write to 'out/trials': No space left on device; ")
        assert "the same command resumes" in last
        assert "Traceback" not in full.stderr
        before = kept(files)
        assert before
        subprocess.run(["mount", "-o", "remount,size=64m", files / "out"], check=True)
        resumed = evaluate(files)
        assert resumed.returncode == 0, resumed.stderr
        assert before.items() <= kept(files).items(), "nothing is lost or run again"


def test_files_that_may_not_grow(files: Path) -> None:
    limited = evaluate(files, most_bytes=4096)
    assert limited.returncode == 1
    assert "cannot write to 'out/trials': File too large; " in limited.stderr.splitlines()[-1]
    assert not [*files.glob("out/trials/*.group"), *files.glob("out/trials/.*.tmp")]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raises", "ValueError: not this framework"),
        pytest.param("shorter", "", marks=pytest.mark.slow),
    ],
)
def test_a_formula_that_fails_in_training(files: Path, name: str, problem: str) -> None:
    run = evaluate(files, f"mine.py:{name}")
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert f"zeta: 'mine.py:{name}' failed on task 'task.py:blobs': " in last
    assert problem in last
    assert "Traceback" not in run.stderr


class KillsAWorker(Silent):
    """Kills one of the engine's processes once the first trials are finished."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine, self._killed = engine, False

    def finished(self, trials: Sequence[Trial], *, resumed: bool) -> None:
        assert self._engine._pool is not None
        if not self._killed:
            os.kill(next(iter(self._engine._pool._processes)), signal.SIGKILL)
            self._killed = True


def test_a_worker_that_dies(files: Path) -> None:
    settings = Settings(("exo",), (f"{files}/task.py:blobs",), num_seeds=4, tuning_seeds=(0, 1))
    with (
        pytest.raises(UserError, match=r"a worker process died.*the same command resumes"),
        LocalEngine(workers=2) as engine,
    ):
        Study(settings, files / "out", engine, KillsAWorker(engine)).run()
    before = kept(files)
    assert before
    results = Study(settings, files / "out", InThisProcess(), Silent()).run()
    assert results.timing["resumed"] == len(before)
    assert before.items() <= kept(files).items()
