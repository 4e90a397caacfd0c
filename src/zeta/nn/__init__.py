"""PyTorch modules.

==========================  ================================================================
``Exo``                     sigmoid gate between the identity and tanh
``LearnableSELUVariation``  SELU with a sine, five learnable parameters
``LaplaceActivation``       MEGA's attention activation
``SELUSoftmax``             SELU, then softmax
``SoftmaxHead``             a softmax over a formula of linear logits
``MixtureOfSoftmaxes``      K softmax layers, mixed with learned weights
``FormulaModule``           any formula as a module; see ``Formula.module``
``GatedUnit``               any gate as a module, on one tensor that holds both its inputs
``ActivatedLinear``         ``nn.Linear`` after a formula, which keeps the formula's inputs alone
``parameter_groups``        a model's parameters for an optimizer, with weight decay and without
``init.calculate_gain``     the gain of any formula, for the weights before it
==========================  ================================================================
"""

from zeta._errors import missing_extra

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("zeta.nn", "PyTorch", extra="torch") from error

from zeta.nn import init
from zeta.nn.activated_linear import ActivatedLinear
from zeta.nn.activations import Exo, FormulaModule, LaplaceActivation, LearnableSELUVariation
from zeta.nn.gated import GatedUnit
from zeta.nn.mixture import MixtureOfSoftmaxes
from zeta.nn.selu_softmax import SELUSoftmax
from zeta.nn.softmax_head import SoftmaxHead
from zeta.nn.weight_decay import parameter_groups

__all__ = [
    "ActivatedLinear",
    "Exo",
    "FormulaModule",
    "GatedUnit",
    "LaplaceActivation",
    "LearnableSELUVariation",
    "MixtureOfSoftmaxes",
    "SELUSoftmax",
    "SoftmaxHead",
    "init",
    "parameter_groups",
]
