"""JAX functions.

Every activation of the catalogue under its name, ``zeta.jax.mish(x)`` say, with its parameters as
ordinary traced arguments, and

=============================  ==============================================================
``selu_softmax``               SELU, then softmax
``mixture_cross_entropy``      the loss of a mixture of softmaxes, in chunks of tokens
=============================  ==============================================================
"""

from collections.abc import Callable
from typing import Any

from zeta._errors import missing_extra

try:
    import jax  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("zeta.jax", "JAX", extra="jax") from error

from zeta.activations import CATALOGUE, SELU_ALPHA, SELU_SCALE
from zeta.jax.activations import on_arrays
from zeta.jax.mixture import mixture_cross_entropy
from zeta.jax.selu_softmax import selu_softmax

_FUNCTIONS = {name: on_arrays(formula) for name, formula in CATALOGUE.items()}

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "mixture_cross_entropy",
    "selu_softmax",
    *CATALOGUE,
]


def __getattr__(name: str) -> Callable[..., Any]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    raise AttributeError(f"module 'zeta.jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
