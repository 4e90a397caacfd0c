"""Images: handwritten digits, 8×8 pixels."""

from zeta.evaluate.tasks.task import Array, Budget, Task


def _load() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


digits = Task(
    name="digits",
    title="10 handwritten digits from 8×8 pixels, 1797 images (scikit-learn's digits)",
    kind="classification",
    load=_load,
    budget=Budget(epochs=30, batch_size=64, width=64),
)
