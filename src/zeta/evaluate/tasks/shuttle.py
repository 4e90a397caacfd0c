"""A stream: sensor readings of a space shuttle in order of time, with rare anomalies."""

from functools import cache

import numpy as np

from zeta.evaluate.tasks.task import Array, Budget, Task, needs_package, package_file

_EVERY = 3  # rows; the whole stream has 49,097


@cache
def _load() -> tuple[Array, Array]:
    path = package_file("river", "datasets/shuttle.csv.gz")
    table = np.loadtxt(path, delimiter=",", skiprows=1)[::_EVERY]
    return table[:, :-1], table[:, -1].astype(np.int64)


shuttle_stream = Task(
    name="shuttle_stream",
    title="anomalies in 9 sensors of a space shuttle, 16,366 readings as they come (river)",
    kind="classification",
    load=_load,
    budget=Budget(epochs=20, batch_size=32, width=32),
    stream=True,
    missing=needs_package("river", "pip install 'zeta-nn[tasks]'"),
)
