"""Images: articles of clothing, 28×28 pixels, by a convolutional network."""

import gzip
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.task import Array, Budget, MakeActivation, Shape, Task

if TYPE_CHECKING:
    from torch import nn

# Where Debian's packages of data sets put them, unless ZETA_DATASETS names another folder.
_SYSTEM_FOLDER = "/usr/share/datasets"
_IMAGES = 8000
_IMAGE_HEADER, _LABEL_HEADER = 16, 8  # bytes of an IDX file before its data


def _folder() -> Path:
    return Path(os.environ.get("ZETA_DATASETS", _SYSTEM_FOLDER)) / "fashion-mnist"


def _missing() -> str | None:
    if _folder().is_dir():
        return None
    return (
        "its images are in Debian's package: apt install dataset-fashion-mnist; or set "
        "ZETA_DATASETS to the folder that holds fashion-mnist/"
    )


def _load() -> tuple[Array, Array]:
    return _read(_folder())


@cache
def _read(folder: Path) -> tuple[Array, Array]:
    images = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=_IMAGE_HEADER).reshape(-1, 1, 28, 28)
    y = np.frombuffer(labels, np.uint8, offset=_LABEL_HEADER)
    return x[:_IMAGES].astype(np.float32), y[:_IMAGES].astype(np.int64)


def _convolutional(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, shape.width, 5, stride=2),
        make_activation(),
        nn.Conv2d(shape.width, 2 * shape.width, 3, stride=2),
        make_activation(),
        nn.Flatten(-3),
        nn.Linear(50 * shape.width, 64),
        make_activation(),
        nn.Linear(64, shape.outputs),
    )


fashion_mnist = Task(
    name="fashion_mnist",
    title=f"10 kinds of clothing from 28×28 pixels, {_IMAGES} images of Fashion-MNIST",
    kind="classification",
    load=_load,
    budget=Budget(epochs=5, batch_size=64, width=8),
    network=_convolutional,
    missing=_missing,
)
