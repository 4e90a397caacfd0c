"""Keras 3 layers and functions, on its TensorFlow, JAX and PyTorch backends.

==========================  =====================================================
``Exo``                     sigmoid gate between the identity and tanh
``LearnableSELUVariation``  SELU with a sine, five learnable parameters
``LaplaceActivation``       MEGA's attention activation
``SELUSoftmax``             SELU, then softmax
``SoftmaxHead``             softmax over a formula of linear logits
``MixtureOfSoftmaxes``      K softmax layers, mixed with learned weights
``FormulaLayer``            any formula of the catalogue as a layer
``GatedUnit``               any gate of the catalogue as a layer
``gated``                   a gate on one tensor that holds both of its inputs
``mixture_cross_entropy``   the loss of a mixture of softmaxes, in chunks of tokens
==========================  =====================================================

Every activation and gate of the catalogue is a function too: ``zeta.keras.swiglu(gate, value)``,
and ``zeta.keras.mish(x)``, which serves as ``activation=`` of a layer. So is ``selu_softmax``,
whose documented dimension is the batch's: as ``activation=`` take ``SELUSoftmax()``. All are
registered under the package "zeta".
"""

from collections.abc import Callable
from typing import Any

from zeta._errors import missing_extra

try:
    import keras
except ModuleNotFoundError as error:
    raise missing_extra("zeta.keras", "Keras", extra="keras") from error

from zeta._formula import Formula
from zeta.activations import (
    CATALOGUE,
    GATES,
    SELU_ALPHA,
    SELU_SCALE,
    follow,
    load_entry_points,
)
from zeta.keras.activations import (
    Exo,
    FormulaLayer,
    LaplaceActivation,
    LearnableSELUVariation,
    SELUSoftmax,
)
from zeta.keras.functions import PACKAGE, gated, on_tensors, selu_softmax
from zeta.keras.gated_unit import GatedUnit
from zeta.keras.loss import mixture_cross_entropy
from zeta.keras.matched import Matched as _Matched  # noqa: F401, so that it can be loaded
from zeta.keras.mixture import MixtureOfSoftmaxes
from zeta.keras.softmax_head import SoftmaxHead

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def _add(formula: Formula) -> None:
    register = keras.saving.register_keras_serializable(package=PACKAGE)
    _FUNCTIONS[formula.name] = register(on_tensors(formula))


load_entry_points()  # a saved model may hold one
follow(_add)

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "Exo",
    "FormulaLayer",
    "GatedUnit",
    "LaplaceActivation",
    "LearnableSELUVariation",
    "MixtureOfSoftmaxes",
    "SELUSoftmax",
    "SoftmaxHead",
    "gated",
    "mixture_cross_entropy",
    "selu_softmax",
    *CATALOGUE,
    *GATES,
]


def __getattr__(name: str) -> Callable[..., Any]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    raise AttributeError(f"module 'zeta.keras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FUNCTIONS})
