"""JAX functions.

Every activation and gate of the catalogue under its name, ``zeta.jax.mish(x)`` or
``zeta.jax.swiglu(gate, value)`` say, with its parameters as ordinary traced arguments, and

=============================  ==============================================================
``gated``                      a gate on one array that holds both of its inputs
``selu_softmax``               SELU, then softmax
``sparsemax``, ``entmax15``    softmaxes with exact zeros
``sparsemax_loss``             what trains a sparsemax, in the place of cross-entropy
``entmax15_loss``              what trains an entmax15
``linear_cross_entropy``       the loss of a softmax over a formula of logits, in chunks of tokens
``linear_log_prob``            log-probabilities and entropies of the same
``mixture_cross_entropy``      the loss of a mixture of softmaxes, likewise
=============================  ==============================================================
"""

import functools
from collections.abc import Callable
from typing import Any

from zeta._errors import missing_extra

try:
    import jax  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("zeta.jax", "JAX", extra="jax") from error

from zeta.activations import CATALOGUE, GATES, SELU_ALPHA, SELU_SCALE, find
from zeta.jax.activations import gated, on_arrays
from zeta.jax.linear_cross_entropy import linear_cross_entropy, linear_log_prob
from zeta.jax.mixture import mixture_cross_entropy
from zeta.jax.selu_softmax import selu_softmax
from zeta.jax.sparse_softmax import entmax15, entmax15_loss, sparsemax, sparsemax_loss

_on_arrays = functools.cache(on_arrays)  # one function of each, that a pickle finds again

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "entmax15",
    "entmax15_loss",
    "gated",
    "linear_cross_entropy",
    "linear_log_prob",
    "mixture_cross_entropy",
    "selu_softmax",
    "sparsemax",
    "sparsemax_loss",
    *CATALOGUE,
    *GATES,
]


def __getattr__(name: str) -> Callable[..., Any]:
    if not name.startswith("_") and (formula := find(name)):
        return _on_arrays(formula)
    raise AttributeError(f"module 'zeta.jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *CATALOGUE, *GATES})
