"""Flax NNX modules, with the arguments of the PyTorch ones.

==========================  =====================================================
``Exo``                     sigmoid gate between the identity and tanh
``LearnableSELUVariation``  SELU with a sine, five learnable parameters
``LaplaceActivation``       MEGA's attention activation
``SELUSoftmax``             SELU, then softmax
``SoftmaxHead``             softmax over a formula of linear logits
``MixtureOfSoftmaxes``      K softmax layers, mixed with learned weights
``FormulaModule``           any formula as a module
``GatedUnit``               any gate as a module
==========================  =====================================================
"""

from zeta._errors import missing_extra

try:
    import flax  # noqa: F401
    import jax  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("zeta.flax", "Flax", extra="flax") from error

from zeta.flax.activations import Exo, FormulaModule, LaplaceActivation, LearnableSELUVariation
from zeta.flax.gated import GatedUnit
from zeta.flax.mixture import MixtureOfSoftmaxes
from zeta.flax.selu_softmax import SELUSoftmax
from zeta.flax.softmax_head import SoftmaxHead

__all__ = [
    "Exo",
    "FormulaModule",
    "GatedUnit",
    "LaplaceActivation",
    "LearnableSELUVariation",
    "MixtureOfSoftmaxes",
    "SELUSoftmax",
    "SoftmaxHead",
]
