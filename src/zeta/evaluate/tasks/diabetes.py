"""Regression: the progression of diabetes over a year."""

from functools import cache

from zeta.evaluate.tasks.task import Array, Budget, Task


@cache
def _load() -> tuple[Array, Array]:
    from sklearn.datasets import load_diabetes

    return load_diabetes(return_X_y=True)


diabetes = Task(
    name="diabetes",
    title="disease progression from 10 measurements, 442 patients (scikit-learn's diabetes)",
    kind="regression",
    load=_load,
    budget=Budget(epochs=30, batch_size=32, width=32),
    tells_apart=False,
)
