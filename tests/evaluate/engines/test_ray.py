"""A real Ray cluster on this machine, with nodes that die."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from answering import InThisProcess
from zeta._errors import UserError
from zeta.evaluate import Settings
from zeta.evaluate.engines import Engine, make_engine
from zeta.evaluate.progress import Silent
from zeta.evaluate.study import Study

pytest.importorskip("ray", reason="pip install 'zeta-nn[ray]'")

TASK = """
import numpy as np
from zeta.evaluate import Budget, Task

def load():
    x = np.random.default_rng(0).normal(size=(160, 4))
    return x, (x.sum(axis=1) > 0).astype(int)

blobs = Task("blobs", "the sign of a sum", "classification", load, Budget(EPOCHS, 32, 8))
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without processors, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


class Until(Silent):
    """Calls a function once, when so many trials are finished."""

    def __init__(self, trials: int, then: Any) -> None:
        self._left, self._then = trials, then

    def finished(self, trials: Any, *, resumed: bool) -> None:
        self._left -= len(trials)
        if self._left <= 0 and self._then:
            self._then()
            self._then = None


def test_the_table_is_the_same_though_a_node_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(TASK.replace("EPOCHS", "10"))
    settings = Settings(("exo",), ("task.py:blobs",), num_seeds=10, tuning_seeds=(0, 1))

    def results(out: str, engine: Engine, progress: Silent) -> Any:
        with engine:
            Study(settings, Path(out), engine, progress).run()
        data = json.loads((tmp_path / out / "results.json").read_text())
        for part in (data, *data["trials"], *data["scores"]):
            for name in ("timing", "environment", "step_ms"):
                part.pop(name, None)
        return data

    doomed, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    deaths = list[str]()

    def kill() -> None:
        cluster.remove_node(doomed, allow_graceful=False)
        deaths.append(doomed.node_id)

    on_ray = results("ray", make_engine("ray", cluster.address), Until(40, kill))
    assert deaths == [doomed.node_id]
    assert on_ray == results("here", InThisProcess(), Silent())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", r"no Ray cluster answers at '127.0.0.1:9': start one with `ray start"),
        ("nowhere.invalid:6379", r"no Ray cluster answers at 'nowhere.invalid:6379'"),
        ("nonsense", r"'nonsense' is no address of a Ray cluster; write HOST:PORT or auto"),
        ("ray://h:99999", "no Ray cluster answers at"),
    ],
)
def test_an_unreachable_address_is_one_line(address: str, message: str) -> None:
    with make_engine("ray", address) as engine, pytest.raises(UserError, match=message):
        engine.start()


def test_a_server_that_is_no_ray_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeta.evaluate.engines.ray._SECONDS_TO_JOIN", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with make_engine("ray", address) as engine, pytest.raises(UserError, match="answers at"):
            engine.start()


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    arguments = ["evaluate", "exo", "--task", "digits", "--engine", "ray"]
    run = subprocess.run(
        [sys.executable, "-m", "zeta.cli", *arguments, "--address", "127.0.0.1:9"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "no Ray cluster answers at '127.0.0.1:9'" in run.stderr
    assert len(run.stderr.splitlines()) == 1
