"""A table with two classes: tumours, benign or malignant."""

from functools import cache

from zeta.evaluate.tasks.task import Array, Budget, Task


@cache
def _load() -> tuple[Array, Array]:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(return_X_y=True)


breast_cancer = Task(
    name="breast_cancer",
    title="benign or malignant from 30 measurements, 569 tumours (scikit-learn's breast cancer)",
    kind="classification",
    load=_load,
    budget=Budget(epochs=30, batch_size=32, width=32),
    tells_apart=False,
)
